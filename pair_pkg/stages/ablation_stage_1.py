"""What stage 1 measured of each variant of an ablation."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.records import read_record
from pair_pkg.report.numbers import format_value

METRICS = ("perplexity", "general_perplexity", "probe")


def stage_1_figures(folders: Sequence[Path]) -> dict[str, Any]:
    """Metrics before and after, a list over the folders (seeds) each, and how far the weights moved, by layer."""
    metrics = [read_record(folder)["metrics"] for folder in folders]
    figures: dict[str, Any] = {"weight_movement": [part["weight_movement"] for part in metrics]}
    for name in METRICS:
        key = f"eval_{name}"
        if all(key in part and key in part.get("before", {}) for part in metrics):
            before, after = [part["before"][key] for part in metrics], [part[key] for part in metrics]
            figures[name] = {"before": before, "after": after}
    return figures


def stage_1_table(figures: dict[str, dict[str, Any]], table: Callable[..., str]) -> str:
    """A line for each variant: means over seeds, before and after, and the movement of the encoder's top layer."""
    names = [name for name in METRICS if any(name in part for part in figures.values())]
    header = ["stage 1", *(f"{name.replace('_', ' ')}: before, after" for name in names), "top layer moved by"]
    rows = [
        [variant, *(_change(part.get(name), name) for name in names), f"{_top_layer(part['weight_movement']):.3f}"]
        for variant, part in figures.items()
    ]
    return table(header, rows, "l" + "r" * (len(header) - 1))


def _change(values: dict[str, list[float]] | None, name: str) -> str | None:
    if values is None:
        return None
    return ", ".join(format_value(name, float(np.mean(values[when]))) for when in ("before", "after"))


def _top_layer(movement: Sequence[dict[str, float]]) -> float:
    return float(np.mean([[share for part, share in moved.items() if part != "head"][-1] for moved in movement]))
