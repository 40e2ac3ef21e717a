"""The aids through both doors: plain checkpoints come out, runs know what they were, and what cannot be is refused."""

import csv
import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers import SentenceTransformer
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback

from pair_pkg.errors import EXIT_INTERRUPTED, InputError, run_door
from pair_pkg.stages import adapt, finetune
from pair_pkg.stages.predictions import read_predictions

ROOT = Path(__file__).parents[2]
BOTH = {
    "fgm": ["--fgm_epsilon=0.5"],
    "ema": ["--weight_averaging=ema", "--ema_decay=0.9"],
    "swa": ["--weight_averaging=swa"],
    "ema, head norm": ["--weight_averaging=ema", "--head_norm=batch"],
    "layer decay": ["--layer_decay=0.8"],
    "reinit": ["--reinit_layers=1"],
    "freeze": ["--freeze_layers=1"],
    "lora": ["--lora_rank=2", "--lora_dropout=0.1"],
    "lora, ema, fgm": ["--lora_rank=2", "--weight_averaging=ema", "--fgm_epsilon=0.5", "--layer_decay=0.9"],
}
CROSS = BOTH | {"rdrop": ["--rdrop_alpha=1"], "rdrop, fgm": ["--rdrop_alpha=1", "--fgm_epsilon=0.5"]}
BI = ["--architecture=bi_encoder", "--loss=online_contrastive"]


@pytest.fixture
def words(tiny_bert, tiny_pairs, tmp_path):
    """``words(output_dir, *flags)``: a run of two epochs of three steps on 60 pairs."""
    file = tmp_path / "pairs.csv"
    with open(file, "w", encoding="utf-8", newline="") as stream:
        rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 60][1], n % 2) for n in range(60)]
        csv.writer(stream).writerows([("sentence1", "sentence2", "label"), *rows])

    def build(output_dir, *more):
        flags = {"model_name_or_path": tiny_bert, "train_file": file, "output_dir": output_dir, "max_seq_length": 40,
                 "num_train_epochs": 2, "per_device_train_batch_size": 16, "save_strategy": "no", "bf16": "false",
                 "use_cpu": "true", "learning_rate": 1e-3, "logging_steps": 1}  # fmt: skip
        return [*(f"--{name}={value}" for name, value in flags.items()), *map(str, more)]

    return build


@pytest.mark.parametrize("name", CROSS)
def test_a_cross_encoder_s_folder_is_plain_and_scores_as_it_was_tested(words, tmp_path, name):
    finetune.main(words(tmp_path / "out", *CROSS[name]))
    test = read_predictions(tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out").eval()
    assert not any("lora" in key or "base_layer" in key for key in load_file(tmp_path / "out" / "model.safetensors"))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    margins = []
    for pair in zip(test.sentence1, test.sentence2):
        with torch.no_grad():
            logits = torch.cat([model(**tokenizer(*order, return_tensors="pt")).logits for order in (pair, pair[::-1])])
        margins.append((logits[:, 1] - logits[:, 0]).mean().item())
    margins = np.array(margins)
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    probability = 1 / (1 + np.exp(-(margins - decision["center"]) / decision["temperature"]))
    np.testing.assert_allclose(test.scores, probability, atol=1e-5)

    record = json.loads((tmp_path / "out" / "run.json").read_text())
    given = dict(flag.removeprefix("--").split("=") for flag in CROSS[name])
    for flag, value in given.items():
        assert str(record["identity"][flag]) in (value, f"{value}.0"), flag
    assert set(record["aids"]) >= set(given) - {"head_norm"}


@pytest.mark.parametrize("name", BOTH)
def test_a_bi_encoder_s_folder_gives_the_tested_cosines(words, tmp_path, name):
    finetune.main(words(tmp_path / "out", *BI, *BOTH[name]))
    test = read_predictions(tmp_path / "out")
    model = SentenceTransformer(str(tmp_path / "out"), device="cpu")
    one, two = model.encode(test.sentence1), model.encode(test.sentence2)
    decision = json.loads((tmp_path / "out" / "decision.json").read_text())
    probability = 1 / (1 + np.exp(-((one * two).sum(1) - decision["center"]) / decision["temperature"]))
    np.testing.assert_allclose(test.scores, probability, atol=1e-4)


def test_the_record_holds_the_defaults_of_what_is_on_and_nothing_else(words, tmp_path):
    for name, flags in (("plain", []), ("lora", ["--lora_rank=2"]), ("ema", ["--weight_averaging=ema"])):
        finetune.main(words(tmp_path / name, "--num_train_epochs=1", *flags))
    plain, lora, ema = (
        json.loads((tmp_path / name / "run.json").read_text())["aids"] for name in ("plain", "lora", "ema")
    )
    assert plain == {}
    assert lora == {"lora_rank": 2, "lora_alpha": 4.0, "lora_dropout": 0.0}
    assert ema == {"weight_averaging": "ema", "ema_decay": 0.999}


def test_another_setting_is_another_run(words, tmp_path):
    finetune.main(words(tmp_path / "out", "--fgm_epsilon=0.5"))
    with pytest.raises(InputError, match="fgm_epsilon: 0.5 -> 1.0"):
        finetune.main(words(tmp_path / "out", "--fgm_epsilon=1"))
    with pytest.raises(InputError, match="fgm_epsilon: 0.5 -> None"):
        finetune.main(words(tmp_path / "out"))


def test_frozen_weights_are_those_of_the_checkpoint(words, tiny_bert, tmp_path):
    finetune.main(words(tmp_path / "out", "--freeze_layers=1", "--weight_averaging=swa"))
    before, after = (load_file(Path(folder, "model.safetensors")) for folder in (tiny_bert, tmp_path / "out"))
    for key, values in after.items():
        if key in before:
            assert torch.equal(values, before[key]) == ("embeddings" in key or "layer.0." in key), key


def test_the_rates_are_shown_once(words, tmp_path, capsys):
    finetune.main(words(tmp_path / "out", "--layer_decay=0.5"))
    shown = [line for line in capsys.readouterr().err.splitlines() if line.startswith("learning rates")]
    assert shown == ["learning rates: head 0.001, layer 2 0.0005, layer 1 0.00025, embeddings 0.000125"]


class StopAt(TrainerCallback):
    def on_step_end(self, args, state, control, **settings):
        if state.global_step == 4:
            raise KeyboardInterrupt


@pytest.mark.slow
@pytest.mark.parametrize("name", CROSS)
def test_a_run_that_was_cut_off_ends_as_if_it_was_not(words, tmp_path, monkeypatch, name):
    """Cut between two checkpoints, in the middle of an epoch, and continued by the same words."""
    every = ["--save_strategy=steps", "--save_steps=2", "--hidden_dropout_prob=0.1", *CROSS[name]]
    finetune.main(words(tmp_path / "whole", *every))
    trainer = finetune_trainer_with(StopAt())
    with monkeypatch.context() as patched:
        patched.setattr("pair_pkg.stages.pair_model.StageTrainer", trainer)
        assert run_door(finetune.main, words(tmp_path / "cut", *every)) == EXIT_INTERRUPTED
    finetune.main(words(tmp_path / "cut", *every))
    whole, cut = (load_file(tmp_path / folder / "model.safetensors") for folder in ("whole", "cut"))
    assert list(whole) == list(cut)
    assert all(torch.equal(values, cut[key]) for key, values in whole.items())


def finetune_trainer_with(callback):
    from pair_pkg.training.trainer import StageTrainer

    return functools.partial(StageTrainer, callbacks=[callback])


@pytest.mark.parametrize(
    "flags", [["--lora_rank=2"], ["--freeze_layers=1", "--layer_decay=0.5"]], ids=["lora", "freeze"]
)
def test_stage_1_leaves_a_plain_model_with_its_pooler(mlm_words, tiny_bert, tmp_path, flags):
    metrics = adapt.main(mlm_words(tmp_path / "out", "--max_steps=6", "--eval_steps=6", "--learning_rate=1e-2", *flags))
    assert metrics["eval_perplexity"] < metrics["before"]["eval_perplexity"]
    model, info = AutoModelForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"] and info["unexpected_keys"] <= {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
    }
    before, after = (load_file(Path(folder, "model.safetensors")) for folder in (tiny_bert, tmp_path / "out"))
    assert sorted(after) == sorted(before)
    frozen = ("embeddings", "pooler") if "lora" in flags[0] else ("embeddings", "pooler", "layer.0.")
    for key, values in after.items():
        stays = any(part in key for part in frozen) or ("lora" in flags[0] and "layer." in key and "LayerNorm" in key)
        stays |= "lora" in flags[0] and "layer." in key and key.endswith("bias")
        assert torch.equal(values, before[key]) == stays, key
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["aids"] and record["identity"].items() >= record["aids"].items()


@pytest.mark.slow
def test_16_pairs_are_two_processes_of_8(words, tmp_path):
    # not R-Drop: the door refuses it without dropout, whose draws are each process's own; that parts of a step add
    # up to its loss is proven in tests/pairs/test_rdrop.py
    same = ["--hidden_dropout_prob=0", "--optim=sgd", "--learning_rate=0.05", *CROSS["lora, ema, fgm"]]
    finetune.main(words(tmp_path / "one", *same))
    argv = words(tmp_path / "two", *same, "--per_device_train_batch_size=8", "--ddp_backend=gloo")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.run(
        [*launch, str(ROOT / "run_pair_cls.py"), *argv],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-3000:]
    one, two = (load_file(tmp_path / folder / "model.safetensors") for folder in ("one", "two"))
    for key, values in one.items():
        torch.testing.assert_close(two[key], values, atol=2e-5, rtol=0, msg=key)


REFUSED = {
    "LoRA and freezing": (["--lora_rank=2", "--freeze_layers=1"], "--lora_rank freezes the encoder's weights itself"),
    "LoRA and new layers": (["--lora_rank=2", "--reinit_layers=1"], "--reinit_layers draws weights that --lora_rank"),
    "alpha alone": (["--lora_alpha=2"], "give --lora_rank with them"),
    "rank 0": (["--lora_rank=0"], "--lora_rank 0 is out of range; give 1 or more"),
    "dropout 1": (["--lora_rank=2", "--lora_dropout=1"], "--lora_dropout 1.0 is no probability"),
    "alpha 0": (["--lora_rank=2", "--lora_alpha=0"], "--lora_alpha 0.0 is out of range"),
    "decay 0": (["--layer_decay=0"], "--layer_decay 0.0 is out of range"),
    "freeze too many": (["--freeze_layers=3"], "--freeze_layers 3: BertModel has 2 layers; give 2 at most"),
    "freeze less than none": (["--freeze_layers=-1"], "--freeze_layers -1 is out of range; give 0 or more"),
    "new layers, too many": (["--reinit_layers=3"], "give 2 at most"),
    "frozen and new": (["--freeze_layers=1", "--reinit_layers=2"], "meet in an encoder of 2 layers"),
    "EMA's decay alone": (["--ema_decay=0.9"], "--ema_decay is for --weight_averaging ema"),
    "EMA's decay 1": (["--weight_averaging=ema", "--ema_decay=1"], "--ema_decay 1.0 is out of range"),
    "no such average": (["--weight_averaging=mean"], "invalid choice: 'mean'"),
    "R-Drop below 0": (["--rdrop_alpha=-1"], "--rdrop_alpha -1.0 is out of range; give 0 or more"),
    "R-Drop of vectors": ([*BI, "--rdrop_alpha=1"], "--rdrop_alpha compares predictions of a cross_encoder"),
    "R-Drop without dropout": (["--hidden_dropout_prob=0", "--rdrop_alpha=1"], "this model draws none"),
    "FGM under a cached loss": (
        ["--architecture=bi_encoder", "--loss=cached_multiple_negatives_ranking", "--fgm_epsilon=1"],
        "--fgm_epsilon needs the activations that --loss cached_multiple_negatives_ranking throws away",
    ),
    "sharded": (["--layer_decay=0.9", "--fsdp=full_shard"], "--layer_decay needs whole weights"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_in_one_line(words, tmp_path, capsys, name):
    flags, expected = REFUSED[name]
    assert run_door(finetune.main, words(tmp_path / "out", *flags)) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 1 and expected in lines[0]
    assert not (tmp_path / "out").exists()


def test_weights_that_the_launcher_divides_are_no_whole_ones_either(words, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert run_door(finetune.main, words(tmp_path / "out", "--layer_decay=0.9")) == 2
    assert "--layer_decay needs whole weights" in capsys.readouterr().err
