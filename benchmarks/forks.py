"""A run in a fork of a process that has imported everything and computed nothing: it takes a second, no more.

What it does at the moment it tells by marks in a file, so that it can be hit inside a save, or wherever is wanted.
"""

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer
from transformers.trainer_callback import CallbackHandler

from benchmarks import tiny_runs
from benchmarks.tiny_runs import Run
from pair_pkg.stages import adapt, finetune
from pair_pkg.training.trainer import StageTrainer

DATA, TRAINING, EVALUATION, SAVE = "data preparation", "training", "evaluation", "save"
PHASES = {DATA: "dD", TRAINING: "tT", EVALUATION: "vV", SAVE: "sS"}  # the marks of its begin and of its end
TOLD_FUNCTIONS = ((adapt, "load_data"), (finetune, "load_splits"), (tiny_runs, "stock_rows"))
TOLD_METHODS = {"training_step": TRAINING, "evaluate": EVALUATION, "_save_checkpoint": SAVE}


def tell_phases(path: Path) -> None:
    """Let this process append a mark to a file wherever a phase of a run begins or ends."""
    writer = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for place, name in TOLD_FUNCTIONS:
        setattr(place, name, _told(getattr(place, name), DATA, writer))
    for name, phase in TOLD_METHODS.items():
        for kind in (StageTrainer, Trainer):
            _tell_of_method(kind, name, phase, writer)


def _tell_of_method(kind: type, name: str, phase: str, writer: int) -> None:
    """Only for trainers of just this class: what they call of the class above is inside."""
    own = kind.__dict__.get(name)

    def told(self, *arguments: Any, **settings: Any) -> Any:
        call = partial(own, self) if own else getattr(super(kind, self), name)
        if type(self) is kind:
            call = _told(call, phase, writer)
        return call(*arguments, **settings)

    setattr(kind, name, told)


def _told(call: Callable, phase: str, writer: int) -> Callable:
    def told(*arguments: Any, **settings: Any) -> Any:
        begin, end = PHASES[phase]
        os.write(writer, begin.encode())
        result = call(*arguments, **settings)
        os.write(writer, end.encode())
        return result

    return told


class Marks:
    """The marks of a run, each with the time at which it was read."""

    def __init__(self, path: Path):
        path.unlink(missing_ok=True)
        path.touch()
        self._path = path
        self._read: list[tuple[str, float]] = []

    def read(self) -> list[tuple[str, float]]:
        """All marks so far."""
        with open(self._path, "rb") as file:
            file.seek(len(self._read))
            now = time.perf_counter()
            self._read += [(mark, now) for mark in file.read().decode()]
        return self._read

    def times(self, mark: str) -> list[float]:
        return [when for found, when in self.read() if found == mark]

    def count(self, phase: str) -> int:
        """How often a phase has begun."""
        return len(self.times(PHASES[phase][0]))

    def mean_seconds(self, phase: str) -> float:
        """How long a phase takes that ended."""
        begins, ends = (self.times(mark) for mark in PHASES[phase])
        return sum(end - begin for begin, end in zip(begins, ends)) / len(ends)

    def phase(self) -> str | None:
        """The phase that has begun and not ended."""
        read = self.read()
        return next((phase for phase, (begin, _) in PHASES.items() if read and read[-1][0] == begin), None)

    def steps_done(self) -> int:
        """Steps whose loss was computed; the last of them may not have been taken yet."""
        return len(self.times(PHASES[TRAINING][1]))


class Fork:
    """A target in a fork, which leads a group of processes of its own, and prints to a file."""

    def __init__(self, target: Run, place: Path):
        self.log_path = place.with_suffix(".log")
        self.marks = Marks(place.with_suffix(".marks"))
        self.begin = time.perf_counter()
        self.seconds = 0.0
        self.status: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(target, place)

    def _become(self, target: Run, place: Path) -> None:
        status = 1
        try:
            os.setpgid(0, 0)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)  # as in a program of its own, not as this one obeys them
            signal.signal(signal.SIGINT, signal.default_int_handler)
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            tell_phases(place.with_suffix(".marks"))
            # The first to ask torch for its threads makes a new pool in a fork; two who ask at once, as the threads
            # that load a model do, can find none, and end in "Invalid thread pool!". So one asks before them.
            torch.set_num_threads(torch.get_num_threads())
            status = target(place)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def is_running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def sleep_until(self, phase: str, number: int) -> None:
        """Wait for the begin of a phase (from 1), or the end of the run."""
        while self.marks.count(phase) < number and self.is_running():
            time.sleep(0.0002)

    def send(self, number: int, to_group: bool = False) -> bool:
        """Signal the run; says whether it was still running."""
        if not self.is_running():
            return False
        (os.killpg if to_group else os.kill)(self.pid, number)
        return True

    def wait(self) -> int:
        """The exit status."""
        while self.status is None:
            self.marks.read()
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        self.seconds = time.perf_counter() - self.begin
        self.marks.read()
        return self.status

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")


def finish(target: Run, place: Path) -> Fork:
    """A run to its end. Raises ``AssertionError`` where it fails."""
    fork = Fork(target, place)
    assert fork.wait() == 0, fork.log()
    return fork


def behind_each_save(target: Run, act: Callable[[Path, int], None]) -> Run:
    """The target, but that ``act(place, step)`` is called when a checkpoint is saved, in the fork only."""

    def run_target(place: Path) -> int:
        own = CallbackHandler.on_save

        def on_save(handler: CallbackHandler, args: Any, state: Any, control: Any) -> Any:
            control = own(handler, args, state, control)
            act(place, state.global_step)
            return control

        CallbackHandler.on_save = on_save
        return target(place)

    return run_target
