"""A small cross-encoder with its trainer, for what is added to plain training."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    TrainingArguments,
)

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.cross_encoder import bind_cross_encoder
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.head_norm import add_head_norm
from pair_pkg.pairs.loss import pair_loss, pair_row_metrics, score_pairs
from pair_pkg.records import read_json, read_record
from pair_pkg.training.trainer import StageTrainer

SIZES = dict(hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, pad_token_id=0)
MODELS = {
    "bert": (BertForSequenceClassification, BertConfig, {"attention_probs_dropout_prob": 0.0}),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, {"attention_probs_dropout_prob": 0.0}),
    "modernbert": (ModernBertForSequenceClassification, ModernBertConfig, {"classifier_pooling": "cls"}),
}
SCHEMES = {
    "binary": LabelScheme("binary", ["different", "same"]),
    "scores": LabelScheme("scores", [], 0.0, 1.0),
}


ROOT = Path(__file__).parents[2]
LONGEST = 900  # seconds; a few on an idle machine


@pytest.fixture(scope="session")
def run_forked(tmp_path_factory):
    """``run_forked(*groups)``: groups of processes that do runs, one after the other (``forked.py``); what they say."""

    def run(*groups):
        path = tmp_path_factory.mktemp("groups") / "groups.json"
        path.write_text(json.dumps(groups))
        with open(path.with_name("said"), "w+", encoding="utf-8") as said:
            process = subprocess.Popen(
                [sys.executable, ROOT / "tests/training/forked.py", path], cwd=ROOT, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, stdout=said, stderr=said,
            )  # fmt: skip
            try:
                status = process.wait(timeout=LONGEST)
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        text = path.with_name("said").read_text(encoding="utf-8")
        assert status == 0, text[-6000:]
        return text

    return run


@pytest.fixture(scope="session")
def fsdp_environment():
    """What ``accelerate launch --config_file recipes/accelerate/fsdp.yaml`` sets for its processes."""
    words = ["--config_file", str(ROOT / "recipes/accelerate/fsdp.yaml"), "run_mlm.py"]
    args, _, _ = _validate_launch_command(launch_command_parser().parse_args(words))
    wanted = ("ACCELERATE_", "FSDP_")
    return {name: value for name, value in prepare_multi_gpu_env(args).items() if name.startswith(wanted)}


@pytest.fixture
def pair_data(tiny_pairs, tiny_tokenizer):
    """``pair_data(kind, flat=..., copies=...)``: the batches of 24 pairs."""

    def build(kind="binary", *, flat=True, with_rows=False, copies=1):
        part = tiny_pairs[:24]
        labels = np.arange(24) % 2 if kind == "binary" else np.linspace(0, 1, 24, dtype=np.float32)
        pairs = Pairs([a for a, _ in part], [b for _, b in part], labels, [f"pairs:{row}" for row in range(24)])
        settings = {"flat": flat, "with_rows": with_rows, "copies": copies}
        return PairRows(pairs, SCHEMES[kind], tiny_tokenizer, 40, **settings)

    return build


@pytest.fixture
def build_model(tiny_tokenizer):
    """``build_model(name, dropout=..., flat=..., ...)``: a bound classifier with seeded weights."""

    def build(name="bert", *, dropout=0.0, flat=True, num_labels=2, head_norm=False, **settings):
        model_class, config_class, plain = MODELS[name]
        drop = {"embedding_dropout": dropout} if name == "modernbert" else {"hidden_dropout_prob": dropout}
        config = config_class(
            vocab_size=len(tiny_tokenizer),
            num_labels=num_labels,
            initializer_range=0.1,
            **SIZES,
            **plain,
            **drop,
            **settings,
        )
        torch.manual_seed(0)
        model = model_class(config)
        if head_norm:
            add_head_norm(model)
        bind_cross_encoder(model, why_stock=None if flat else "a test")
        return model

    return build


@pytest.fixture
def build_trainer(pair_data, tmp_path):
    """``build_trainer(model, aids=..., max_steps=...)``: three steps of eight pairs unless told otherwise."""

    def build(model, *, kind="binary", flat=True, copies=1, loss=None, aids=None, **arguments):
        defaults = dict(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", save_strategy="no", seed=3,
                        disable_tqdm=True, remove_unused_columns=False, logging_nan_inf_filter=False, logging_steps=1,
                        per_device_train_batch_size=8, max_steps=3, learning_rate=1e-3)  # fmt: skip
        return StageTrainer(
            model=model,
            args=TrainingArguments(**{**defaults, **arguments}),
            train_dataset=pair_data(kind, flat=flat, copies=copies),
            eval_dataset=pair_data(kind, flat=flat, with_rows=True),
            compute_loss_func=loss or pair_loss(kind),
            score_batch=lambda model, batch: score_pairs(model, batch, scheme=SCHEMES[kind]),
            row_metrics=lambda columns: pair_row_metrics(columns, scheme=SCHEMES[kind]),
            **(aids or {}),
        )

    return build


@pytest.fixture
def weights_of():
    """``weights_of(model)``: a copy of all its state."""

    def copy(model):
        return {name: values.detach().clone() for name, values in model.state_dict().items()}

    return copy


@pytest.fixture
def history_of():
    """``history_of(trainer)``: loss and gradient norm of each step."""

    def history(trainer):
        return np.array([(e["loss"], e["grad_norm"]) for e in trainer.state.log_history if "grad_norm" in e])

    return history


@pytest.fixture
def close_run():
    """``close_run(one, other, steps)``: losses and gradient norms of all steps, and the weights, are equal to 1e-5."""

    def trajectory(folder):
        entries = read_json(folder / "log_history.json")
        return np.array([(entry["loss"], entry["grad_norm"]) for entry in entries if "grad_norm" in entry])

    def check(one, other, steps):
        ours, wanted = trajectory(one), trajectory(other)
        assert ours.shape == (steps, 2)
        np.testing.assert_allclose(ours, wanted, rtol=0, atol=1e-5)
        weights, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
        assert weights.keys() == expected.keys()
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0, msg=name)

    return check


@pytest.fixture
def same_run():
    """``same_run(one, other)``: two run folders have the same weights, logs and metrics, to the bit."""
    # Timings differ by nature; the library's train_loss is the mean of the steps since the run was continued.
    varying = ("tokens_per_second", "runtime", "per_second", "total_flos", "train_loss")

    def log_of(folder):
        entries = read_json(folder / "log_history.json")
        return [{name: value for name, value in entry.items() if not name.endswith(varying)} for entry in entries]

    def check(one, other):
        assert log_of(one) == log_of(other)
        weights, expected = (load_file(folder / "model.safetensors") for folder in (one, other))
        assert weights.keys() == expected.keys()
        for name, value in weights.items():
            assert torch.equal(value, expected[name]), name
        found, wanted = (read_record(folder)["metrics"] for folder in (one, other))
        for name in ("before", "eval_loss", "eval_perplexity"):
            assert found.get(name) == wanted.get(name)

    return check
