"""Every shipped recipe parses, so that none is found broken by the first user who runs it."""

from pathlib import Path

import pytest

from pair_pkg.stages import adapt, finetune, pipeline

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_parses_into_both_stages(path, tmp_path):
    recipe = pipeline.read_recipe(str(path), base_model="base", output_dir=str(tmp_path))
    corpus, *_, args = adapt.parse([*recipe.mlm, "--model_name_or_path=base", f"--output_dir={tmp_path}"])
    assert corpus.train_file and args.learning_rate > 0
    pairs, *_, args = finetune.parse([*recipe.pairs, "--model_name_or_path=base", f"--output_dir={tmp_path}"])
    assert pairs.train_file and args.learning_rate > 0


def test_there_are_recipes():
    assert {path.name for path in RECIPES} >= {"demo.yaml", "medquad_mqp.yaml"}
