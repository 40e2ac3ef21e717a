"""What a training took of the machine: tokens, memory, and the processors' energy where the kernel tells it."""

import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

try:
    import resource
except ImportError:  # Windows
    resource = None

POWERCAP = Path("/sys/class/powercap")  # Linux; root alone may read it on most machines


class EnergyMeter(TrainerCallback):
    """Joules of all processor packages since the training began, whoever used them; None where nobody tells.

    The counters begin anew every half hour or so of full load, so they are read at every step.
    """

    def __init__(self, root: Path = POWERCAP):
        self.packages = [path for path in sorted(root.glob("intel-rapl:*")) if path.name.count(":") == 1]
        self.joules: float | None = None
        self.last: list[int] = []

    def on_train_begin(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        self.last = self._read()
        self.joules = 0.0 if self.last else None

    def on_step_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        if self.joules is not None:
            now, ranges = self._read(), self._read("max_energy_range_uj")
            if not now or not ranges:
                self.joules = None
                return
            steps = ((new - old) % span for new, old, span in zip(now, self.last, ranges))
            self.joules += sum(steps) / 1e6
            self.last = now

    def _read(self, name: str = "energy_uj") -> list[int]:
        """A counter of every package in microjoules; empty where one cannot be read."""
        try:
            return [int((package / name).read_text()) for package in self.packages]
        except (OSError, ValueError):
            return []


def peak_memory() -> dict[str, int]:
    """The most bytes that this process has held so far, and that its tensors have held on a GPU."""
    found = {}
    if resource is not None:
        unit = 1 if sys.platform == "darwin" else 1024  # of ru_maxrss
        found["peak_memory_bytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    if torch.cuda.is_available():
        found["peak_gpu_memory_bytes"] = torch.cuda.max_memory_allocated()
    return found
