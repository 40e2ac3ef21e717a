"""How a score becomes a calibrated probability and a verdict; fitted on validation pairs, kept beside the weights."""

# N pairs, C classes

import dataclasses
import logging
import math
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import expit, logit, softmax

from pair_pkg.errors import InputError
from pair_pkg.pairs.calibration import fit_class_temperature, fit_temperature
from pair_pkg.pairs.metrics import BINARY, CLASSES
from pair_pkg.pairs.thresholds import ACCURACY, fit_threshold
from pair_pkg.records import read_json, write_json

logger = logging.getLogger(__name__)

DECISION_NAME = "decision.json"


@dataclass(frozen=True)
class Decision:
    """What was fitted on validation pairs.

    Binary labels: probability = sigmoid((score - center) / temperature), and label 1 from ``threshold`` on. ``score``
    is the logit margin of a cross-encoder (its one logit, or the second less the first; center 0 unless class weights
    moved it), or the cosine of a bi-encoder. Classes: probability = softmax(logits / temperature), and the most
    probable class.
    """

    kind: str  # binary or classes
    temperature: float
    center: float = 0.0
    threshold: float | None = None  # on the probability; binary only
    decide_by: str | None = None  # what the threshold is best for: accuracy, f1 or precision
    wanted_precision: float | None = None

    @property
    def score_threshold(self) -> float:
        """The threshold on the bare score; infinite where all pairs, or none, are positive."""
        return float(self.center + self.temperature * logit(min(self.threshold, 1.0)))

    def probability(self, scores: np.ndarray) -> np.ndarray:
        """Calibrated probabilities, float64: of label 1 from scores (N,), or of each class from logits (N, C)."""
        scores = np.asarray(scores, dtype=np.float64)
        if self.kind == BINARY:
            return expit((scores - self.center) / self.temperature)
        return softmax(scores / self.temperature, axis=-1)

    def decide(self, probabilities: np.ndarray) -> np.ndarray:
        """Class ids: (N,) or (N, C) probabilities -> (N,) int64."""
        if self.kind == BINARY:
            return (probabilities >= self.threshold).astype(np.int64)
        return probabilities.argmax(-1)


def plain_decision(kind: str) -> Decision:
    """A cross-encoder's own probabilities, and a threshold in the middle: what there is without validation pairs."""
    return Decision(kind, temperature=1.0, threshold=0.5 if kind == BINARY else None)


def fit_decision(
    kind: str,
    scores: np.ndarray,
    labels: np.ndarray,
    *,
    are_cosines: bool,
    with_center: bool = False,
    decide_by: str = ACCURACY,
    wanted_precision: float | None = None,
) -> Decision | None:
    """The decision that serves validation pairs best: scores (N,), or logits (N, C) of classes, and labels (N,).

    ``kind`` "scores" has none: such a score is the answer itself. Pairs that all have one label tell nothing about a
    threshold: the cross-encoder's own probabilities are kept then, and cosines have no decision. The center is fitted
    for cosines, and ``with_center`` for margins too, such as those that class weights have moved.
    """
    if kind not in (BINARY, CLASSES):
        return None
    if (labels == labels[0]).all():
        logger.warning(
            "all %d validation pairs have one label, so neither temperature nor threshold could be fitted; %s",
            len(labels),
            "a cosine is given as it is" if are_cosines else "the model's own probabilities are kept",
        )
        return None if are_cosines else plain_decision(kind)
    if kind == CLASSES:
        return Decision(kind, fit_class_temperature(scores, labels))
    center, temperature = fit_temperature(scores, labels, with_center=are_cosines or with_center)
    calibrated = Decision(kind, temperature, center)
    threshold, reached = fit_threshold(calibrated.probability(scores), labels, decide_by, wanted_precision)
    if not reached:
        logger.warning(
            "no threshold has the precision %g on the %d validation pairs; the one with the highest precision is taken",
            wanted_precision,
            len(labels),
        )
    return dataclasses.replace(calibrated, threshold=threshold, decide_by=decide_by, wanted_precision=wanted_precision)


def bare_probability(kind: str, scores: np.ndarray, are_cosines: bool) -> np.ndarray:
    """What scores say before calibration: sigmoid, softmax, or the cosine itself, negative ones as 0."""
    return np.clip(scores, 0, 1) if are_cosines else plain_decision(kind).probability(scores)


def save_decision(decision: Decision | None, folder: str | os.PathLike) -> None:
    """Write ``decision.json`` into a checkpoint's folder; None takes away that of an earlier run."""
    path = Path(folder) / DECISION_NAME
    if decision is None:
        path.unlink(missing_ok=True)
    else:
        write_json(path, dataclasses.asdict(decision))


def load_decision(folder: str | os.PathLike) -> Decision | None:
    """The decision in a checkpoint's folder, or None where there is none. Raises ``InputError`` where it is damaged."""
    path = Path(folder) / DECISION_NAME
    if not path.is_file():
        return None
    values = read_json(path)
    try:
        decision = Decision(**values)
        numbers = [decision.temperature, decision.center, *([decision.threshold] if decision.kind == BINARY else [])]
        usable = decision.kind in (BINARY, CLASSES) and all(map(math.isfinite, numbers)) and decision.temperature > 0
    except (TypeError, OverflowError):
        usable = False
    if not usable:
        raise InputError(f"{path}: is no decision; restore it from a copy, or fine-tune again")
    return decision
