"""A run that died behind each of its steps, continued: is its end the same to the bit, whatever the settings?

The whole grid of workers that load data, micro-steps of a step, and evaluations: every step is saved and the folder
copied, so that each copy is a run that died there. The same is done to the library's Trainer, and to a control: this
package, but without what it does where a run goes on.
"""

import argparse
import itertools
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.forks import Fork, behind_each_save, finish
from benchmarks.result import Result, Table
from benchmarks.tiny_runs import NUM_EVAL, Run, differing, final_state, stage_1, stock
from pair_pkg.training.trainer import StageTrainer

NUM_ROWS = 20  # in batches of 4: an epoch is 5 steps, or 2 of three micro-steps and less
STEPS = {1: 11, 3: 5}  # by micro-steps of a step: two whole epochs and one step


class Settings(NamedTuple):
    """What a run of the grid is like."""

    workers: int
    accumulation: int
    evaluation: str

    def flags(self) -> dict[str, Any]:
        return {
            "dataloader_num_workers": self.workers,
            "gradient_accumulation_steps": self.accumulation,
            "max_steps": STEPS[self.accumulation],
            "eval_strategy": self.evaluation,
            "eval_steps": 3,
            "save_steps": 1,
        }


GRID = [Settings(*point) for point in itertools.product((0, 1, 2), STEPS, ("no", "steps", "epoch"))]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))


def run(quick: bool, sides: list[str] | None = None) -> Result:
    grid = GRID[::5] if quick else GRID
    sides = sides or list(SIDES)
    found: dict[str, list[dict[int, str]]] = {}
    seconds = {}
    for side in sides:
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            found[side] = [sweep(SIDES[side], Path(folder), settings) for settings in grid]
        seconds[side] = round(time.perf_counter() - begin)
    rows = [
        [f"{s.workers} workers, {s.accumulation} micro-steps, evaluation {s.evaluation}", *map(_share, points)]
        for s, points in zip(grid, zip(*found.values()))
    ]
    totals = [{(n, step): why for n, whys in enumerate(found[side]) for step, why in whys.items()} for side in sides]
    rows += [["all", *map(_share, totals)], ["seconds", *seconds.values()]]
    values = {side: [[*s, whys] for s, whys in zip(grid, found[side])] for side in sides}
    return Result([Table("Died behind each step, then continued: equal to the bit", ["", *sides], rows)], values)


def sweep(
    build: Callable[..., Run], folder: Path, settings: Settings, steps: Sequence[int] | None = None
) -> dict[int, str]:
    """By the step that a run died behind (all, or these): what is another at its end, nothing where all is equal."""
    torch.set_num_threads(1)
    place = folder / "whole"
    target = build(folder, **settings.flags())

    def keep(_: Path, step: int) -> None:
        shutil.copytree(place, folder / f"died{step}")

    finish(behind_each_save(target, keep), place)
    expected = final_state(place)
    whys = {}
    for step in steps or range(1, STEPS[settings.accumulation] + 1):
        died = folder / f"died{step}"
        assert (died / f"checkpoint-{step}").is_dir() and not (died / f"checkpoint-{step + 1}").exists()
        fork = Fork(target, died)
        status = fork.wait()
        whys[step] = f"exit status {status}" if status else ", ".join(differing(final_state(died), expected))
    for path in folder.glob("*"):
        if path.is_dir() and path.name.startswith(("whole", "died")):
            shutil.rmtree(path)
    return whys


def _share(whys: dict[Any, str]) -> str:
    return f"{sum(not why for why in whys.values())} of {len(whys)}"


def _ours(work_dir: Path, **flags: Any) -> Run:
    return stage_1(work_dir, max_train_samples=NUM_ROWS, line_by_line="true", report_slices="false", **flags)


def _control(work_dir: Path, **flags: Any) -> Run:
    target = _ours(work_dir, **flags)

    def forgetful(place: Path) -> int:
        StageTrainer._continue = lambda trainer: None  # in the fork only
        return target(place)

    return forgetful


def _stock(work_dir: Path, **flags: Any) -> Run:
    return stock(work_dir, NUM_ROWS + NUM_EVAL, **flags)


SIDES = {"ours": _ours, "control: nothing is taken up": _control, "stock Trainer": _stock}
