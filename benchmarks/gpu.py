"""Tokens a second, MFU and memory on a GPU: ours beside the stock Trainer in bfloat16, each at its best batch."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer

from benchmarks.arithmetic import Shape, training_flops_per_token
from benchmarks.hardware import matrix_product
from benchmarks.inputs import SHAPES, corpus_path, load_masked_lm, load_tokenizer_for, read_texts
from benchmarks.mlm_sides import build_rows, build_stock_dataset, build_store, describe_rows, our_trainer, stock_trainer
from benchmarks.result import Result, Table, number
from benchmarks.timing import Contestant, Laps, alternate
from benchmarks.training_laps import best_batch_size, count_real_tokens, training_contestant

OURS, PEER, CEILING = "ours", "stock, bfloat16", "bfloat16 matrix product"
GPU_SHAPES = ("minilm", "bert-base", "modernbert-base")
BATCH_TOKENS = (8_192, 16_384, 32_768, 65_536, 131_072)
INPUTS = {"packed": False, "documents": True}  # line by line: the stock side pads, ours does not
MAX_DOCUMENTS = 8_000


@dataclass(frozen=True)
class Plan:
    """What is tried and how long."""

    shapes: Sequence[str]
    batch_tokens: Sequence[int]
    warm_up: int
    steps: int
    rounds: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a corpus file; unset: MedQuAD")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, help=f"unset: {' '.join(GPU_SHAPES)}")
    parser.add_argument("--max_seq_length", type=int, default=128, help="tokens of a row")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a trial on a toy shape")


def run(
    quick: bool,
    corpus: str | None = None,
    shapes: Sequence[str] | None = None,
    max_seq_length: int = 128,
    device: str = "cuda",
) -> Result | None:
    """None, after one line, where there is no GPU."""
    if device == "cuda" and not torch.cuda.is_available():
        print("gpu: no CUDA device here, nothing was measured")
        return None
    plan = _plan(quick, shapes, device)
    path, notes = corpus_path(corpus)
    texts = read_texts(path, MAX_DOCUMENTS if device == "cuda" else 200)
    result = Result(notes=notes)
    rows = []
    with tempfile.TemporaryDirectory() as work_dir:
        for shape in plan.shapes:
            for title, line_by_line in INPUTS.items():
                race = _Race(shape, texts, max_seq_length, line_by_line, device, work_dir)
                measured, laps = race.run(plan)
                rows += [[f"{shape}, {title}: {side}", *cells] for side, cells in measured.items()]
                result.values[f"{shape}, {title}"] = laps.to_json()
    header = ["", "real tokens/s", "ours is faster", "MFU", "best batch, rows", "peak memory, GB"]
    result.tables.append(Table(f"T {max_seq_length}, {device}", header, rows))
    result.notes.append(
        "MFU: useful operations (sparse head and last layer) over the bfloat16 products measured beside"
    )
    return result


def _plan(quick: bool, shapes: Sequence[str] | None, device: str) -> Plan:
    if device == "cpu":
        return Plan(shapes or ["toy"], (1_024, 2_048), warm_up=1, steps=2, rounds=1 if quick else 3)
    if quick:
        return Plan(shapes or GPU_SHAPES, BATCH_TOKENS[2:4], warm_up=5, steps=10, rounds=3)
    return Plan(shapes or GPU_SHAPES, BATCH_TOKENS, warm_up=10, steps=30, rounds=3)


class _Race:
    """Ours beside the stock Trainer on one shape and one kind of input."""

    def __init__(
        self, shape: str, texts: list[str], max_seq_length: int, line_by_line: bool, device: str, work_dir: str
    ):
        self.tokenizer, _ = load_tokenizer_for(texts)
        self.device = device
        self.max_seq_length = max_seq_length
        self.rows = build_rows(
            build_store(texts, self.tokenizer, Path(work_dir)), self.tokenizer, max_seq_length, line_by_line
        )
        dataset = build_stock_dataset(texts, self.tokenizer, max_seq_length, line_by_line)
        start = load_masked_lm(shape)
        attended, predicted = describe_rows(self.rows)
        self.flops_per_token = training_flops_per_token(Shape.of(SHAPES[shape]), attended, predicted)
        self._settings: dict[str, Any] = {
            "tokenizer": self.tokenizer, "output_dir": work_dir, "bf16": True, "use_cpu": device == "cpu",
        }  # fmt: skip
        self._sides: dict[str, Callable[..., Trainer]] = {
            OURS: partial(our_trainer, start, self.rows),
            PEER: partial(stock_trainer, start, dataset),
        }

    def run(self, plan: Plan) -> tuple[dict[str, list[object]], Laps]:
        """The table's cells by side, and the laps."""
        candidates = [max(1, tokens // self.max_seq_length) for tokens in plan.batch_tokens]
        best, peaks, contestants = {}, {}, {}
        for side in self._sides:
            best[side], _ = best_batch_size(candidates, partial(self._contestant, side, plan))
            contestants[side] = self._contestant(side, plan, best[side])
            peaks[side] = self._peak_of(contestants[side])
        contestants[CEILING] = matrix_product(torch.bfloat16, self.device)
        laps = alternate(contestants, plan.rounds)
        cells = {
            side: [
                number(laps.rate(side)),
                None if side == OURS else f"{laps.ratio(OURS, side):.2f} x",
                f"{self.flops_per_token * laps.ratio(side, CEILING):.1%}",
                best[side],
                number(peaks[side] and peaks[side] / 1e9, 1),
            ]
            for side in self._sides
        }
        return cells, laps

    def _contestant(self, side: str, plan: Plan, batch_size: int) -> Contestant:
        def build(max_steps: int, seed: int) -> Trainer:
            return self._sides[side](batch_size=batch_size, max_steps=max_steps, seed=seed, **self._settings)

        return training_contestant(build, count_real_tokens(self.tokenizer.pad_token_id), plan.steps, plan.warm_up)

    def _peak_of(self, contestant: Contestant) -> int | None:
        """Most device memory of one lap, with nothing of another contestant alive; None on a CPU."""
        if self.device == "cpu":
            return None
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        contestant()
        return torch.cuda.max_memory_allocated()
