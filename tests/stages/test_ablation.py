"""The ablation: one run a variant and seed, the tables are the files', finished runs stay, bad recipes are one line."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from pair_pkg.errors import InputError, TrainingFailure
from pair_pkg.records import read_record
from pair_pkg.stages import ablation
from pair_pkg.stages.predictions import read_predictions


@pytest.fixture
def recipe(tmp_path, tiny_bert, tiny_pairs):
    """``recipe(variants, ...)`` writes a toy recipe of 80 pairs and gives its path."""
    rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 80][1], n % 2) for n in range(80)]
    with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])

    def write(variants, **changes):
        pairs = {"model_name_or_path": tiny_bert, "train_file": str(tmp_path / "pairs.csv"), "max_steps": 2,
                 "save_strategy": "no", "bf16": False, "use_cpu": True, "max_seq_length": 40}  # fmt: skip
        document = {
            "output_dir": str(tmp_path / "out"),
            "seeds": [1, 2],
            "pairs": pairs,
            "variants": variants,
            **changes,
        }
        path = tmp_path / "recipe.json"
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    return write


@pytest.mark.slow
def test_the_tables_are_those_of_the_runs_and_a_finished_one_is_not_run_again(recipe, tmp_path, capsys):
    variants = {"plain": None, "fgm": {"fgm_epsilon": 1.0}, "layer decay": {"layer_decay": 0.5, "learning_rate": 1e-3}}
    results = ablation.main([recipe(variants), "--jobs", "2"])
    folders = {
        name: [tmp_path / "out" / name.replace(" ", "_") / f"seed-{seed}" for seed in (1, 2)] for name in variants
    }
    assert read_record(folders["fgm"][1])["aids"] == {"fgm_epsilon": 1.0}
    assert read_record(folders["layer decay"][0])["identity"]["learning_rate"] == 1e-3
    accuracy = {name: [read_predictions(part).correct().mean() for part in parts] for name, parts in folders.items()}
    for name, values in accuracy.items():
        found = results["metrics"]["accuracy"][name]
        assert found["by_seed"] == pytest.approx(values) and found["mean"] == pytest.approx(np.mean(values))
    minus = results["metrics"]["accuracy"]["fgm"]["minus_plain"]
    assert minus["difference"] == pytest.approx(np.mean(accuracy["fgm"]) - np.mean(accuracy["plain"]))
    assert "minus_plain" not in results["metrics"]["accuracy"]["plain"]
    table = (tmp_path / "out" / "ablation.md").read_text()
    assert table.count("| layer decay |") == 3 and "| average precision |" in table
    assert json.loads((tmp_path / "out" / "ablation.json").read_text()) == json.loads(json.dumps(results))

    before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("out/*/*/model.safetensors")}
    assert len(before) == 6
    variants["fgm"] = {"fgm_epsilon": 0.5}
    ablation.main([recipe(variants)])
    changed = {path.parent.parent.name for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert changed == {"fgm"}


def test_a_run_that_fails_is_named_and_the_others_run(recipe, tmp_path):
    variants = {"plain": {}, "frozen": {"freeze_layers": 9}}
    with pytest.raises(
        TrainingFailure, match="1 of 2 runs failed: frozen, seed 1: error: --freeze_layers 9: .* 2 layers"
    ):
        ablation.main([recipe(variants, seeds=[1])])
    assert read_record(tmp_path / "out" / "plain" / "seed-1")["status"] == "finished"


BAD = {
    "one variant": ({"variants": {"plain": {}}}, "variants must be a mapping of at least two names"),
    "no flag": ({"variants": {"plain": {}, "b": {"nosuch": 1}}}, "b: unknown flag 'nosuch'"),
    "no mapping": ({"variants": {"plain": {}, "b": [1]}}, "variants: b must be a mapping of flags"),
    "together": (
        {"variants": {"plain": {}, "b": {"lora_rank": 2, "freeze_layers": 1}}}, "--lora_rank freezes the encoder's",
    ),
    "no such key": ({"colour": {}}, "colour is no key of this recipe"),
    "stage 1 from nowhere": ({"mlm": {}}, "mlm and base_model belong together"),
    "a seed twice": ({"seeds": [1, 1]}, "a seed stands twice"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_recipe_is_one_line_and_nothing_runs(recipe, tmp_path, name):
    changes, expected = BAD[name]
    variants = changes.pop("variants", {"plain": {}, "b": {"fgm_epsilon": 1}})
    with pytest.raises(InputError, match=expected):
        ablation.main([recipe(variants, **changes)])
    assert not (tmp_path / "out").exists()


def test_only_some_variants_and_the_plain_one(recipe, tmp_path):
    path = recipe({"plain": {}, "a": {"fgm_epsilon": 1}, "b": {"layer_decay": 0.5}})
    found = ablation.read_recipe(path, output_dir="elsewhere", seeds=[5], only=["b"])
    assert list(found.variants) == ["plain", "b"] and found.seeds == (5,)
    assert "--layer_decay=0.5" in found.variants["b"]
    assert "--output_dir=elsewhere/b/seed-5" in found.words("b", 5)
    with pytest.raises(InputError, match="no variant 'c'; there are plain, a, b"):
        ablation.read_recipe(path, only=["c"])


@pytest.fixture
def mlm_recipe(recipe, tiny_bert, tiny_corpus, token_cache):
    """``mlm_recipe(variants)`` writes a toy recipe that compares settings of stage 1."""

    def write(variants, **changes):
        shared = {"save_strategy": "no", "bf16": False, "use_cpu": True, "max_seq_length": 40, "max_steps": 2}
        mlm = {"train_file": tiny_corpus, "token_cache_dir": token_cache, "line_by_line": True, **shared}
        path = Path(recipe(variants, base_model=tiny_bert, mlm=mlm, **changes))
        document = json.loads(path.read_text(encoding="utf-8"))
        del document["pairs"]["model_name_or_path"]
        path.write_text(json.dumps(document), encoding="utf-8")
        return str(path)

    return write


def test_settings_of_stage_1_start_stage_2_from_what_they_made(mlm_recipe, tmp_path, tiny_bert):
    path = mlm_recipe({"base": None, "plain": {}, "words": {"masking": "whole_word"}})
    found = ablation.read_recipe(path)
    assert list(found.variants) == ["base", "plain", "words"] and list(found.mlm) == ["plain", "words"]
    assert f"--model_name_or_path={tiny_bert}" in found.words("base", 1) and found.mlm_words("base", 1) is None
    assert f"--model_name_or_path={tmp_path}/out/words/mlm-2" in found.words("words", 2)
    words = found.mlm_words("words", 2)
    assert "--masking=whole_word" in words and f"--output_dir={tmp_path}/out/words/mlm-2" in words
    assert "--pair_file" in words and str(tmp_path / "pairs.csv") in words and "--seed=2" in words


@pytest.mark.slow
def test_stage_1_is_ablated_over_seeds_with_one_command(mlm_recipe, tmp_path):
    path = mlm_recipe({"base": None, "plain": {}, "pulled": {"l2_sp": 0.1}})
    results = ablation.main([path])
    assert set(results["stage_1"]) == {"plain", "pulled"}
    for seed in (1, 2):
        record = read_record(tmp_path / "out" / "pulled" / f"mlm-{seed}")
        assert record["forgetting"] == {"l2_sp": 0.1} and record["identity"]["seed"] == seed
        model = read_record(tmp_path / "out" / "pulled" / f"seed-{seed}")["identity"]["model"]
        assert model == str(tmp_path / "out" / "pulled" / f"mlm-{seed}")
    probe = results["stage_1"]["plain"]["probe"]
    assert len(probe["before"]) == len(probe["after"]) == 2
    table = (tmp_path / "out" / "ablation.md").read_text()
    assert "probe: before, after" in table and table.count("| pulled |") == 4
    assert "minus_plain" in results["metrics"]["accuracy"]["plain"]  # against the base, which is first
