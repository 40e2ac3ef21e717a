"""K folds: no text on both sides, each pair unseen once, the mean of the members as one model, no work twice."""

import csv
import json

import numpy as np
import pytest
from scipy.special import expit

from pair_pkg.data.splits import find_leaks
from pair_pkg.errors import InputError
from pair_pkg.export.source import load_finished
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.stages import finetune
from pair_pkg.stages.arguments.pairs import PairArguments
from pair_pkg.stages.fold_runs import split_folds
from pair_pkg.stages.pairs_data import load_splits
from pair_pkg.stages.predictions import read_predictions


@pytest.fixture
def pairs_path(tmp_path, tiny_pairs):
    """80 pairs; every text stands in two of them."""
    rows = []
    for n in range(40):
        rows += [(tiny_pairs[n][0], tiny_pairs[n][1], 1), (tiny_pairs[n][0], tiny_pairs[n + 40][1], 0)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])
    return str(tmp_path / "pairs.csv")


@pytest.fixture
def words(tiny_bert, pairs_path, tmp_path):
    def build(*more):
        flags = {
            "model_name_or_path": tiny_bert,
            "train_file": pairs_path,
            "output_dir": tmp_path / "out",
            "max_seq_length": 40,
            "max_steps": 3,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        }
        return [*(f"--{name}={value}" for name, value in flags.items()), *map(str, more)]

    return build


@pytest.fixture
def trained(monkeypatch):
    """The folders that were really trained in, in order."""
    folders, original = [], finetune.train_and_evaluate

    def record(trainer, checkpoint):
        folders.append(trainer.args.output_dir.rpartition("/")[2])
        return original(trainer, checkpoint)

    monkeypatch.setattr(finetune, "train_and_evaluate", record)
    return folders


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_every_pair_is_unseen_once_and_no_text_is_on_both_sides(pairs_path):
    data = load_splits(PairArguments(train_file=[pairs_path]))
    folds = split_folds(data, 4, 0)
    pool = len(data.splits["train"]) + len(data.splits["validation"])
    unseen = [place for fold in folds.values() for place in fold.splits["validation"].places]
    assert len(unseen) == len(set(unseen)) == pool
    for fold in folds.values():
        texts = {name: (pairs.sentence1, pairs.sentence2) for name, pairs in fold.splits.items()}
        assert not find_leaks(texts)
        assert len(fold.splits["train"]) + len(fold.splits["validation"]) == pool
        assert fold.splits["test"] is data.splits["test"]
        assert fold.accounting["pairs"]["train"] == len(fold.splits["train"])


@pytest.mark.parametrize("architecture", ["cross_encoder", "bi_encoder"])
def test_the_folder_is_the_mean_of_its_members(words, tmp_path, architecture):
    metrics = finetune.main(words("--k_folds", 3, f"--architecture={architecture}"))
    out = tmp_path / "out"
    record = read_json(out / "run.json")
    assert record["members"] == ["fold-1", "fold-2", "fold-3"] and record["status"] == "finished"
    test = read_predictions(out)
    members = [load_scorer(str(out / name)).predict(test.sentence1, test.sentence2) for name in record["members"]]
    mean = np.mean([member.probabilities for member in members], axis=0)
    decision = metrics["decision"]
    wanted = expit((np.log(mean / (1 - mean)) - decision["center"]) / decision["temperature"])
    np.testing.assert_allclose(test.scores, wanted, atol=1e-6)
    assert metrics["test"] == compute_pair_metrics("binary", test.scores, test.labels, decision["threshold"])
    together = load_scorer(str(out)).predict(test.sentence1, test.sentence2)
    np.testing.assert_allclose(together.probabilities, test.scores, atol=1e-6)
    assert [int(name) for name in together.verdicts] == test.decided.tolist()
    with pytest.raises(InputError, match="out: is the mean of 3 models, and an export is one; give one of them"):
        load_finished(str(out))
    # the decision is that of the pairs which no member saw
    assert metrics["folds"]["out_of_fold"]["total"] == sum(
        record["pairs"]["pairs"][name] for name in ("train", "validation")
    )
    assert metrics["calibration"]["validation"]["after"]["hit_fraction"] == pytest.approx(0.5, abs=0.02)


def test_finished_folds_are_not_run_again_and_a_break_continues(words, tmp_path, trained, monkeypatch):
    finish = finetune.finish_stage

    def break_off(trainer, *rest):
        if trainer.args.output_dir.endswith("fold-2"):
            raise KeyboardInterrupt
        return finish(trainer, *rest)

    monkeypatch.setattr(finetune, "finish_stage", break_off)
    with pytest.raises(KeyboardInterrupt):
        finetune.main(words("--k_folds", 3))
    assert trained == ["fold-1", "fold-2"] and read_json(tmp_path / "out" / "run.json")["status"] == "running"
    monkeypatch.setattr(finetune, "finish_stage", finish)
    trained.clear()
    first = finetune.main(words("--k_folds", 3))
    assert trained == ["fold-2", "fold-3"]
    trained.clear()
    written = (tmp_path / "out" / "test_predictions.csv").stat().st_mtime_ns
    assert finetune.main(words("--k_folds", 3)) == json.loads(json.dumps(first)) and not trained
    assert (tmp_path / "out" / "test_predictions.csv").stat().st_mtime_ns == written  # nor scored again
    with pytest.raises(InputError, match="k_folds: 3 -> 4"):
        finetune.main(words("--k_folds", 4))


def test_new_pairs_are_scored_by_the_ensemble(words, tmp_path, pairs_path):
    flags = ["--do_train", "--do_eval", "--do_predict", f"--predict_file={pairs_path}"]
    finetune.main(words("--k_folds", 2, *flags))
    assert not (tmp_path / "out" / "fold-1" / "predictions.csv").exists()
    written = read_rows(tmp_path / "out" / "predictions.csv")
    scorer = load_scorer(str(tmp_path / "out"))
    wanted = scorer.predict([row["sentence1"] for row in written], [row["sentence2"] for row in written])
    np.testing.assert_allclose([float(row["score"]) for row in written], wanted.probabilities, atol=1e-6)


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_each_fold_derives_pairs_from_its_own_training_part_only(words, tmp_path, tiny_pairs):
    rows = []
    for n in range(30):
        (a, b), (c, d) = tiny_pairs[2 * n : 2 * n + 2]
        rows += [(a, b, 1), (b, c, 1), (c, d, 0), (d, tiny_pairs[120 + n][0], 0)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])
    finetune.main(words("--k_folds", 2, "--augment_graph", "--max_steps=1"))
    assert "augmentation" not in read_json(tmp_path / "out" / "run.json")["pairs"]
    for name in ("fold-1", "fold-2"):
        pairs = read_json(tmp_path / "out" / name / "run.json")["pairs"]
        assert pairs["augmentation"]["derived_positives"] == pairs["pairs"]["train"] // 4


def test_scores_are_averaged_too(words, tmp_path, tiny_pairs):
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows(
            [("sentence1", "sentence2", "score"), *((*tiny_pairs[n], n % 11 / 2) for n in range(80))]
        )
    metrics = finetune.main(words("--k_folds", 2))
    assert {"pearson", "spearman"} <= set(metrics["test"]) and "decision" not in metrics
    test = read_predictions(tmp_path / "out")
    members = [
        load_scorer(str(tmp_path / "out" / name)).score(test.sentence1, test.sentence2) for name in ("fold-1", "fold-2")
    ]
    np.testing.assert_allclose(test.scores, np.mean(members, axis=0), atol=1e-6)


@pytest.mark.parametrize(
    "more, message",
    [
        (("--k_folds", 1), "--k_folds 1 is out of range"),
        (("--k_folds", 2, "--seeds", 1), "give one of them"),
        (("--k_folds", 2, "--do_train"), "add --do_train and --do_eval"),
        (("--k_folds", 2, "--resume_from_checkpoint", "true"), "resumes by itself"),
        (("--k_folds", 90), "the pairs do not make so many folds"),
    ],
)
def test_folds_that_cannot_be(words, more, message):
    with pytest.raises(InputError, match=message):
        finetune.main(words(*more))


def test_a_dry_run_with_folds_trains_nothing(words, tmp_path):
    assert finetune.main(words("--k_folds", 2, "--dry_run"))["steps"] == 3
    assert not (tmp_path / "out").exists()
