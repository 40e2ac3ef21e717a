"""Stage 1 with TSDAE and RetroMAE: plain folders, exact continuation, one-line refusals."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from pair_pkg.errors import InputError
from pair_pkg.records import read_record
from pair_pkg.stages import adapt

TRAINED = ("--max_steps=4", "--learning_rate=3e-3", "--eval_steps=4", "--save_strategy=steps", "--save_steps=2")


@pytest.mark.parametrize("objective", ["tsdae", "retromae"])
def test_what_comes_out_is_a_plain_checkpoint_continued_to_the_bit(mlm_words, tmp_path, tiny_bert, objective):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    flags = [*TRAINED, f"--objective={objective}", "--objective_share=0.6"]
    metrics = adapt.main(mlm_words(whole, *flags))
    assert read_record(whole)["objective"] == {
        "objective": objective, "objective_share": 0.6, "objective_pooling": "mean"
    }  # fmt: skip
    assert metrics["before"]["eval_perplexity"] > metrics["eval_perplexity"]
    weights = load_file(whole / "model.safetensors")
    assert weights.keys() == load_file(f"{tiny_bert}/model.safetensors").keys()
    assert set(load_file(whole / "checkpoint-2/model.safetensors")) == set(weights)
    AutoModelForMaskedLM.from_pretrained(whole)

    shutil.copytree(whole, broken)
    shutil.rmtree(broken / "checkpoint-4")
    for path in broken.glob("*.*"):
        path.unlink()
    adapt.main(mlm_words(broken, *flags, f"--resume_from_checkpoint={broken / 'checkpoint-2'}"))
    again = load_file(broken / "model.safetensors")
    assert all(torch.equal(again[name], values) for name, values in weights.items())
    other = adapt.main(mlm_words(tmp_path / "plain", *TRAINED))
    assert other["eval_loss"] != metrics["eval_loss"]
    assert other["before"]["eval_loss"] == metrics["before"]["eval_loss"]  # measured alike


@pytest.mark.parametrize("objective", ["tsdae", "retromae"])
def test_accumulated_as_at_once(mlm_words, tmp_path, objective):
    flags = [*TRAINED[:3], f"--objective={objective}", "--hidden_dropout_prob=0"]
    losses = [
        adapt.main(mlm_words(tmp_path / name, *flags, *sizes))["eval_loss"]
        for name, sizes in {
            "once": ["--per_device_train_batch_size=8"],
            "accumulated": ["--per_device_train_batch_size=2", "--gradient_accumulation_steps=4"],
        }.items()
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--objective_share=0.5"], "is for --objective tsdae or retromae"),
        (["--objective=tsdae", "--objective_share=0"], "--objective_share 0.0 is no share"),
        (["--objective=retromae", "--lora_rank=2"], "leave out --fsdp, --deepspeed and --lora_rank"),
        (["--objective=retromae", "--model_name_or_path=data/tiny_encoder"], "not ModernBertModel"),
    ],
)
def test_a_mistake_is_one_line(mlm_words, tmp_path, flags, message):
    with pytest.raises(InputError, match=message):
        adapt.main(mlm_words(tmp_path / "out", *TRAINED, *flags))
    assert not (tmp_path / "out").exists()
