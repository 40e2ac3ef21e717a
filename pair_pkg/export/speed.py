"""How fast an export answers, beside float32: laps in turn, so that a busy machine slows both alike."""

import time
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import torch

from pair_pkg.export.gate import Run
from pair_pkg.export.rows import ProofRows
from pair_pkg.modeling.precision import processor_name

LENGTH = 64  # tokens of every timed row: a pair of short questions
LAPS = {1: 9, 32: 5}  # batch size -> laps, of which the median counts


@dataclass(frozen=True)
class Latency:
    """Milliseconds of one call, float32 and export."""

    float32_ms: float
    export_ms: float


def measure_latency(rows: ProofRows, float32: Run, export: Run) -> dict[int, Latency]:
    """The median of some laps at each batch size."""
    longest = max(range(len(rows.encoded)), key=lambda row: len(rows.encoded[row][0]))
    inputs = rows.collate(np.array([longest]))
    return {
        size: _alternate([np.repeat(values[:, :LENGTH], size, axis=0) for values in inputs], float32, export, laps)
        for size, laps in LAPS.items()
    }


def describe_machine() -> dict[str, Any]:
    """The processor and the threads that the figures of an export were taken with."""
    return {"cpu": processor_name(), "threads": torch.get_num_threads()}


def _alternate(inputs: list[np.ndarray], float32: Run, export: Run, laps: int) -> Latency:
    seconds: tuple[list[float], list[float]] = ([], [])
    for lap in range(laps + 1):
        for run, taken in zip((float32, export), seconds):
            begin = time.perf_counter()
            run(*inputs)
            if lap:  # the first is a warm-up
                taken.append(time.perf_counter() - begin)
    return Latency(*(1000 * median(taken) for taken in seconds))
