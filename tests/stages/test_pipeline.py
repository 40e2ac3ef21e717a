"""The answer: both stages run once, the comparison is the files', and only what changed runs again."""

import csv
import json

import numpy as np
import pytest

from pair_pkg.stages import adapt, finetune, pipeline
from pair_pkg.stages.predictions import read_predictions


@pytest.fixture
def recipe(tmp_path, tiny_bert, tiny_corpus, tiny_pairs, token_cache):
    """``recipe(**changes)`` writes a toy recipe and gives its path; ``mlm`` and ``pairs`` take flags."""
    rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 80][1], n % 2) for n in range(80)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])

    def write(mlm=(), pairs=(), **changes):
        shared = {"save_strategy": "no", "bf16": False, "use_cpu": True, "max_seq_length": 40}
        document = {
            "base_model": tiny_bert,
            "output_dir": str(tmp_path / "out"),
            "seeds": [1, 2],
            "mlm": {"train_file": tiny_corpus, "token_cache_dir": token_cache, "max_steps": 3, **shared, **dict(mlm)},
            "pairs": {"train_file": str(tmp_path / "pairs.csv"), "max_steps": 3, **shared, **dict(pairs)},
            **changes,
        }
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def trained(monkeypatch):
    """The folders that were really trained, in order."""
    folders = []
    for stage in (adapt, finetune):
        original = stage.train_and_evaluate

        def record(trainer, *rest, original=original):
            folders.append(trainer.args.output_dir.split("/out/", 1)[-1])
            return original(trainer, *rest)

        monkeypatch.setattr(stage, "train_and_evaluate", record)
    return folders


def test_the_answer_is_that_of_the_written_predictions(recipe, tmp_path, capsys):
    results = pipeline.main([recipe()])
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    folders = [[tmp_path / "out" / name / f"seed-{seed}" for seed in (1, 2)] for name in ("base", "adapted")]
    base, adapted = ([read_predictions(folder) for folder in part] for part in folders)
    accuracy = [np.mean([part.correct().mean() for part in parts]) for parts in (base, adapted)]
    comparison = results["comparison"]["accuracy"]
    assert comparison["base"] == pytest.approx(accuracy[0]) and comparison["adapted"] == pytest.approx(accuracy[1])
    assert comparison["difference"] == pytest.approx(accuracy[1] - accuracy[0])
    test = results["mcnemar"]["seed 1"]
    assert test["only_base"] == int((base[0].correct() & ~adapted[0].correct()).sum())
    assert results["answer"] in ("helped", "hurt", "not told apart")
    printed = capsys.readouterr().out
    assert results["sentence"] in printed and "results.json" in printed
    assert (tmp_path / "out" / "comparison.png").stat().st_size > 1000
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    assert results["sentence"] in page and "Stage 2 from the adapted model" in page


def test_both_models_see_the_same_pairs_in_the_same_splits(recipe, tmp_path):
    pipeline.main([recipe()])
    first = read_predictions(tmp_path / "out" / "base/seed-1")
    for name in ("base/seed-2", "adapted/seed-1", "adapted/seed-2"):
        assert read_predictions(tmp_path / "out" / name).sentence1 == first.sentence1


def test_a_finished_pipeline_trains_nothing_again(recipe, trained):
    before = pipeline.main([recipe()])
    assert trained == ["mlm", "base/seed-1", "base/seed-2", "adapted/seed-1", "adapted/seed-2"]
    trained.clear()
    again = pipeline.main([recipe()])
    assert trained == [] and again["comparison"] == before["comparison"]


def test_a_break_continues_with_the_part_that_is_missing(recipe, trained, monkeypatch):
    finished = finetune.finish_stage

    def break_off(trainer, *rest):
        if trainer.args.output_dir.endswith("adapted/seed-1"):
            raise KeyboardInterrupt
        return finished(trainer, *rest)

    monkeypatch.setattr(finetune, "finish_stage", break_off)
    with pytest.raises(KeyboardInterrupt):
        pipeline.main([recipe()])
    monkeypatch.setattr(finetune, "finish_stage", finished)
    trained.clear()
    pipeline.main([recipe()])
    assert trained == ["adapted/seed-1", "adapted/seed-2"]


def test_a_changed_recipe_runs_what_depends_on_the_change(recipe, trained):
    pipeline.main([recipe()])
    trained.clear()
    pipeline.main([recipe(pairs={"learning_rate": 1e-3})])
    assert trained == ["base/seed-1", "base/seed-2", "adapted/seed-1", "adapted/seed-2"]
    trained.clear()
    pipeline.main([recipe(mlm={"learning_rate": 1e-3}, pairs={"learning_rate": 1e-3})])
    assert trained == ["mlm", "adapted/seed-1", "adapted/seed-2"]  # the base runs did not depend on stage 1
    trained.clear()
    pipeline.main([recipe(mlm={"learning_rate": 1e-3}, pairs={"learning_rate": 1e-3}, seeds=[1, 3])])
    assert trained == ["base/seed-3", "adapted/seed-3"]


def test_scores_are_answered_by_spearman_without_mcnemar(recipe, tiny_pairs, tmp_path):
    rows = [(*tiny_pairs[n], n % 11 / 2) for n in range(80)]
    with open(tmp_path / "scores.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "score"), *rows])
    results = pipeline.main([recipe(pairs={"train_file": str(tmp_path / "scores.csv")}, seeds=[1])])
    assert results["main_metric"] == "spearman" and results["mcnemar"] == {"seed 1": None}


def test_a_threshold_for_f1_is_answered_in_f1(recipe, capsys):
    results = pipeline.main([recipe(pairs={"decide_by": "f1"}, seeds=[1])])
    assert results["main_metric"] == "f1" and "F1 " in results["sentence"]
    assert results["sentence"] in capsys.readouterr().out
