"""The room on the disk that a run's files take, asked for before the first step and not found out in the last save."""

import math
import shutil
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor
from transformers import TrainerState, TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from pair_pkg.errors import DiskFull

# Values that an optimizer keeps for each weight that learns: two moments of Adam's kin, one of those with momentum.
# One that is not named counts none, so that a run is never refused for what it would not have written.
MOMENTS = {"adam": 2, "lamb": 2, "lion": 1, "rmsprop": 1, "adagrad": 1}


def check_room(folder: Path, needed: int, why: str) -> None:
    """Raise ``DiskFull`` where the disk of a folder, which may be still to be made, has too few free bytes."""
    place = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise DiskFull(f"{folder}: the disk has {megabytes(free)} free, and {megabytes(needed)} are needed: {why}")


def checkpoint_bytes(parameters: Iterable[Tensor], optimizer: str) -> tuple[int, int]:
    """At least what a model takes on the disk, and a checkpoint with its optimizer's state, in bytes."""
    moments = next((count for name, count in MOMENTS.items() if name in optimizer), 0)
    parameters = list(parameters)
    model, learning = (
        sum(weight.numel() * weight.element_size() for weight in weights)
        for weights in (parameters, [weight for weight in parameters if weight.requires_grad])
    )
    return model, model + moments * learning


def planned_saves(args: TrainingArguments, state: TrainerState) -> int:
    """How often a run that begins, or goes on, here saves a checkpoint at most; one that a signal asks for is more."""
    if args.save_strategy == SaveStrategy.NO:
        return 0
    every, is_by_steps = state.save_steps, args.save_strategy == SaveStrategy.STEPS
    if args.save_strategy == SaveStrategy.BEST:
        every, is_by_steps = state.eval_steps, args.eval_strategy == IntervalStrategy.STEPS
    steps_left = state.max_steps - state.global_step
    if is_by_steps:
        return math.ceil(steps_left / every) if every else min(steps_left, 1)
    return min(math.ceil(state.num_train_epochs - (state.epoch or 0)), steps_left)  # a stream has epochs without end


def run_bytes(model: int, checkpoint: int, saves: int, limit: int | None, there: int) -> int:
    """The most bytes that a run adds: it saves ``saves`` times yet and keeps ``limit`` checkpoints (None or 0: all).

    ``there`` of them are there already. A new one is whole before the oldest goes, and the model comes at the end.

    >>> run_bytes(1, 3, saves=10, limit=2, there=0), run_bytes(1, 3, saves=10, limit=2, there=2)
    (9, 3)
    >>> run_bytes(1, 3, saves=10, limit=0, there=0), run_bytes(1, 3, saves=0, limit=2, there=0)
    (31, 1)
    """
    kept = limit or saves + there
    in_a_save = min(saves, max(kept + 1 - there, 1))
    at_the_end = min(saves, max(kept - there, 0))
    return max(in_a_save * checkpoint, at_the_end * checkpoint + model)


def megabytes(count: int) -> str:
    """A size in words.

    >>> megabytes(1_234_567_890), megabytes(4096)
    ('1,234.6 MB', '0.0 MB')
    """
    return f"{count / 1e6:,.1f} MB"
