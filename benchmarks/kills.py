"""A run is killed at a random instant, half of the times inside a save, and continued: is its end the same to the bit?

The same instants are drawn for the library's Trainer with its own collator, and for a control: this package, but
taking the checkpoint of the highest number whatever it holds.
"""

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_utils import get_last_checkpoint

from benchmarks.forks import SAVE, Fork, finish
from benchmarks.result import Result, Table
from benchmarks.tiny_runs import STEPS, Run, differing, final_state, stage_1, stage_2, stock
from pair_pkg.errors import EXIT_INTERRUPTED
from pair_pkg.training import checkpoints
from pair_pkg.training.durable import DurableTrainer
from pair_pkg.training.trainer import StageTrainer


@dataclass(frozen=True)
class Outcome:
    """What a killed run was and became."""

    inside_a_save: bool
    is_equal: bool
    why: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, help="kills of each side; unset: 6 with --quick, else 200")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL", help="what the run is sent")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="who is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")


def run(
    quick: bool, count: int | None = None, signal: str = "KILL", sides: list[str] | None = None, seed: int = 0
) -> Result:
    count = count or (6 if quick else 200)
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as work_dir:
        for side in sides or list(SIDES):
            begin = time.perf_counter()
            outcomes = kill_and_continue(SIDES[side](Path(work_dir)), Path(work_dir, side), count, signal, seed)
            inside = [outcome for outcome in outcomes if outcome.inside_a_save]
            seconds = round(time.perf_counter() - begin)
            rows.append(
                [side, *(f"{sum(o.is_equal for o in part)} of {len(part)}" for part in (outcomes, inside)), seconds]
            )
            values[side] = [{"inside_a_save": o.inside_a_save, "equal": o.is_equal, "why": o.why} for o in outcomes]
    title = f"SIG{signal} at a random instant of {STEPS} steps, then continued: equal to the bit"
    return Result([Table(title, ["", "all", "inside a save", "seconds"], rows)], {"outcomes": values})


def kill_and_continue(target: Run, folder: Path, count: int, signal_name: str, seed: int) -> list[Outcome]:
    """``count`` runs of ``target``, each signalled once and then run to its end, against one that was left alone."""
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    begin = time.perf_counter()
    draw = random.Random(seed)
    whole = finish(target, folder / "whole")
    expected = final_state(folder / "whole")
    num_saves, save_seconds = whole.marks.count(SAVE), whole.marks.mean_seconds(SAVE)
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        place = folder / f"run{len(outcomes)}"
        run = Fork(target, place)
        if len(outcomes) % 2:
            run.sleep_until(SAVE, draw.randrange(num_saves) + 1)
            time.sleep(draw.uniform(0, save_seconds))
        else:
            time.sleep(draw.uniform(0.02, whole.seconds))  # by then it has its handlers
        steps_done = run.marks.steps_done()
        sent = run.send(getattr(signal, f"SIG{signal_name}"))
        inside = run.marks.phase() == SAVE
        status = run.wait()
        if sent and (status or steps_done < STEPS):  # else it was faster, and another instant is drawn
            fault = "" if signal_name == "KILL" or status == EXIT_INTERRUPTED else f"exit status {status}"
            outcomes.append(_continued(target, place, expected, inside, fault))
            seconds = round(time.perf_counter() - begin)  # told at once: two hundred take a while
            print(f"{folder.name} {len(outcomes)}: {outcomes[-1]}, {seconds} s", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return outcomes


def _continued(target: Run, place: Path, expected: dict[str, Any], inside: bool, fault: str) -> Outcome:
    run = Fork(target, place)
    status = run.wait()
    if status:
        last = run.log().strip().splitlines()[-1:]
        return Outcome(inside, False, f"exit status {status} when continued: {last}")
    others = differing(final_state(place), expected)
    return Outcome(inside, not others and not fault, fault or ", ".join(others))


def _control(work_dir: Path) -> Run:
    run_stage = stage_1(work_dir)

    def careless(place: Path) -> int:
        def highest(folder: Path, *_: Any) -> str | None:
            return get_last_checkpoint(str(folder))

        checkpoints.newest_checkpoint = highest  # in the fork only
        DurableTrainer._save_checkpoint = Trainer._save_checkpoint  # below what tells of saves
        StageTrainer._continue = lambda trainer: None
        return run_stage(place)

    return careless


SIDES = {"stage 1": stage_1, "stage 2": stage_2, "control: unverified": _control, "stock Trainer": stock}
