"""The machine that a figure was taken on, and the most that its matrix unit gives."""

import os
import platform
from datetime import datetime, timezone
from typing import Any

import psutil
import torch

from benchmarks.timing import Contestant, clocked
from pair_pkg.modeling.precision import processor_name, supports_bfloat16
from pair_pkg.records import library_versions

CPU_SIDE, GPU_SIDE = 2048, 8192  # of the square matrices whose product is the ceiling
CPU_REPEATS, GPU_REPEATS = 12, 50


def describe_hardware(device: str = "cpu") -> dict[str, Any]:
    """Date, processor, cores, memory, threads, device and versions, for the JSON of a benchmark."""
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cpu": processor_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "torch_threads": torch.get_num_threads(),
        "bfloat16_in_hardware": supports_bfloat16(device),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "python": platform.python_version(),
        "versions": library_versions(),
    }


def matrix_product(dtype: torch.dtype, device: str = "cpu") -> Contestant:
    """Laps of square matrix products on all threads, in operations: their rate is the ceiling of ``dtype``."""
    side, repeats = (GPU_SIDE, GPU_REPEATS) if device == "cuda" else (CPU_SIDE, CPU_REPEATS)
    left, right = (torch.randn(side, side, dtype=dtype, device=device) for _ in range(2))
    out = torch.empty_like(left)

    def work() -> float:
        for _ in range(repeats):
            torch.mm(left, right, out=out)
        return 2.0 * side**3 * repeats

    return clocked(work)
