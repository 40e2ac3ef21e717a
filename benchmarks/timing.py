"""Contestants measured in turn in one process, so that a noisy machine slows all of them alike."""

import multiprocessing
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm.auto import tqdm

STATUS_PATH = Path("/proc/self/status")

Clock = Callable[[], float]


@dataclass(frozen=True)
class Lap:
    """Work done in one turn of a contestant: ``units`` (tokens, pairs, bytes) in ``seconds``."""

    units: float
    seconds: float

    @property
    def rate(self) -> float:
        """Units a second."""
        return self.units / self.seconds


Contestant = Callable[[], Lap]


@dataclass(frozen=True)
class Laps:
    """The laps of every contestant, those of one round at one place of their lists."""

    by_name: dict[str, list[Lap]]

    def rate(self, name: str) -> float:
        """Median units a second."""
        return median(lap.rate for lap in self.by_name[name])

    def ratio(self, name: str, peer: str) -> float:
        """How many times faster than ``peer``: the median over rounds of the two rates of one round."""
        return median(ours.rate / theirs.rate for ours, theirs in zip(self.by_name[name], self.by_name[peer]))

    def to_json(self) -> dict[str, list[float]]:
        """Units a second of each round."""
        return {name: [round(lap.rate, 3) for lap in laps] for name, laps in self.by_name.items()}


def alternate(contestants: Mapping[str, Contestant], rounds: int, warm_up_rounds: int = 0) -> Laps:
    """Give every contestant its turn, ``rounds`` times, every other round in the opposite order.

    So a drift of the machine within a round favours nobody. Laps of ``warm_up_rounds`` are not counted.
    """
    assert rounds > 0 and contestants, "nothing to measure"
    by_name: dict[str, list[Lap]] = {name: [] for name in contestants}
    names = list(contestants)
    with tqdm(total=(warm_up_rounds + rounds) * len(names), desc="measuring", leave=False, disable=None) as progress:
        for number in range(warm_up_rounds + rounds):
            for name in names if number % 2 == 0 else reversed(names):
                lap = contestants[name]()
                if number >= warm_up_rounds:
                    by_name[name].append(lap)
                progress.update()
    return Laps(by_name)


def clocked(work: Callable[[], float], clock: Clock = time.perf_counter) -> Contestant:
    """A contestant whose whole ``work`` is timed; ``work`` returns the units that it did."""

    def lap() -> Lap:
        begin = synchronized(clock)
        units = work()
        return Lap(units, synchronized(clock) - begin)

    return lap


def synchronized(clock: Clock = time.perf_counter) -> float:
    """The time once the device has done what it was asked for."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return clock()


def call_in_subprocess(function: Callable[..., Any], **arguments: Any) -> tuple[Any, int]:
    """Call a module's function in a fresh interpreter: (its value, peak bytes of that process)."""
    with ProcessPoolExecutor(max_workers=1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_with_peak, function, arguments).result()


def peak_bytes() -> int:
    """Most resident memory of this process so far.

    Linux hands ``ru_maxrss`` down from the process that started this one, which may have been larger, so its own
    high-water mark is read where there is one.
    """
    if STATUS_PATH.is_file():
        return _status_bytes("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def mapped_file_bytes() -> int:
    """Memory of this process that holds pages of files; 0 where the system does not say."""
    return _status_bytes("RssFile") if STATUS_PATH.is_file() else 0


def _status_bytes(name: str) -> int:
    line = next(line for line in STATUS_PATH.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _with_peak(function: Callable[..., Any], arguments: dict[str, Any]) -> tuple[Any, int]:
    return function(**arguments), peak_bytes()
