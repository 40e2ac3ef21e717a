"""Every file of a checkpoint, damaged in every way, and the run continued: is a damage taken without a word?

A run dies behind its second checkpoint, a file of that one is damaged, and the same command is given again. The same is
done to the library's Trainer, and to a control: this package, but without the verification of checkpoints.
"""

import argparse
import itertools
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.forks import Fork, behind_each_save
from benchmarks.result import Result, Table
from benchmarks.tiny_runs import Run, final_state, stage_1, stock
from pair_pkg.training import checkpoints

WAYS = ("missing", "empty", "halved", "flipped", "swapped", "stale")
STEPS, SAVE_STEPS = 6, 2
CUT_AT = 2 * SAVE_STEPS
SHAPE = {"max_steps": STEPS, "save_steps": SAVE_STEPS, "eval_strategy": "no"}
CUT_STATUS = 9
Damage = tuple[str, str]  # a file's name, and one of WAYS
SAME, REFUSED, SILENT, TOLD = "the same weights", "refused", "other weights, silently", "other weights, told"


@dataclass(frozen=True)
class Outcome:
    """What became of a run whose checkpoint was damaged."""

    file: str
    way: str
    end: str  # SAME, REFUSED, SILENT or TOLD
    is_named: bool  # whether its output names the file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, help="damages tried on each side, drawn; unset: 12 with --quick, else all")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))
    parser.add_argument("--seed", type=int, default=0, help="of the draw")


def run(quick: bool, count: int | None = None, sides: list[str] | None = None, seed: int = 0) -> Result:
    count = count or (12 if quick else None)

    def choose(damages: list[Damage]) -> list[Damage]:
        return damages if count is None else random.Random(seed).sample(damages, min(count, len(damages)))

    rows, values = [], {}
    for side in sides or list(SIDES):
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            outcomes = damage_and_continue(SIDES[side], Path(folder), choose)
        ends = Counter(outcome.end for outcome in outcomes)
        named = sum(outcome.is_named for outcome in outcomes)
        seconds = round(time.perf_counter() - begin)
        rows.append([side, len(outcomes), *(ends[end] for end in (SILENT, TOLD, REFUSED, SAME)), named, seconds])
        values[side] = [[outcome.file, outcome.way, outcome.end, outcome.is_named] for outcome in outcomes]
    header = ["", "damages", SILENT, TOLD, REFUSED, SAME, "named", "s"]
    return Result([Table("A damaged checkpoint, and the run continued", header, rows)], {"outcomes": values})


def damage_and_continue(
    build: Callable[..., Run], folder: Path, choose: Callable[[list[Damage]], list[Damage]] = list
) -> list[Outcome]:
    """Every damage, or those that ``choose`` takes of all; one that leaves a file as it was is left out."""
    torch.set_num_threads(1)
    target = build(folder, **SHAPE)
    cut = _die(target, folder / "cut")
    stale = _die(build(folder, **SHAPE, seed=2), folder / "stale")
    others = {"swapped": cut / f"checkpoint-{SAVE_STEPS}", "stale": stale / f"checkpoint-{CUT_AT}"}
    expected = _weights(target, shutil.copytree(cut, folder / "whole"))
    names = sorted(path.name for path in (cut / f"checkpoint-{CUT_AT}").iterdir())
    outcomes: list[Outcome] = []
    for name, way in choose([*itertools.product(names, WAYS)]):
        place = Path(shutil.copytree(cut, folder / "run"))
        if damage_file(place / f"checkpoint-{CUT_AT}" / name, way, others):
            outcomes.append(_continued(target, place, name, way, expected))
        shutil.rmtree(place)
    return outcomes


def damage_file(path: Path, way: str, others: dict[str, Path]) -> bool:
    """Damage a file in one of ``WAYS``, and say whether it is another now; ``others`` hold what it is swapped with."""
    before = path.read_bytes()
    if way == "missing":
        path.unlink()
    elif way == "empty":
        path.write_bytes(b"")
    elif way == "halved":
        path.write_bytes(before[: len(before) // 2])
    elif way == "flipped":
        flip_bit(path, len(before) % 8)
    else:
        shutil.copy(others[way] / path.name, path)
    return not path.exists() or path.read_bytes() != before


def flip_bit(path: Path, bit: int) -> None:
    """Turn one bit of the byte in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1 << bit
    path.write_bytes(content)


def _die(target: Run, place: Path) -> Path:
    """A run that is gone behind its checkpoint of ``CUT_AT``."""

    def act(_: Path, step: int) -> None:
        if step == CUT_AT:
            os._exit(CUT_STATUS)

    fork = Fork(behind_each_save(target, act), place)
    assert fork.wait() == CUT_STATUS, fork.log()
    return place


def _weights(target: Run, place: Path) -> Any:
    fork = Fork(target, place)
    assert fork.wait() == 0, fork.log()
    return final_state(place)["final model"]


def _continued(target: Run, place: Path, name: str, way: str, expected: str) -> Outcome:
    fork = Fork(target, place)
    status = fork.wait()
    is_named = f"{name} " in fork.log()
    if status:
        return Outcome(name, way, REFUSED, is_named)
    is_same = final_state(place)["final model"] == expected
    return Outcome(name, way, SAME if is_same else TOLD if is_named else SILENT, is_named)


def _control(work_dir: Path, **flags: Any) -> Run:
    target = stage_1(work_dir, **flags)

    def unverified(place: Path) -> int:
        checkpoints.find_damage = lambda checkpoint: None  # in the fork only
        return target(place)

    return unverified


SIDES = {"ours": stage_1, "control: unverified": _control, "stock Trainer": stock}
