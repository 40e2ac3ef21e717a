"""From which score on a pair counts as positive: fitted for accuracy, F1 or a wanted precision."""

# N pairs, K distinct scores; cut k says 1 to the pairs from the k-th lowest score on, cut K to none

from typing import NamedTuple

import numpy as np

ACCURACY, F1, PRECISION = "accuracy", "f1", "precision"
OBJECTIVES = (ACCURACY, F1, PRECISION)


class Threshold(NamedTuple):
    """Label 1 means ``score >= value``; ``reached`` is false where no cut has the wanted precision."""

    value: float
    reached: bool = True


def best_threshold(
    scores: np.ndarray, labels: np.ndarray, decide_by: str = ACCURACY, wanted_precision: float | None = None
) -> float:
    """The cut of scores of any range that is best for ``decide_by``: a midpoint between neighbouring scores.

    Of equally good cuts the lowest wins. A cut below (above) all scores says 1 (0) to every pair.

    >>> best_threshold(np.array([0.1, 0.3, 0.5, 0.9]), np.array([0, 0, 1, 1]))
    0.4
    """
    values, true, false = _counts(scores, labels)
    best = _best_cuts(true, false, decide_by, wanted_precision)[0]
    return _place(values, best[0], values[0] - 2, values[-1] + 2)


def fit_threshold(
    probabilities: np.ndarray, labels: np.ndarray, decide_by: str = ACCURACY, wanted_precision: float | None = None
) -> Threshold:
    """The cut of probabilities (N,) in [0, 1] that is best for ``decide_by`` on labels (N,); ties are never parted.

    - accuracy: the most pairs decided rightly
    - f1: the highest F1 of label 1
    - precision: the highest recall among the cuts whose precision is ``wanted_precision`` or more; where there is
      none, the highest precision, and of equal ones the highest recall

    Of equally good cuts the one nearest to 0.5 is taken, and 0.5 itself where it is one of them: few validation pairs
    leave many equally good cuts, and nothing in them speaks for an extreme one.

    >>> fit_threshold(np.array([0.1, 0.3, 0.7, 0.9]), np.array([0, 1, 0, 1]), "f1")
    Threshold(value=0.2, reached=True)
    >>> fit_threshold(np.array([0.1, 0.3, 0.7, 0.9]), np.array([0, 1, 0, 1]), "precision", 0.9)
    Threshold(value=0.8, reached=True)
    """
    values, true, false = _counts(probabilities, labels)
    best, reached = _best_cuts(true, false, decide_by, wanted_precision)
    edges = np.concatenate([[-np.inf], values, [np.inf]])
    if any(edges[cut] < 0.5 <= edges[cut + 1] for cut in best):
        return Threshold(0.5, reached)
    places = [_place(values, cut, 0.0, 1.0) for cut in best]
    return Threshold(min(places, key=lambda place: abs(place - 0.5)), reached)


def _counts(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores (K,), and the positives and the negatives that each cut says 1 to: (K + 1,) each."""
    values, positions = np.unique(scores, return_inverse=True)
    below = [np.append(0, np.bincount(positions, weights=side).cumsum()) for side in (labels == 1, labels != 1)]
    return values, below[0][-1] - below[0], below[1][-1] - below[1]


def _best_cuts(true: np.ndarray, false: np.ndarray, decide_by: str, wanted: float | None) -> tuple[np.ndarray, bool]:
    """The numbers of the best cuts, ascending, and whether the wanted precision is reached."""
    if decide_by == ACCURACY:
        merit = true - false  # correct decisions, but for a constant
    elif decide_by == F1:
        merit = 2 * true / np.maximum(true + false + true[0], 1)
    else:
        assert decide_by == PRECISION and wanted is not None, decide_by
        precision = true / np.maximum(true + false, 1)  # of the last cut, which says 1 to none: 0, never wanted
        enough = precision >= wanted
        if not enough.any():
            candidates = np.flatnonzero(precision == precision.max())
            return candidates[true[candidates] == true[candidates].max()], False
        merit = np.where(enough, true, -1)
        candidates = np.flatnonzero(merit == merit.max())
        return candidates[precision[candidates] == precision[candidates].max()], True
    return np.flatnonzero(merit == merit.max()), True


def _place(values: np.ndarray, cut: int, lowest: float, highest: float) -> float:
    """A number between the scores on both sides of a cut; scores lie between ``lowest`` and ``highest``."""
    below = values[cut - 1] if cut > 0 else lowest
    above = values[cut] if cut < len(values) else highest
    middle = (below + above) / 2
    if cut == len(values) and middle <= below:  # the highest score is the highest possible
        return float(np.nextafter(below, np.inf))
    return float(middle if middle > below or cut == 0 else above)  # neighbouring floats have nothing between them
