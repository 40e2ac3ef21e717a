"""Stage 2 through its door: labels of each kind, splits, predictions in order, the folded head, the dry run."""

import csv
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from pair_pkg.data.tables import read_table
from pair_pkg.errors import InputError, PushFailure
from pair_pkg.pairs.decision import load_decision
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.stages import finetune, publishing
from pair_pkg.stages.predictions import read_predictions

ROOT = Path(__file__).parents[2]


def write_pairs(path, rows, header=("sentence1", "sentence2", "label")):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture
def pairs(tmp_path, tiny_pairs):
    """60 pairs that share no text: one statement twice, or two statements."""
    rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 60][1], n % 2) for n in range(60)]
    return write_pairs(tmp_path / "pairs.csv", rows)


@pytest.fixture
def words(tiny_bert, pairs):
    def build(output_dir, *more, train_file=pairs):
        flags = {
            "model_name_or_path": tiny_bert,
            "train_file": train_file,
            "output_dir": output_dir,
            "max_seq_length": 40,
            "num_train_epochs": 2,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        }
        return [*(f"--{name}={value}" for name, value in flags.items()), *map(str, more)]

    return build


def plain_scores(folder, sentence1, sentence2, both_orders=True):
    """Logits of a saved checkpoint by plain transformers, one pair at a time; the average of both orders."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()

    def logits(left, right):
        with torch.no_grad():
            return torch.stack([model(**tokenizer(*pair, return_tensors="pt")).logits[0] for pair in zip(left, right)])

    one = logits(sentence1, sentence2)
    return (one + logits(sentence2, sentence1)) / 2 if both_orders else one


def test_a_run_leaves_a_plain_checkpoint_whose_scores_are_the_written_ones(words, tmp_path):
    metrics = finetune.main(words(tmp_path / "out"))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["status"] == "finished" and record["metrics"] == json.loads(json.dumps(metrics))
    assert record["labels"]["names"] == ["0", "1"]
    assert record["pairs"]["pairs"] == {"train": 48, "validation": 6, "test": 6}
    assert set(metrics["baselines"]) == {"majority", "word_overlap", "frozen_encoder"}
    test = read_predictions(tmp_path / "out")
    logits = plain_scores(tmp_path / "out", test.sentence1, test.sentence2)
    decision = load_decision(tmp_path / "out")
    np.testing.assert_allclose(test.scores, decision.probability(logits[:, 1] - logits[:, 0]), atol=1e-5)
    assert metrics["decision"] == asdict(decision) and record["threshold"] == decision.threshold
    assert (test.decided == (test.scores >= decision.threshold)).all()
    assert metrics["test"]["correct"] == int(test.correct().sum()) and metrics["test"]["total"] == 6


def test_one_logit_with_a_sigmoid(words, tmp_path):
    finetune.main(words(tmp_path / "out", "--num_labels", 1))
    test = read_predictions(tmp_path / "out")
    logits = plain_scores(tmp_path / "out", test.sentence1, test.sentence2)
    assert logits.shape[1] == 1
    np.testing.assert_allclose(test.scores, load_decision(tmp_path / "out").probability(logits[:, 0]), atol=1e-5)


def test_a_normalized_head_is_folded_into_a_plain_checkpoint(words, tmp_path):
    finetune.main(words(tmp_path / "out", "--head_norm", "batch"))
    test = read_predictions(tmp_path / "out")
    logits = plain_scores(tmp_path / "out", test.sentence1, test.sentence2)
    margins = logits[:, 1] - logits[:, 0]
    np.testing.assert_allclose(test.scores, load_decision(tmp_path / "out").probability(margins), atol=1e-5)


def test_scores_are_regressed_in_their_own_range(words, tiny_pairs, tmp_path):
    rows = [(*tiny_pairs[n], n % 11 / 2) for n in range(60)]
    file = write_pairs(tmp_path / "scores.csv", rows, ("sentence1", "sentence2", "score"))
    metrics = finetune.main(words(tmp_path / "out", train_file=file))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["labels"]["kind"], record["labels"]["low"], record["labels"]["high"]) == ("scores", 0, 5)
    assert set(metrics["test"]) >= {"pearson", "spearman", "mean_squared_error"}
    test = read_predictions(tmp_path / "out")
    logits = plain_scores(tmp_path / "out", test.sentence1, test.sentence2)
    np.testing.assert_allclose(test.scores, 5 * logits[:, 0], atol=1e-4)
    assert not (tmp_path / "out" / "decision.json").exists() and "calibration" not in metrics


def test_class_names_become_the_label_map(words, tiny_pairs, tmp_path):
    names = ("contradiction", "entailment", "neutral")
    rows = [(*tiny_pairs[n], names[n % 3]) for n in range(60)]
    metrics = finetune.main(words(tmp_path / "out", train_file=write_pairs(tmp_path / "classes.csv", rows)))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["id2label"] == {"0": names[0], "1": names[1], "2": names[2]}
    test = read_predictions(tmp_path / "out")
    logits = plain_scores(tmp_path / "out", test.sentence1, test.sentence2, both_orders=False)
    temperature = metrics["decision"]["temperature"]
    np.testing.assert_allclose(test.scores, (logits / temperature).softmax(1), atol=1e-5)
    assert (test.decided == test.scores.argmax(1)).all() and metrics["decision"]["threshold"] is None


def test_predictions_stand_in_the_order_of_the_input(words, tiny_pairs, tmp_path):
    finetune.main(words(tmp_path / "out"))
    rows = [(" ".join(tiny_pairs[n + 70][: 1 + n % 2]), tiny_pairs[n + 120][1]) for n in range(23)]
    file = write_pairs(tmp_path / "new.csv", rows, ("sentence1", "sentence2"))
    argv = [f"--model_name_or_path={tmp_path / 'out'}", "--do_predict", f"--predict_file={file}", "--use_cpu"]
    assert finetune.main([*argv, f"--output_dir={tmp_path / 'scores'}", "--bf16=false"]) == {"predicted_pairs": 23}
    written = [row.values for row in read_table(tmp_path / "scores" / "predictions.csv", header=True)]
    assert [(row["sentence1"], row["sentence2"]) for row in written] == rows
    logits, decision = plain_scores(tmp_path / "out", *zip(*rows)), load_decision(tmp_path / "out")
    margins = (logits[:, 1] - logits[:, 0]).numpy()
    np.testing.assert_allclose([float(row["raw_score"]) for row in written], margins, atol=1e-5)
    np.testing.assert_allclose([float(row["score"]) for row in written], decision.probability(margins), atol=1e-5)
    verdicts = [str(int(float(row["score"]) >= decision.threshold)) for row in written]
    assert [row["prediction"] for row in written] == verdicts


def test_a_finished_run_scores_new_pairs_without_training_again(words, tmp_path):
    before = finetune.main(words(tmp_path / "out"))
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    file = write_pairs(tmp_path / "new.csv", [("the old pump", "a small valve")], ("sentence1", "sentence2"))
    more = ("--do_train", "--do_eval", "--do_predict", f"--predict_file={file}")
    assert finetune.main(words(tmp_path / "out", *more)) == before
    assert (tmp_path / "out" / "predictions.csv").is_file()
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == weights


def test_the_same_seed_gives_the_same_model_and_another_seed_another(words, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        finetune.main(words(tmp_path / name, "--seed", seed))
    a, b, c = (read_predictions(tmp_path / name) for name in "abc")
    assert a.sentence1 == b.sentence1 == c.sentence1  # the split has a seed of its own
    assert np.array_equal(a.scores, b.scores) and not np.array_equal(a.scores, c.scores)


def test_a_dry_run_trains_nothing_and_writes_nothing(words, tmp_path, capsys):
    cost = finetune.main(words(tmp_path / "out", "--dry_run"))
    assert cost["steps"] == 12 and cost["seconds"] > 0
    assert not (tmp_path / "out").exists()
    printed = capsys.readouterr().out
    assert "expected time" in printed and "expected memory" in printed
    assert len([line for line in printed.splitlines() if line.startswith("[CLS]") and line.count("[SEP]") == 2]) == 3


def test_a_dry_run_of_the_bi_encoder_shows_its_texts(words, tmp_path, capsys):
    assert finetune.main(words(tmp_path / "out", "--dry_run", "--architecture", "bi_encoder"))["steps"] == 12
    assert len([line for line in capsys.readouterr().out.splitlines() if line.startswith("[CLS]")]) == 3


def test_the_test_figures_are_taken_at_the_threshold_of_the_validation_pairs(words, tmp_path):
    metrics = finetune.main(words(tmp_path / "out", "--decide_by", "f1"))
    test, threshold = read_predictions(tmp_path / "out"), load_decision(tmp_path / "out").threshold
    assert metrics["decision"]["decide_by"] == "f1"
    assert metrics["test"] == compute_pair_metrics("binary", test.scores, test.labels, threshold)
    for split in ("validation", "test"):
        for when in ("before", "after"):
            found = set(metrics["calibration"][split][when])
            assert found == {"ece", "brier", "log_loss", "mean_confidence", "hit_fraction"}


def test_an_evaluation_keeps_the_decision_of_its_checkpoint(words, tmp_path, pairs):
    trained = finetune.main(words(tmp_path / "out", "--decide_by", "f1"))
    model = [f"--model_name_or_path={tmp_path / 'out'}", "--do_eval"]
    metrics = finetune.main(words(tmp_path / "again", *model))
    assert metrics["decision"] == trained["decision"] and metrics["test"] == trained["test"]
    one_order = finetune.main(words(tmp_path / "other", *model, "--no_symmetric"))
    assert one_order["decision"]["decide_by"] == "accuracy"  # scores of another kind: fitted anew


@pytest.mark.parametrize(
    "more, message",
    [
        (["--decide_by=precision"], "--wanted_precision and --decide_by precision go together"),
        (["--wanted_precision=0.9"], "--wanted_precision and --decide_by precision go together"),
        (["--decide_by=precision", "--wanted_precision=1.5"], "--wanted_precision 1.5 is no precision"),
        (["--decide_by=f1", "--label_range", "0", "1"], "--decide_by f1: scores labels have no threshold"),
    ],
)
def test_a_decision_that_makes_no_sense_is_refused(words, tmp_path, more, message):
    with pytest.raises(InputError, match=message):
        finetune.main(words(tmp_path / "out", *more))


def test_a_metric_that_is_not_measured_is_refused_before_training(words, tmp_path):
    flags = ["--metric_for_best_model=f2", "--load_best_model_at_end", "--save_strategy=epoch"]
    with pytest.raises(InputError, match="--metric_for_best_model f2: is not measured; take one of accuracy, aver"):
        finetune.main(words(tmp_path / "out", *flags))
    assert not (tmp_path / "out").exists()


def test_the_best_checkpoint_is_chosen_by_a_metric_with_or_without_its_prefix(words, tmp_path):
    flags = ["--metric_for_best_model=eval_f1", "--load_best_model_at_end", "--save_strategy=epoch"]
    metrics = finetune.main(words(tmp_path / "out", *flags))
    assert metrics["decision"]["temperature"] > 0


def test_a_hub_that_does_not_answer_is_one_line(words, tmp_path, monkeypatch):
    def refuse(name, *, private, token):
        raise PushFailure(f"opening {name}: gave up after 5 attempts (ConnectError: no route to host)")

    monkeypatch.setattr(publishing, "open_repository", refuse)
    with pytest.raises(InputError, match="--push_to_hub: opening out: gave up .*; mend the network"):
        finetune.main(words(tmp_path / "out", "--push_to_hub", "--hub_token=hf_x"))
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(publishing, "get_token", lambda: None)
    with pytest.raises(InputError, match="--push_to_hub: no token for the Hub"):
        finetune.main(words(tmp_path / "out", "--push_to_hub"))


@pytest.mark.parametrize("label", [None, 1, "yes"])
def test_positive_pairs_need_no_label_where_the_batch_gives_the_negatives(words, tmp_path, tiny_pairs, label):
    rows = [(*tiny_pairs[row], *([] if label is None else [label])) for row in range(60)]
    header = ("sentence1", "sentence2", "label")[: len(rows[0])]
    file = write_pairs(tmp_path / "positives.csv", rows, header)
    flags = ["--architecture=bi_encoder", "--loss=multiple_negatives_ranking"]
    metrics = finetune.main(words(tmp_path / "out", *flags, train_file=file))
    assert metrics["test"]["accuracy"] is None and metrics["test"]["undefined"]["f1"] == "there is no threshold"
    assert "decision" not in metrics and not (tmp_path / "out" / "decision.json").exists()
    with open(tmp_path / "out" / "test_predictions.csv", encoding="utf-8") as written:
        rows = list(csv.DictReader(written))
    assert [row["prediction"] for row in rows] == [""] * 6
    assert all(row["score"] == row["raw_score"] and -1 <= float(row["score"]) <= 1 for row in rows)
    with pytest.raises(InputError, match="no column named label|only one label"):
        finetune.main(words(tmp_path / "other", train_file=file))


def test_positive_pairs_are_decided_by_validation_pairs_of_both_labels(words, tmp_path, tiny_pairs, pairs):
    file = write_pairs(tmp_path / "positives.csv", tiny_pairs[120:180], ("sentence1", "sentence2"))
    flags = ["--architecture=bi_encoder", "--loss=multiple_negatives_ranking", f"--validation_file={pairs}"]
    metrics = finetune.main(words(tmp_path / "out", *flags, train_file=file))
    assert 0 < metrics["decision"]["threshold"] < 1 and metrics["test_split"] == "validation"


@pytest.mark.parametrize("architecture", ["cross_encoder", "bi_encoder"])
def test_a_model_trained_in_bfloat16_is_judged_as_it_is_loaded(words, tmp_path, architecture):
    finetune.main(words(tmp_path / "out", f"--architecture={architecture}", "--bf16=true"))
    with open(tmp_path / "out" / "test_predictions.csv", encoding="utf-8") as written:
        rows = list(csv.DictReader(written))
    scores = load_scorer(str(tmp_path / "out")).score(*zip(*((row["sentence1"], row["sentence2"]) for row in rows)))
    np.testing.assert_allclose([float(row["raw_score"]) for row in rows], scores, atol=1e-5)


@pytest.mark.slow
def test_two_processes_give_the_scores_of_one(words, tmp_path, tiny_pairs):
    """Whatever is trained, judged and written with two processes is what one process makes of the same weights."""
    new = write_pairs(tmp_path / "new.csv", tiny_pairs[:23], ("sentence1", "sentence2"))
    predict = ["--do_predict", f"--predict_file={new}"]
    for flags in (
        words(tmp_path / "out", "--do_train", "--do_eval", *predict, "--ddp_backend=gloo"),
        [f"--model_name_or_path={tmp_path / 'out'}", f"--output_dir={tmp_path / 'two'}", *predict, "--use_cpu"],
    ):
        run = subprocess.run(
            [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
             str(ROOT / "run_pair_cls.py"), *flags],
            cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=180,
        )  # fmt: skip
        assert run.returncode == 0, run.stderr[-3000:]
    scorer = load_scorer(str(tmp_path / "out"), device="cpu")
    test, expected = read_predictions(tmp_path / "out"), scorer.score(*zip(*tiny_pairs[:23]))
    np.testing.assert_allclose(scorer.predict(test.sentence1, test.sentence2).probabilities, test.scores, atol=1e-5)
    for folder in ("out", "two"):
        written = [row.values for row in read_table(tmp_path / folder / "predictions.csv", header=True)]
        np.testing.assert_allclose([float(row["raw_score"]) for row in written], expected, atol=1e-5)
