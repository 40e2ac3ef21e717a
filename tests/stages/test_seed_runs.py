"""Several seeds by one flag: a folder each, the spread of their figures, the best by validation as the model."""

import csv
import json

import numpy as np
import pytest
from transformers import AutoModelForSequenceClassification

from pair_pkg.errors import InputError
from pair_pkg.stages import finetune
from pair_pkg.stages.predictions import read_predictions
from pair_pkg.stages.seed_runs import summarize_seeds


@pytest.fixture
def words(tiny_bert, tiny_pairs, tmp_path):
    rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 80][1], n % 2) for n in range(80)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])

    def build(*more):
        flags = {
            "model_name_or_path": tiny_bert,
            "train_file": tmp_path / "pairs.csv",
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
    """The seeds that were really trained, in order."""
    seeds, original = [], finetune.train_and_evaluate

    def record(trainer, checkpoint):
        seeds.append(trainer.args.seed)
        return original(trainer, checkpoint)

    monkeypatch.setattr(finetune, "train_and_evaluate", record)
    return seeds


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def test_the_folder_holds_the_best_by_validation_and_the_record_says_why(words, tmp_path, trained):
    metrics = finetune.main(words("--seeds", 3, 1, 2))
    assert trained == [3, 1, 2]
    out = tmp_path / "out"
    records = {seed: read_json(out / f"seed-{seed}" / "run.json") for seed in (3, 1, 2)}
    validation = [record["metrics"]["eval_average_precision"] for record in records.values()]
    seeds = metrics["seeds"]
    assert seeds["seeds"] == [3, 1, 2] and seeds["validation"] == validation
    assert seeds["taken"] == [3, 1, 2][int(np.argmax(validation))] and "validation" in seeds["why"]
    best = records[seeds["taken"]]
    assert metrics["test"] == best["metrics"]["test"]
    top = read_json(out / "run.json")
    assert top["status"] == "finished" and top["metrics"] == json.loads(json.dumps(metrics))
    assert top["identity"]["seeds"] == [3, 1, 2] and "seed" not in top["identity"]
    assert top["labels"] == best["labels"] and top["architecture"] == best["architecture"]
    chosen = out / f"seed-{seeds['taken']}"
    names = {path.name for path in chosen.iterdir()} - {"run.json"}
    assert all((out / name).read_bytes() == (chosen / name).read_bytes() for name in names if (chosen / name).is_file())
    AutoModelForSequenceClassification.from_pretrained(out)


def test_every_seed_sees_the_same_splits_and_is_the_run_of_that_seed(words, tmp_path):
    finetune.main(words("--seeds", 1, 2))
    finetune.main(words("--seed", 2, f"--output_dir={tmp_path / 'single'}"))
    one, two = (read_predictions(tmp_path / "out" / f"seed-{seed}") for seed in (1, 2))
    single = read_predictions(tmp_path / "single")
    assert one.sentence1 == two.sentence1 and not np.array_equal(one.scores, two.scores)
    assert np.array_equal(two.scores, single.scores)


def test_finished_seeds_are_kept_and_seeds_can_be_added(words, trained):
    before = finetune.main(words("--seeds", 1, 2))
    assert finetune.main(words("--seeds", 1, 2)) == before and trained == [1, 2]
    trained.clear()
    more = finetune.main(words("--seeds", 1, 2, 3))
    assert trained == [3]
    assert more["seeds"]["test"]["accuracy"]["by_seed"][:2] == before["seeds"]["test"]["accuracy"]["by_seed"]


def test_a_break_continues_with_the_seed_that_is_missing(words, tmp_path, trained, monkeypatch):
    finish = finetune.finish_stage

    def break_off(trainer, *rest):
        if trainer.args.seed == 2:
            raise KeyboardInterrupt
        return finish(trainer, *rest)

    monkeypatch.setattr(finetune, "finish_stage", break_off)
    with pytest.raises(KeyboardInterrupt):
        finetune.main(words("--seeds", 1, 2, 3))
    assert read_json(tmp_path / "out" / "run.json")["status"] == "running"
    monkeypatch.setattr(finetune, "finish_stage", finish)
    trained.clear()
    finetune.main(words("--seeds", 1, 2, 3))
    assert trained == [2, 3] and read_json(tmp_path / "out" / "run.json")["status"] == "finished"


def test_a_changed_setting_is_refused_with_what_differs(words):
    finetune.main(words("--seeds", 1))
    with pytest.raises(InputError, match=r"seed-1: .*learning_rate: 0.001 -> 0.01"):
        finetune.main(words("--seeds", 1, "--learning_rate", 0.01))


def test_a_folder_of_one_run_is_refused_and_the_other_way_round(words, tmp_path):
    finetune.main(words())
    with pytest.raises(InputError, match="run.json there is of another run"):
        finetune.main(words("--seeds", 1, 2))
    finetune.main(words("--seeds", 1, f"--output_dir={tmp_path / 'seeds'}"))
    with pytest.raises(InputError, match="another run .*seeds"):
        finetune.main(words("--seed", 1, f"--output_dir={tmp_path / 'seeds'}"))


def test_the_taken_model_scores_new_pairs_as_its_own_folder_does(words, tmp_path):
    metrics = finetune.main(words("--seeds", 1, 2))
    chosen = tmp_path / "out" / f"seed-{metrics['seeds']['taken']}"
    scored = []
    for name in (tmp_path / "out", chosen):
        target = tmp_path / f"scores-{name.name}"
        flags = {"model_name_or_path": name, "predict_file": tmp_path / "pairs.csv", "output_dir": target}
        finetune.main(
            [*(f"--{key}={value}" for key, value in flags.items()), "--do_predict", "--use_cpu", "--bf16=false"]
        )
        scored.append((target / "predictions.csv").read_bytes())
    assert scored[0] == scored[1]


@pytest.mark.parametrize(
    "more, message",
    [
        (("--seeds", 1, 1), "different whole numbers"),
        (("--seeds", 1, -2), "different whole numbers"),
        (("--seeds", 1, "--do_train"), "add --do_train and --do_eval"),
        (("--seeds", 1, "--resume_from_checkpoint", "true"), "resumes by itself"),
    ],
)
def test_seeds_that_cannot_be(words, more, message):
    with pytest.raises(InputError, match=message):
        finetune.main(words(*more))


def test_a_dry_run_with_seeds_trains_nothing(words, tmp_path):
    assert finetune.main(words("--seeds", 1, 2, "--dry_run"))["steps"] == 3
    assert not (tmp_path / "out").exists()


def run(validation, accuracy):
    return {"eval_average_precision": validation, "test": {"accuracy": accuracy, "correct": 3, "undefined": {}}}


def test_the_spread_is_that_of_a_sample_and_test_figures_do_not_choose():
    summary = summarize_seeds([5, 6, 7], [run(0.9, 0.5), run(0.8, 0.9), run(0.7, 0.7)], "binary")
    assert summary["taken"] == 5
    accuracy = summary["test"]["accuracy"]
    assert (accuracy["mean"], accuracy["min"], accuracy["max"]) == (pytest.approx(0.7), 0.5, 0.9)
    assert accuracy["standard_deviation"] == pytest.approx(0.2)
    assert set(summary["test"]) == {"accuracy"} and accuracy["by_seed"] == [0.5, 0.9, 0.7]


def test_equal_runs_take_the_first_and_undefined_ones_the_last_place():
    assert summarize_seeds([1, 2], [run(0.8, 1.0), run(0.8, 1.0)], "binary")["taken"] == 1
    assert summarize_seeds([1, 2], [run(None, 1.0), run(0.1, 1.0)], "binary")["taken"] == 2
    undefined = summarize_seeds([1, 2], [run(None, 1.0), run(None, 1.0)], "binary")
    assert undefined["taken"] == 1 and "not defined" in undefined["why"]
