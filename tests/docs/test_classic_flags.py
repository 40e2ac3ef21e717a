"""docs/classic-flags.md says of each classic flag what the real parser does with it."""

import dataclasses
import re
from pathlib import Path

import pytest

from pair_pkg.errors import InputError
from pair_pkg.stages import adapt, finetune
from pair_pkg.training.legacy_flags import OLD_NAMES

PAGE = (Path(__file__).parents[2] / "docs/classic-flags.md").read_text(encoding="utf-8")
BASE = {
    "stage 1": (adapt.parse, ["--model_name_or_path=BASE", "--train_file=corpus.txt", "--output_dir=out"]),
    "stage 2": (finetune.parse, ["--model_name_or_path=BASE", "--train_file=pairs.csv", "--output_dir=out"]),
}
SECTIONS = {"Stage 1": ["stage 1"], "Stage 2": ["stage 2"], "Both stages": ["stage 1", "stage 2"]}


def read_rows():
    """(stage, words, verdict, explanation) of every flag in the page's tables."""
    for section in PAGE.split("\n## ")[1:]:
        stages = next(stages for title, stages in SECTIONS.items() if section.startswith(title))
        for first, verdict, explanation in re.findall(r"^\| (`--.*?) \| (\w+) \| (.*) \|$", section, re.MULTILINE):
            for flag in re.findall(r"`(--[^`]+)`", first):
                for stage in stages:
                    yield pytest.param(stage, flag.split(), verdict, explanation, id=f"{stage}: {flag}")


def fields_of(flags):
    values = {field.name: getattr(part, field.name) for part in flags for field in dataclasses.fields(part)}
    return {name: getattr(value, "value", value) for name, value in values.items()}


@pytest.fixture(autouse=True)
def own_environment(monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")


@pytest.mark.parametrize(("stage", "words", "verdict", "explanation"), read_rows())
def test_a_flag_does_what_the_page_says(stage, words, verdict, explanation, caplog):
    parse, base = BASE[stage]
    name = words[0].removeprefix("--")
    if name == "dataset_name" and verdict == "same":  # in place of files
        base = [word for word in base if not word.startswith("--train_file")]
    if verdict in ("refused", "unknown"):
        with pytest.raises(InputError) as caught:
            parse([*base, *words])
        assert ("unknown flag" in str(caught.value)) == (verdict == "unknown")
        return
    got = fields_of(parse([*base, *words]))
    notes = [record.getMessage() for record in caplog.records if "flags of transformers 4" in record.getMessage()]
    if verdict == "same":
        assert name in got and not notes
        value = words[1] if len(words) > 1 and not words[1].startswith("--") else None
        if value is not None:
            assert same(got[name], value)
    elif verdict == "ignored":
        assert f"{name} dropped" in notes[0]
        assert got == fields_of(parse(base))
    else:
        assert verdict == "translated" and f"{name} -> " in notes[0]
        target = re.search(r"(?:`--|variable `)(\w+)", explanation).group(1)
        assert target in notes[0].split(" -> ")[1]


def same(found, text):
    """Whether a parsed value is what its word says."""
    if isinstance(found, list):
        return all(same(item, text) for item in found)
    if isinstance(found, bool) or found is None:
        return str(found).lower() == text
    if isinstance(found, (int, float)):
        return float(found) == float(text)
    return str(found) == text


def test_the_page_has_a_row_for_every_flag_that_is_translated_or_refused():
    """But for flags that no tutorial shows: parallel launchers of old, and what was never documented."""
    untold = {
        "dispatch_batches", "split_batches", "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap",
        "no_save_safetensors", "tp_size", "torchdynamo", "xpu_backend", "include_inputs_for_metrics",
        "include_tokens_per_second", "mp_parameters", "ray_scope", "tpu_metrics_debug", "use_legacy_prediction_loop",
    }  # fmt: skip
    told = {name for name in OLD_NAMES if f"`--{name}" in PAGE}
    assert OLD_NAMES - told == untold
