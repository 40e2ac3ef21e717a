"""Ours with one technique at a time switched off, by patches that live here and in no product file."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import Trainer

from benchmarks.inputs import load_masked_lm, load_tokenizer_for
from benchmarks.mlm_sides import build_rows, build_store, our_trainer
from benchmarks.result import Result, Table, number
from benchmarks.timing import Contestant, Lap, Laps, alternate
from benchmarks.training_laps import count_real_tokens, training_contestant
from pair_pkg.mlm import head, loss
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.modeling import attention, encoder
from pair_pkg.modeling.layout import Layout, take_rows
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.training.trainer import StageTrainer

BATCH_SIZE = 32
ALL_ON = "ours, all on"


@dataclass(frozen=True)
class Variant:
    """What is switched off: by a patch, by a setting of the trainer, or both."""

    patch: Callable[[], AbstractContextManager] = nullcontext
    settings: dict[str, Any] = field(default_factory=dict)


def run_ablation(
    texts: list[str], rounds: int, steps: int, work_dir: str, result: Result, *, both_lengths: bool
) -> None:
    """Measure every variant beside ours, on packed rows of 128 and, with ``both_lengths``, on documents cut at 512."""
    for title, max_seq_length, line_by_line in [
        ("packed, T 128", 128, False),
        ("line by line, T 512", 512, True),
    ][: 2 if both_lengths else 1]:
        laps = _measure(texts, max_seq_length, line_by_line, rounds, steps, work_dir)
        rows = [
            [name, number(laps.rate(name)), f"{laps.ratio(ALL_ON, name):.2f} x" if name != ALL_ON else None]
            for name in laps.by_name
        ]
        header = ["switched off", "real tokens/s", "all on is faster"]
        result.tables.append(Table(f"Ablation, MiniLM, {title}", header, rows))
        result.values[f"ablation {title}"] = laps.to_json()


def variants() -> dict[str, Variant]:
    """Every technique by the name of what stands in its place."""
    found = {
        ALL_ON: Variant(),
        "last layer on all rows": Variant(lambda: patch.object(head, "_flat_forward", _whole_last_layer)),
        "head (and last layer) on all rows": Variant(lambda: patch.object(head, "_flat_forward", _dense_head)),
        "padding to the longest": Variant(lambda: patch.object(MaskedRows, "_arrange_flat", _arrange_padded)),
        "torch's cross-entropy on float32 logits": Variant(lambda: patch.object(loss, "token_losses", _float32_losses)),
        "fused kernel for short segments": Variant(
            lambda: patch.object(attention, "_plain_products_serve", lambda query, width, dropout: dropout > 0)
        ),
        "attention dropout 0.1": Variant(settings={"attention_dropout": 0.1}),
        "torch's dropout": Variant(lambda: patch.object(encoder, "add_dropped", _torch_dropout)),
        "as many rows as there are": Variant(lambda: patch.object(encoder, "dead_rows", lambda *_: 0)),
        "query, key, value apart": Variant(lambda: patch.object(encoder, "_project_together", _project_apart)),
        "the library's walk over all parameters": Variant(
            lambda: patch.object(StageTrainer, "floating_point_ops", Trainer.floating_point_ops)
        ),
    }
    if supports_bfloat16("cpu"):
        found["float32"] = Variant(settings={"bf16": False})
    return found


def _measure(texts: list[str], max_seq_length: int, line_by_line: bool, rounds: int, steps: int, work_dir: str) -> Laps:
    tokenizer, _ = load_tokenizer_for(texts)
    start = load_masked_lm("minilm")
    rows = build_rows(build_store(texts, tokenizer, Path(work_dir)), tokenizer, max_seq_length, line_by_line)
    count = count_real_tokens(tokenizer.pad_token_id)

    def contestant(variant: Variant) -> Contestant:
        def build(max_steps: int, seed: int):
            return our_trainer(
                start,
                rows,
                tokenizer,
                work_dir,
                batch_size=BATCH_SIZE,
                max_steps=max_steps,
                seed=seed,
                **variant.settings,
            )

        train = training_contestant(build, count, steps)

        def lap() -> Lap:
            with variant.patch():
                return train()

        return lap

    return alternate({name: contestant(variant) for name, variant in variants().items()}, rounds)


def _whole_last_layer(self, input_ids: Tensor, position_ids: Tensor, layout: Layout, predicted: Tensor):
    hidden = encoder.encode(self.base_model, input_ids, position_ids, layout, attention_dropout=self.attention_dropout)
    return head.PredictedLogits(logits=head.HEADS[type(self).__name__](self, take_rows(hidden, predicted)))


def _dense_head(self, input_ids: Tensor, position_ids: Tensor, layout: Layout, predicted: Tensor):
    hidden = encoder.encode(self.base_model, input_ids, position_ids, layout, attention_dropout=self.attention_dropout)
    return head.PredictedLogits(logits=take_rows(head.HEADS[type(self).__name__](self, hidden), predicted))


def _float32_losses(logits: Tensor, labels: Tensor) -> Tensor:
    return F.cross_entropy(logits[: len(labels)].float(), labels, reduction="none")


def _torch_dropout(values: Tensor, residual: Tensor, probability: float, training: bool = True) -> Tensor:
    return F.dropout(values, probability, training) + residual


def _arrange_padded(self, ids: Tensor, lengths: np.ndarray, predicted: Tensor) -> dict[str, Any]:
    """Every segment as long as the longest: what padding costs, the masking of pads left out."""
    padded = self._arrange_padded(ids, lengths, predicted)
    num_segments, width = padded["input_ids"].shape
    return {
        "input_ids": padded["input_ids"].flatten(),
        "position_ids": torch.arange(width).repeat(num_segments),
        "layout": Layout([width] * num_segments),
        "predicted": padded["predicted"],
    }


def _project_apart(linears: tuple, hidden: Tensor) -> tuple[Tensor, ...]:
    return tuple(linear(hidden) for linear in linears)
