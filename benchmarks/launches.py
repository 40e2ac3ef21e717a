"""A run as a user starts it: by Python, ``torchrun`` or ``accelerate launch``, in a group of processes of its own."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from benchmarks.forks import Marks
from benchmarks.tiny_runs import ROOT

PYTHON, TORCHRUN, ACCELERATE = "python", "torchrun", "accelerate launch"
WORKER, LAUNCHER, GROUP = "worker", "launcher", "group"
COMMANDS = {
    PYTHON: [],
    TORCHRUN: ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"],
    ACCELERATE: ["-m", "accelerate.commands.launch", "--num_processes=1", "--cpu", "--num_machines=1",
                 "--mixed_precision=no", "--dynamo_backend=no"],
}  # fmt: skip
MODULE = "benchmarks.told_run"
PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
MOST_SECONDS = 400  # a launch that takes longer hangs
ORPHAN_SECONDS = 30  # a process that outlives its launcher longer is an orphan


class Launch:
    """Stage 1 with these flags into ``place``, under a launcher."""

    def __init__(self, launcher: str, words: list[str], place: Path):
        self.launcher, self.place = launcher, place
        self.log_path = place.with_suffix(".log")
        self.marks = Marks(place.with_suffix(".marks"))
        for path in self._status_paths():
            path.unlink()
        module = ["-m", MODULE]
        command = [sys.executable, *COMMANDS[launcher], *module, str(place), *words]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, start_new_session=True, stdout=log, stderr=log
            )

    def is_running(self) -> bool:
        return self.process.poll() is None

    def sleep_until(self, phase: str, number: int) -> None:
        """Wait for the begin of a phase (from 1), or the end of the launch."""
        while self.marks.count(phase) < number and self.is_running():
            time.sleep(0.001)

    def send(self, number: int, whom: str) -> bool:
        """Signal a worker (the last one), the launcher or its group; says whether it was still running."""
        workers = self.workers()
        if not self.is_running() or not workers:
            return False
        if whom == GROUP:
            os.killpg(self.process.pid, number)
        else:
            os.kill(self.process.pid if whom == LAUNCHER else workers[-1].pid, number)
        return True

    def workers(self) -> list[psutil.Process]:
        """The processes that train, in the order in which they were started."""
        if self.launcher == PYTHON:
            return [psutil.Process(self.process.pid)]
        children = psutil.Process(self.process.pid).children()
        return sorted((child for child in children if MODULE in child.cmdline()), key=lambda child: child.pid)

    def wait(self) -> int | None:
        """The launcher's exit status; None where it hangs, and it is killed."""
        try:
            return self.process.wait(timeout=MOST_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None

    def statuses(self) -> list[int]:
        """What each process that trained ended with; one that was killed told nothing."""
        return [int(path.read_text()) for path in self._status_paths()]

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _status_paths(self) -> list[Path]:
        return sorted(self.place.parent.glob(f"{self.place.name}.status*"))


@contextmanager
def orphans_come_here() -> Iterator[None]:
    """A process whose parent dies becomes a child of this one, so that it is seen (Linux)."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 0)


def count_orphans(before: set[int]) -> int:
    """Processes below this one that are no ``before`` and do not end by themselves; they are killed."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while (left := _below(before)) and time.monotonic() < deadline:
        time.sleep(0.05)
    for process in left:
        os.kill(process.pid, signal.SIGKILL)
        _below(before)
    return len(left)


def _below(before: set[int]) -> list[psutil.Process]:
    alive = []
    for process in psutil.Process().children(recursive=True):
        try:
            if process.pid in before:
                continue
            if process.status() != psutil.STATUS_ZOMBIE:
                alive.append(process)
            elif process.ppid() == os.getpid():
                os.waitpid(process.pid, 0)
        except (psutil.NoSuchProcess, ChildProcessError):
            continue
    return alive


def processes_below() -> set[int]:
    """The ids of all processes below this one."""
    return {process.pid for process in psutil.Process().children(recursive=True)}
