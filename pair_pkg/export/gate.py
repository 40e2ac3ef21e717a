"""The proof that an export says what PyTorch says in float32: outputs, verdicts, the metric, and which layer moved."""

# R rows, P pairs, L labelled pairs, C classes

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

from pair_pkg.columns import BI_ENCODER
from pair_pkg.errors import InputError
from pair_pkg.export.rows import ProofRows
from pair_pkg.export.source import Finished
from pair_pkg.pairs.metrics import BINARY, SCORES, compute_pair_metrics

Run = Callable[..., np.ndarray]  # the graph's inputs (B, T) int64 -> (B,), (B, C) or (B, D) float32

EXACT = 1e-4  # largest difference of a float32 format; of scores, in parts of their range
TIE = 1e-6  # two float32 programs may round a probability this close to the threshold to either side
DEFAULT_TOLERANCE = 0.5  # points of the task's metric that half precision and int8 may lose
NUM_NAMED_LAYERS = 3


@dataclass(frozen=True)
class Scored:
    """What a program makes of all rows, and how long it took."""

    outputs: np.ndarray  # (R, ...) float32
    predictions: np.ndarray  # (P,) or (P, C): probabilities, scores, or cosines without a decision
    decided: np.ndarray | None  # (P,) class ids
    seconds: float


@dataclass(frozen=True)
class Comparison:
    """An export beside float32."""

    pairs: int
    labelled_pairs: int
    largest_difference: float | None  # of an output; None where one is not finite
    worst_row: int
    changed_verdicts: int | None  # None where there is no decision
    metric: str
    metric_float32: float | None
    metric_export: float | None  # None where one is not finite, or all predictions are equal and are to be ranked

    @property
    def loss(self) -> float | None:
        """Points (hundredths) of the metric that are lost."""
        return None if self.metric_export is None else 100 * (self.metric_float32 - self.metric_export)

    def failures(self, exact: bool, tolerance: float) -> list[str]:
        """Why the export must not be used; empty where it may."""
        if self.largest_difference is None:
            return [f"row {self.worst_row} gives NaN or infinity"]
        found = []
        if exact and self.largest_difference > EXACT:
            found.append(f"outputs differ by up to {self.largest_difference:.2g}, more than {EXACT:g}")
        if exact and self.changed_verdicts:
            found.append(f"{self.changed_verdicts} of {self.pairs:,} verdicts changed")
        if not exact and self.loss is None:
            found.append(f"{self.metric} is undefined, as all predictions of one side are equal")
        elif not exact and not self.loss <= tolerance:  # NaN is not
            found.append(f"{self.metric} fell by {self.loss:.2f} points, more than --tolerance {tolerance:g}")
        return found


def score_rows(finished: Finished, rows: ProofRows, run: Run) -> Scored:
    """Run all batches of the proof."""
    parts, begin = [], time.perf_counter()
    for batch in rows.batches:
        parts.append(run(*rows.collate(batch)))
    seconds = time.perf_counter() - begin
    outputs = np.empty((len(rows.encoded), *parts[0].shape[1:]), np.float32)
    for batch, part in zip(rows.batches, parts):
        outputs[batch] = part
    predictions = _predictions(finished, rows, outputs)
    decided = finished.decision.decide(predictions) if finished.decision else None
    return Scored(outputs, predictions, decided, seconds)


def run_of(module: Callable[..., Tensor]) -> Run:
    """A torch module as a function of arrays."""

    def run(*inputs: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return module(*map(torch.from_numpy, inputs)).float().numpy()

    return run


def compare(finished: Finished, rows: ProofRows, float32: Scored, export: Scored) -> Comparison:
    """An export's outputs beside float32's."""
    scale = finished.scheme.high - finished.scheme.low if _are_scores(finished) else 1.0
    gaps = np.abs(export.outputs - float32.outputs).reshape(len(float32.outputs), -1).max(1) / scale
    finite = bool(np.isfinite(gaps).all())
    worst = int(gaps.argmax()) if finite else int(np.flatnonzero(~np.isfinite(gaps))[0])
    name, before, after = _metric(finished, rows, float32, export) if finite else ("", None, None)
    return Comparison(
        pairs=len(rows.pairs),
        labelled_pairs=0 if rows.labels is None else len(rows.labels),
        largest_difference=float(gaps[worst]) if finite else None,
        worst_row=worst,
        changed_verdicts=_changed(finished, float32, export),
        metric=name,
        metric_float32=before,
        metric_export=after,
    )


def module_norms(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, np.ndarray]:
    """What each layer normalization gives, by its name, in the order of execution."""
    found: dict[str, np.ndarray] = {}
    hooks = [
        part.register_forward_hook(lambda _, __, output, name=name: found.__setitem__(name, output.float().numpy()))
        for name, part in module.named_modules()
        if isinstance(part, nn.LayerNorm)
    ]
    try:
        with torch.no_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def layer_drift(float32: dict[str, np.ndarray], export: list[np.ndarray]) -> dict[str, float]:
    """How far each layer's output lies from float32's, as a share of its size."""
    if len(float32) != len(export):
        return {}  # an exporter that split or merged a normalization shows no such layers
    return {
        name: float(np.linalg.norm(values - expected) / max(float(np.linalg.norm(expected)), 1e-12))
        for (name, expected), values in zip(float32.items(), export)
    }


def moved_layers(drift: dict[str, float]) -> str:
    """The layers at which the distance grew most, in words.

    >>> moved_layers({"embeddings": 0.0, "layer.0": 0.25, "layer.1": 0.26})
    'layer.0 (25 % off float32, 0 % before it), layer.1 (26 % off float32, 25 % before it)'
    """
    names = list(drift)
    before = dict(zip(names, [0.0, *drift.values()]))
    jumps = sorted((name for name in names if drift[name] > before[name]), key=lambda name: before[name] - drift[name])
    shown = (
        f"{name} ({100 * drift[name]:.2g} % off float32, {100 * before[name]:.2g} % before it)"
        for name in jumps[:NUM_NAMED_LAYERS]
    )
    return ", ".join(shown)


def _predictions(finished: Finished, rows: ProofRows, outputs: np.ndarray) -> np.ndarray:
    if finished.architecture != BI_ENCODER:
        return outputs[rows.pairs[:, 0]].astype(np.float64)
    one, other = (outputs[rows.pairs[:, side]].astype(np.float64) for side in (0, 1))
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(1) / np.maximum(norms, 1e-12)
    return finished.decision.probability(cosines) if finished.decision else cosines


def _changed(finished: Finished, float32: Scored, export: Scored) -> int | None:
    """Verdicts that differ, ties at the threshold apart."""
    if finished.decision is None:
        return None
    differs = float32.decided != export.decided
    if finished.decision.kind == BINARY:
        tied = np.abs(float32.predictions - finished.decision.threshold) < TIE
    else:
        tied = np.ptp(np.sort(float32.predictions, axis=1)[:, -2:], axis=1) < TIE
    return int((differs & ~tied).sum())


def _metric(
    finished: Finished, rows: ProofRows, float32: Scored, export: Scored
) -> tuple[str, float | None, float | None]:
    """The task's metric on labelled pairs; without labels, how far the export agrees with float32."""
    if rows.labels is None:
        if finished.decision:
            return "agreement", 1.0, float((float32.decided == export.decided).mean())
        constant = min(np.ptp(float32.predictions), np.ptp(export.predictions)) == 0
        after = None if constant else float(spearmanr(float32.predictions, export.predictions).statistic)
        return "rank correlation", 1.0, after
    kind, threshold = rows.kind, finished.decision.threshold if finished.decision else None
    name = "spearman" if kind == SCORES else ("accuracy" if finished.decision else "average_precision")
    num = len(rows.labels)
    ours, theirs = (
        compute_pair_metrics(kind, scored.predictions[:num], rows.labels, threshold) for scored in (float32, export)
    )
    if ours[name] is None:
        reason = ours["undefined"][name]
        raise InputError(f"--validation: {name} is undefined on these pairs ({reason}); give pairs of several labels")
    return name, ours[name], theirs[name]


def _are_scores(finished: Finished) -> bool:
    return finished.output_name == "score"


def to_json(comparison: Comparison, drift: dict[str, float]) -> dict[str, Any]:
    """A comparison for ``export.json``."""
    values: dict[str, Any] = {name: getattr(comparison, name) for name in comparison.__dataclass_fields__}
    return {**values, "loss_points": comparison.loss, "layer_drift": drift}
