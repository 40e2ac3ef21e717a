"""Seconds of training to a held-out perplexity: both sides from one start, scored alike by our exact evaluation."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from torch import nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from benchmarks.inputs import corpus_path, load_masked_lm, load_tokenizer_for, read_texts
from benchmarks.mlm_sides import build_rows, build_stock_dataset, build_store, our_trainer, stock_trainer
from benchmarks.result import Result, Table, number
from benchmarks.timing import synchronized
from pair_pkg.data.rows import split_documents
from pair_pkg.modeling.precision import supports_bfloat16

MAX_SEQ_LENGTH = 128
HELD_OUT_FRACTION = 0.05
HELD_OUT_ROWS, QUICK_HELD_OUT_ROWS = 128, 48
OURS, PEER = "ours", "stock, float32"


@dataclass
class Curve:
    """Seconds of training, evaluations left out, and the perplexity then."""

    points: list[tuple[float, float]] = field(default_factory=list)

    def seconds_to(self, perplexity: float) -> float | None:
        """Seconds until an evaluation was at or below ``perplexity``, or None where none was."""
        return next((seconds for seconds, reached in self.points if reached <= perplexity), None)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a corpus file; unset: MedQuAD")
    parser.add_argument("--seeds", type=int, nargs="+", help="unset: 1 with --quick, else 1 2 3")
    parser.add_argument("--target", type=float, help="perplexity; unset: what the stock float32 side ends at")
    parser.add_argument("--stock_steps", type=int, help="unset: 10 with --quick, else 20; ours may take twice as many")
    parser.add_argument("--eval_steps", type=int, default=4, help="steps between evaluations")
    parser.add_argument("--batch_size", type=int, default=32, help="rows a step, on both sides")
    parser.add_argument("--learning_rate", type=float, default=5e-4, help="constant, on both sides")


def run(
    quick: bool,
    corpus: str | None = None,
    seeds: Sequence[int] | None = None,
    target: float | None = None,
    stock_steps: int | None = None,
    eval_steps: int = 4,
    batch_size: int = 32,
    learning_rate: float = 5e-4,
) -> Result:
    path, notes = corpus_path(corpus)
    stock_steps = stock_steps or (10 if quick else 20)
    settings = {"batch_size": batch_size, "learning_rate": learning_rate, "lr_scheduler_type": "constant"}
    result = Result(notes=notes)
    ratios: dict[str, list[float | None]] = {}
    with tempfile.TemporaryDirectory() as work_dir:
        texts = read_texts(path, 2_000 if quick else 4_000)
        sides, evaluate = _prepare(texts, QUICK_HELD_OUT_ROWS if quick else HELD_OUT_ROWS, work_dir, settings)
        rows = []
        for seed in seeds or ([1] if quick else [1, 2, 3]):
            curves = _race(sides, evaluate, load_masked_lm("minilm", seed), seed, stock_steps, eval_steps)
            goal = target or curves[PEER].points[-1][1]
            seconds = {name: curve.seconds_to(goal) for name, curve in curves.items()}
            rows += [_row(seed, name, curves[name], goal, seconds) for name in curves]
            for name in curves:
                ratios.setdefault(name, []).append(_ratio(seconds[name], seconds[OURS]))
            result.values[f"seed {seed}"] = {
                "target": goal, "seconds": seconds, "curves": {name: curve.points for name, curve in curves.items()}
            }  # fmt: skip
    header = ["seed, side", "target perplexity", "seconds to it", "ours is faster", "last perplexity"]
    result.tables.append(Table("MiniLM, held-out documents, frozen masks", header, rows))
    result.values["median_ratio"] = {
        name: median(values) if None not in values else None for name, values in ratios.items() if name != OURS
    }
    return result


BuildSide = Callable[..., Trainer]  # (start, max_steps, seed) -> a trainer
Evaluate = Callable[[nn.Module], float]


def _prepare(
    texts: list[str], held_out_rows: int, work_dir: str, settings: dict[str, Any]
) -> tuple[dict[str, BuildSide], Evaluate]:
    """Builders of the sides on the same training documents, and the perplexity of a model on the held-out ones."""
    tokenizer, _ = load_tokenizer_for(texts)
    store = build_store(texts, tokenizer, Path(work_dir))
    training, held_out = split_documents(store.num_documents, HELD_OUT_FRACTION, seed=0)
    rows = build_rows(store, tokenizer, MAX_SEQ_LENGTH, False, training)
    validation = build_rows(store, tokenizer, MAX_SEQ_LENGTH, False, held_out, with_rows=True)
    validation.rows = validation.rows.sample(held_out_rows, seed=0)
    dataset = build_stock_dataset(
        [texts[number] for part in training.parts() for number in part], tokenizer, MAX_SEQ_LENGTH, False
    )

    def ours(start: nn.Module, max_steps: int, seed: int) -> Trainer:
        return our_trainer(start, rows, tokenizer, work_dir, max_steps=max_steps, seed=seed, **settings)

    def stock(bf16: bool, start: nn.Module, max_steps: int, seed: int) -> Trainer:
        common = {"max_steps": max_steps, "seed": seed, "bf16": bf16, **settings}
        return stock_trainer(start, dataset, tokenizer, work_dir, **common)

    judge = our_trainer(
        load_masked_lm("minilm"), rows, tokenizer, work_dir, batch_size=32, max_steps=1, seed=0, evaluation=validation
    )

    def perplexity(model: nn.Module) -> float:
        judge.model.load_state_dict(model.state_dict())
        return judge.evaluate()["eval_perplexity"]

    judge.remove_callback(PrinterCallback)
    sides: dict[str, BuildSide] = {PEER: partial(stock, False), OURS: ours}
    if supports_bfloat16("cpu"):
        sides["stock, bfloat16"] = partial(stock, True)
    return sides, perplexity


def _race(
    sides: dict[str, BuildSide], evaluate: Evaluate, start: nn.Module, seed: int, stock_steps: int, eval_steps: int
) -> dict[str, Curve]:
    """Train every side in turn, the first of them another one at the next seed: a drift favours nobody."""
    names = list(sides) if seed % 2 else list(reversed(sides))
    curves = {}
    for name in names:
        max_steps = 2 * stock_steps if name == OURS else stock_steps
        trainer = sides[name](start, max_steps, seed)
        trainer.remove_callback(PrinterCallback)
        watch = _Watch(evaluate, eval_steps)
        trainer.add_callback(watch)
        trainer.train()
        curves[name] = watch.curve
    return {name: curves[name] for name in sides}


class _Watch(TrainerCallback):
    """Evaluates every few steps with the clock stopped; the clock runs from the end of the first step.

    The first step warms up; it counts for neither side.
    """

    def __init__(self, evaluate: Evaluate, eval_steps: int):
        self.curve = Curve()
        self._evaluate = evaluate
        self._eval_steps = eval_steps
        self._seconds = self._resumed = 0.0

    def on_step_end(self, args, state, control, model, **_) -> None:
        now = synchronized()
        self._seconds += now - self._resumed if state.global_step > 1 else 0.0
        if state.global_step % self._eval_steps == 0 or state.global_step == state.max_steps:
            self.curve.points.append((self._seconds, self._evaluate(model)))
        self._resumed = synchronized()


def _row(seed: int, name: str, curve: Curve, goal: float, seconds: dict[str, float | None]) -> list[object]:
    ratio = _ratio(seconds[name], seconds[OURS])
    return [
        f"{seed}, {name}",
        number(goal, 2),
        number(seconds[name], 1),
        None if name == OURS or ratio is None else f"{ratio:.2f} x",
        number(curve.points[-1][1], 2),
    ]


def _ratio(theirs: float | None, ours: float | None) -> float | None:
    return None if theirs is None or ours is None else theirs / ours
