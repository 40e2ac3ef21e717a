"""Every shipped recipe parses by the command in its head, so that no user finds one broken."""

import re
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from pair_pkg.stages import ablation, adapt, finetune, pipeline

ROOT = Path(__file__).parent.parent
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
COMMAND = re.compile(r"#   python (?:-m pair_pkg )?(\S+) recipes/(\S+)(?: --.*)?$", re.MULTILINE)


def parse_pipeline(path, tmp_path):
    recipe = pipeline.read_recipe(str(path), base_model="base", output_dir=str(tmp_path))
    corpus, *_, args = adapt.parse([*recipe.mlm, "--model_name_or_path=base", f"--output_dir={tmp_path}"])
    assert corpus.train_file and args.learning_rate > 0
    pairs, *_, args = finetune.parse([*recipe.pairs, "--model_name_or_path=base", f"--output_dir={tmp_path}"])
    assert pairs.train_file and args.learning_rate > 0


def parse_stage(stage):
    def parse(path, tmp_path):
        data, *_, args = stage.parse([str(path), f"--output_dir={tmp_path}"])
        assert data.train_file and args.learning_rate > 0

    return parse


def parse_ablation(path, tmp_path):
    recipe = ablation.read_recipe(str(path), output_dir=str(tmp_path))
    if recipe.mlm:
        return parse_ablation_of_stage_1(recipe)
    parsed = [finetune.parse(recipe.words(name, 1)) for name in recipe.variants]
    assert all(flags.pairs.train_file for flags in parsed)
    if path.name == "ablation_rqe_first.yaml":
        assert [flags.model.model_name_or_path for flags in parsed][1:] == ["runs/rqe_bi_encoder"]
        return
    assert list(recipe.variants)[0] == "plain" and len(recipe.variants) == 13
    aided = [flags for flags in parsed if flags.aids.given() or flags.layers.given()]
    assert len(aided) == 8  # the others change the pairs or the loss


def parse_ablation_of_stage_1(recipe):
    assert list(recipe.variants)[:2] == ["base", "plain"] and list(recipe.mlm) == list(recipe.variants)[1:]
    parsed = {name: adapt.parse(recipe.mlm_words(name, 1)) for name in recipe.mlm}
    assert all(flags.task.pair_file and flags.training.learning_rate > 0 for flags in parsed.values())
    assert finetune.parse(recipe.words("merge", 1)).pairs.train_file
    read = [flags.training.max_steps * flags.training.per_device_train_batch_size for flags in parsed.values()]
    assert len(set(read)) == 1  # equal rows


PARSERS = {
    "pipeline": parse_pipeline,
    "ablate": parse_ablation,
    "run_mlm.py": parse_stage(adapt),
    "run_pair_cls.py": parse_stage(finetune),
}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_a_recipe_parses_by_its_own_command(path, tmp_path):
    command, named = COMMAND.findall(path.read_text(encoding="utf-8"))[-1]
    assert named == path.name
    PARSERS[command](path, tmp_path)


def test_there_are_recipes():
    assert {path.name for path in RECIPES} >= {"demo.yaml", "medquad_mqp.yaml"}


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/accelerate").glob("*.yaml")), ids=lambda path: path.name)
def test_a_launch_configuration_is_one_that_accelerate_knows(path):
    """Every key is known, and the head names the file."""
    config = load_config_from_file(str(path))
    assert config.num_processes == 2 and config.compute_environment.value == "LOCAL_MACHINE"
    head = path.read_text(encoding="utf-8").splitlines()[0]
    assert head.startswith(f"# accelerate launch --config_file recipes/accelerate/{path.name} run_mlm.py ...")


def test_there_are_launch_configurations():
    names = {path.stem for path in (ROOT / "recipes/accelerate").glob("*.yaml")}
    assert names == {"ddp", "fsdp", "deepspeed_zero2", "deepspeed_zero3"}
