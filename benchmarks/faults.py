"""A full disk, numbers that are none, changed settings: what is told, what is left, and does the run go on?

Three tables, each with this package, the library's Trainer, and a control: this package with what refuses taken away.
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
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import load_file
from transformers import Trainer
from transformers.utils import logging as transformers_logging

from benchmarks.forks import Fork, behind_each_save
from benchmarks.result import Result, Table
from benchmarks.tiny_runs import Run, stage_1, stock
from pair_pkg import errors
from pair_pkg.errors import EXIT_BAD_INPUT, EXIT_DISK_FULL, EXIT_FAILED
from pair_pkg.training import checkpoints, durable
from pair_pkg.training import trainer as trainer_module
from pair_pkg.training.trainer import StageTrainer

STEPS, CUT_AT, CUT_STATUS = 4, 2, 9
SHAPE = {"max_steps": STEPS, "save_steps": 1, "logging_steps": 1, "eval_strategy": "no"}
OURS, CONTROL, STOCK = "ours", "control", "stock Trainer"
DISK, NUMBER, SETTING = "a full disk", "a number that is none", "a changed setting"
FULL = "/dev/full"  # whoever writes to it gets the system's own "No space left on device"
WRITTEN = ("config.json", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json")
NAN, INF = float("nan"), float("inf")
BROKEN = [*itertools.product(("loss", "gradient", "weight"), (NAN, INF), (2, 3))]  # what, value, step
CHANGES: dict[str, Any] = {
    "learning_rate": 2e-3, "weight_decay": 0.1, "max_steps": 6, "per_device_train_batch_size": 2,
    "gradient_accumulation_steps": 2, "lr_scheduler_type": "cosine", "warmup_steps": 1, "adam_beta2": 0.9,
    "max_grad_norm": 0.1, "seed": 2, "data": "halved",
}  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    parser.add_argument("--count", type=int, help="cases of each, drawn; unset: 4 with --quick, else all")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")


def run(quick: bool, faults: list[str] | None = None, count: int | None = None, seed: int = 0) -> Result:
    tables, values = [], {}
    for fault in faults or list(FAULTS):
        _, cases, ends = FAULTS[fault]
        rows = []
        for side in (OURS, CONTROL, STOCK):
            begin = time.perf_counter()
            found = try_all(fault, side, count or (4 if quick else len(cases)), seed)
            counts = Counter(found.values())
            rows.append([side, len(found), *(counts[end] for end in ends), round(time.perf_counter() - begin)])
            values[f"{fault}, {side}"] = {str(case): end for case, end in found.items()}
        tables.append(Table(fault, ["", "cases", *ends, "s"], rows))
    return Result(tables, values)


def try_all(fault: str, side: str, count: int, seed: int) -> dict[Any, str]:
    """How each case of a fault, or ``count`` drawn ones, ended."""
    torch.set_num_threads(1)
    try_case, cases, _ = FAULTS[fault]
    drawn = random.Random(seed).sample(cases, min(count, len(cases)))
    with tempfile.TemporaryDirectory() as folder:
        return {case: try_case(side, Path(folder), case) for case in drawn}


def _build(side: str, work_dir: Path, **flags: Any) -> Run:
    if side == STOCK:
        return stock(work_dir, **{**SHAPE, **flags})
    return stage_1(work_dir, **{**SHAPE, "report_slices": "false", **flags})


def _with(target: Run, patch: Callable[[], None]) -> Run:
    """The target, behind a patch that is made in the fork only."""

    def run_target(place: Path) -> int:
        patch()
        return target(place)

    return run_target


# ---- a full disk ----

TOLD_AND_GOES_ON, GOES_ON = "status 74 in one line, goes on", "not told so, but goes on"
STUCK, LOST_FILE = "the same command fails", "not noticed"


def _fill_disk(side: str, work_dir: Path, case: tuple[str, int]) -> str:
    """A save finds a full disk where it writes a file; then there is room again."""
    name, step = case
    target, place = _build(side, work_dir), work_dir / "run"
    save_model = Trainer.save_model

    def full(trainer: Trainer, output_dir: str | None = None, _internal_call: bool = False) -> None:
        if output_dir is not None and _internal_call and trainer.state.global_step == step:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            Path(output_dir, name).symlink_to(FULL)
        save_model(trainer, output_dir, _internal_call)

    def patch() -> None:
        Trainer.save_model = full
        if side == CONTROL:
            errors.is_disk_full = durable.is_disk_full = lambda error: False

    fork = Fork(_with(target, patch), place)
    status = fork.wait()
    told = status == EXIT_DISK_FULL and "Traceback" not in fork.log() and fork.log().count("error: ") == 1
    goes_on = Fork(target, place).wait() == 0
    shutil.rmtree(place)
    return LOST_FILE if status == 0 else STUCK if not goes_on else TOLD_AND_GOES_ON if told else GOES_ON


# ---- numbers that are none ----

STOPPED, BROKE, FINITE, OTHERWISE = (
    "stopped, step named",
    "status 0, weights NaN",
    "status 0, weights finite",
    "otherwise",
)


def _break_number(side: str, work_dir: Path, case: tuple[str, float, int]) -> str:
    """A loss, its gradient or a weight is NaN or infinite in one step."""
    what, value, step = case
    place, compute_loss = work_dir / "run", Trainer.compute_loss

    def broken(trainer: Trainer, model: Any, inputs: Any, *arguments: Any, **settings: Any) -> Any:
        is_now = model.training and trainer.state.global_step + 1 == step
        if is_now and what == "weight":
            next(model.parameters()).data[-1] = value
        loss = compute_loss(trainer, model, inputs, *arguments, **settings)
        if is_now and what == "gradient":
            loss.register_hook(lambda gradient: gradient * value)
        return loss * value if is_now and what == "loss" else loss

    def patch() -> None:
        Trainer.compute_loss = broken
        if side == CONTROL:
            StageTrainer._refuse_broken_columns = lambda trainer, columns: None
            trainer_module.math = SimpleNamespace(isfinite=lambda number: True)
            durable.DurableTrainer.save_model = Trainer.save_model

    fork = Fork(_with(_build(side, work_dir, save_strategy="no"), patch), place)
    status = fork.wait()
    end = OTHERWISE
    if status == 0:
        weights = load_file(place / "model.safetensors").values()
        end = FINITE if all(bool(torch.isfinite(weight).all()) for weight in weights) else BROKE
    elif status == EXIT_FAILED and f"error: step {step}: " in fork.log() and "Traceback" not in fork.log():
        end = STOPPED
    shutil.rmtree(place, ignore_errors=True)
    return end


# ---- changed settings ----

REFUSED, TOLD, SILENT = "refused by name", "told, goes on", "goes on without a word"


def _change_setting(side: str, work_dir: Path, name: str) -> str:
    """The run died behind a checkpoint, and is given again with another value of one setting, or with half the data."""
    place = work_dir / "run"

    def act(_: Path, step: int) -> None:
        if step == CUT_AT:
            os._exit(CUT_STATUS)

    fork = Fork(behind_each_save(_build(side, work_dir), act), place)
    assert fork.wait() == CUT_STATUS, fork.log()
    flags = {name: CHANGES[name]} if name != "data" else {"num_texts" if side == STOCK else "max_train_samples": 100}

    def patch() -> None:
        if side == CONTROL:
            checkpoints._changes = lambda there, here: {}
        transformers_logging.set_verbosity_warning()

    fork = Fork(_with(_build(side, work_dir, **flags), patch), place)
    status, key = fork.wait(), "max_train_samples" if name == "data" else name
    shutil.rmtree(place)
    if status:
        assert status == EXIT_BAD_INPUT and f"{key}: " in fork.log() and " -> " in fork.log(), fork.log()
        return REFUSED
    return TOLD if key in fork.log() and "do not match" in fork.log() else SILENT


FAULTS: dict[str, tuple[Callable, list, tuple[str, ...]]] = {
    DISK: (
        _fill_disk,
        [*itertools.product(WRITTEN, range(1, STEPS + 1))],
        (TOLD_AND_GOES_ON, GOES_ON, STUCK, LOST_FILE),
    ),
    NUMBER: (_break_number, BROKEN, (STOPPED, BROKE, FINITE, OTHERWISE)),
    SETTING: (_change_setting, list(CHANGES), (REFUSED, TOLD, SILENT)),
}
