"""What a model must beat: the majority class, and similarities that nothing was learned for but one cut or line."""

# N training pairs, M test pairs, C classes

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from pair_pkg.pairs.metrics import BINARY, CLASSES
from pair_pkg.pairs.thresholds import ACCURACY, best_threshold


class Predicted(NamedTuple):
    """Predictions of the test pairs, as metrics take them, and the threshold that decides binary ones."""

    predictions: np.ndarray  # (M,), for classes (M, C)
    threshold: float | None = 0.5


class Similarity(NamedTuple):
    """How alike the texts of each pair are by some measure; of the training pairs a sample will do."""

    train: np.ndarray  # (N,)
    train_labels: np.ndarray  # (N,)
    test: np.ndarray  # (M,)


def baseline_predictions(
    kind: str,
    train_labels: np.ndarray,
    num_test: int,
    num_classes: int,
    similarities: Mapping[str, Similarity],
    decide_by: str = ACCURACY,
    wanted_precision: float | None = None,
) -> dict[str, Predicted]:
    """What trivial predictors say of the test pairs; nothing here sees a test label.

    "majority" predicts the share of each label in ``train_labels`` (for scores: their mean), whatever the texts say.
    Of every similarity (not for classes) binary pairs are cut at the threshold that is best on the training pairs for
    ``decide_by``, as the model's is on the validation pairs; for scores it is mapped linearly by least squares on them.

    >>> overlap = Similarity(np.array([0.2, 0.8]), np.array([0, 1]), np.array([0.9]))
    >>> baseline_predictions("binary", np.array([0, 1]), 1, 2, {"word_overlap": overlap})["word_overlap"].threshold
    0.5
    """
    if kind == CLASSES:
        shares = np.bincount(train_labels, minlength=num_classes) / len(train_labels)
        return {"majority": Predicted(np.tile(shares, (num_test, 1)))}
    # the mean of 0 and 1 is the share of label 1
    baselines = {"majority": Predicted(np.full(num_test, train_labels.mean()))}
    for name, similarity in similarities.items():
        if kind == BINARY:
            threshold = best_threshold(similarity.train, similarity.train_labels, decide_by, wanted_precision)
            baselines[name] = Predicted(similarity.test, threshold)
        else:
            slope, intercept = _least_squares(similarity.train, similarity.train_labels.astype(np.float64))
            baselines[name] = Predicted(slope * similarity.test + intercept)
    return baselines


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the line through (x, y); flat where ``x`` is constant."""
    centred = x - x.mean()
    variance = centred @ centred
    slope = centred @ (y - y.mean()) / variance if variance else 0.0
    return slope, y.mean() - slope * x.mean()
