"""``run_pair_cls.py --architecture bi_encoder`` from files to vectors, and back from its folder."""

import csv
import itertools
import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import load_decision
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.stages.finetune import main

THINGS = ["the old pump", "a small valve", "the new filter", "one spare hose", "the blue meter", "this heavy lid"]
SIGNS = ["leaks", "sticks", "hums", "stops", "works", "rattles"]
WHENS = ["in the cold morning", "after a long rain", "when the door is open", "on the second floor", "at full load"]


@pytest.fixture(scope="module")
def pairs_path(tmp_path_factory):
    """160 pairs that share no text; they mean the same where both name one thing."""
    draw = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        for sign in list(map(" ".join, itertools.product(SIGNS, repeat=3)))[:160]:
            label, thing = draw.integers(0, 2), draw.integers(0, 6)
            other = thing if label else (thing + draw.integers(1, 6)) % 6
            first, second = draw.choice(WHENS, 2)
            writer.writerow([f"{sign} {first} {THINGS[thing]}", f"{THINGS[other]} {second} {sign}", label])
    return str(path)


@pytest.fixture
def words(tiny_bert, pairs_path, tmp_path):
    def build(*more, **flags):
        flags = {
            "architecture": "bi_encoder",
            "model_name_or_path": tiny_bert,
            "train_file": pairs_path,
            "output_dir": tmp_path / "run",
            "max_seq_length": 32,
            "per_device_train_batch_size": 16,
            "num_train_epochs": 2,
            "learning_rate": 2e-3,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        } | flags
        return [f"--{name}={value}" for name, value in flags.items()] + list(more)

    return build


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_folder_scores_as_the_run_did(words, tmp_path):
    metrics = main(words("--pooling=first_last_avg", "--head_norm=batch", "--matryoshka_dims", "16", "8"))
    run = tmp_path / "run"
    record = json.loads((run / "run.json").read_text())
    assert record["architecture"] == "bi_encoder"
    assert record["settings"] == {
        "pooling": "first_last_avg", "loss": "online_contrastive", "matryoshka_dims": [16, 8], "head_norm": "batch",
        "decide_by": "accuracy", "wanted_precision": None,
    }  # fmt: skip

    rows = read_rows(run / "test_predictions.csv")
    cosines, scores, labels = (np.array([float(row[name]) for row in rows]) for name in ("raw_score", "score", "label"))
    model = SentenceTransformer(str(run), device="cpu")
    vectors = [model.encode([row[name] for row in rows]) for name in ("sentence1", "sentence2")]
    np.testing.assert_allclose((vectors[0] * vectors[1]).sum(1), cosines, atol=1e-5)
    np.testing.assert_allclose(load_decision(run).probability(cosines), scores, atol=1e-12)
    assert [row["prediction"] for row in rows] == [str(int(score >= record["threshold"])) for score in scores]
    assert metrics["test"] == compute_pair_metrics("binary", scores, labels, record["threshold"])

    predicted = tmp_path / "predicted"
    unlabelled = ["--do_predict", f"--predict_file={run / 'test_predictions.csv'}", f"--output_dir={predicted}"]
    main([f"--model_name_or_path={run}", *unlabelled, "--use_cpu=true", "--bf16=false"])
    again = read_rows(predicted / "predictions.csv")
    np.testing.assert_allclose([float(row["raw_score"]) for row in again], cosines, atol=1e-5)
    np.testing.assert_allclose([float(row["score"]) for row in again], scores, atol=1e-4)
    assert [row["prediction"] for row in again] == [row["prediction"] for row in rows]


def test_ranking_trains_on_positive_pairs_and_is_decided_like_the_others(words, tmp_path):
    metrics = main(words("--loss=cached_multiple_negatives_ranking", num_train_epochs=6))
    assert metrics["test"]["average_precision"] > metrics["baselines"]["majority"]["average_precision"]
    steps = json.loads((tmp_path / "run" / "run.json").read_text())["global_step"]
    positives = sum(int(row["label"]) for row in read_rows(words()[2].partition("=")[2]))
    assert 0 < steps <= 6 * -(-positives // 16)


def test_a_finished_run_is_found_again_and_another_pooling_is_another_run(words):
    first = main(words(max_steps=1))
    assert main(words(max_steps=1)) == first
    with pytest.raises(InputError, match="pooling: mean -> cls"):
        main(words("--pooling=cls", max_steps=1))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--num_labels=2"], "--num_labels is for --architecture cross_encoder"),
        (["--matryoshka_dims", "64"], "--matryoshka_dims 64: give dimensions from 1 to 32"),
        (["--label_kind=classes"], "a cosine does not tell classes apart"),
        (["--architecture=cross_encoder", "--loss=cosent"], "--loss is for --architecture bi_encoder"),
    ],
)
def test_flags_that_do_not_go_together_are_refused(words, more, message):
    with pytest.raises(InputError, match=message):
        main(words(*more))
