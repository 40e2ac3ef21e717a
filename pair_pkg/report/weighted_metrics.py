"""The pair metrics on thousands of resamples at once: a resample says how often it drew each pair.

Each metric maps predictions, labels (N,), weights (R, N) -> (R,), with NaN where a resample does not define it.
Row r of ``weights`` counts how often resample r holds each pair; the value is what sklearn and scipy give on the
pairs repeated that often. Sorting and ranking is done once for all resamples.
"""

from collections.abc import Callable

import numpy as np

from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES

# R resamples, N pairs, K distinct values, C classes
WeightedMetric = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def accuracy(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Binary predictions (N,) are decided at 0.5, class predictions (N, C) by the highest; so in all metrics here.

    >>> accuracy(np.array([0.9, 0.2]), np.array([1, 1]), np.array([[1, 1], [2, 0], [0, 2]])).tolist()
    [0.5, 1.0, 0.0]
    """
    return _ratio(weights @ (_decide(predictions) == labels), weights.sum(axis=1))


def f1(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _f1_of_class(1, _decide(predictions), labels, weights)


def precision(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    decided = _decide(predictions) == 1
    return _ratio(weights @ (decided & (labels == 1)), weights @ decided)


def recall(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    positive = labels == 1
    return _ratio(weights @ (positive & (_decide(predictions) == 1)), weights @ positive)


def macro_f1(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The mean over the classes that the resample holds, as a label or as a prediction."""
    decided = _decide(predictions)
    by_class = np.stack([_f1_of_class(k, decided, labels, weights) for k in np.union1d(decided, labels)])  # (K, R)
    return _ratio(np.nansum(by_class, axis=0), (~np.isnan(by_class)).sum(axis=0))


def mcc(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Matthews' correlation for two or more classes (Gorodkin, 2004)."""
    decided = _decide(predictions)
    classes = np.union1d(decided, labels)
    decided_counts = weights @ (decided[:, None] == classes)  # (R, K)
    label_counts = weights @ (labels[:, None] == classes)  # (R, K)
    total = weights.sum(axis=1)
    covariance = (weights @ (decided == labels)) * total - (decided_counts * label_counts).sum(axis=1)
    decided_variance = total**2 - (decided_counts**2).sum(axis=1)
    label_variance = total**2 - (label_counts**2).sum(axis=1)
    return _ratio(covariance, np.sqrt(decided_variance * label_variance))


def roc_auc(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The share of (label 1, label 0) couples in the right order; a tie counts half."""
    positives, negatives = _counts_by_score(predictions, labels, weights)  # (R, K), highest score first
    positives_above = positives.cumsum(axis=1) - positives
    ordered = (negatives * (positives_above + positives / 2)).sum(axis=1)
    return _ratio(ordered, positives.sum(axis=1) * negatives.sum(axis=1))


def average_precision(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Precision at each distinct score, weighted by the positives found there."""
    positives, negatives = _counts_by_score(predictions, labels, weights)
    found, false = positives.cumsum(axis=1), negatives.cumsum(axis=1)
    precisions = found / np.maximum(found + false, 1)  # above the first drawn pair: 0 positives, whatever the precision
    total_negatives = false[:, -1]
    value = _ratio((positives * precisions).sum(axis=1), found[:, -1])
    return np.where(total_negatives > 0, value, np.nan)  # as in roc_auc: a ranking needs both labels


def pearson(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    x, y = predictions - predictions.mean(), labels - labels.mean()  # near 0 the differences below keep their digits
    moments = weights @ np.stack([x, y, x * x, y * y, x * y], axis=1) / weights.sum(axis=1, keepdims=True)
    mean_x, mean_y, mean_xx, mean_yy, mean_xy = moments.T
    variance_x, variance_y = mean_xx - mean_x**2, mean_yy - mean_y**2
    constant = (variance_x <= 1e-12 * mean_xx) | (variance_y <= 1e-12 * mean_yy)  # what rounding leaves of 0
    scale = np.where(constant, 0.0, variance_x * variance_y)
    return _ratio(mean_xy - mean_x * mean_y, np.sqrt(scale))


def spearman(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    x, y = _centred_ranks(predictions, weights), _centred_ranks(labels, weights)  # (R, N) each
    covariance = np.einsum("rn,rn,rn->r", weights, x, y)
    scale = np.einsum("rn,rn,rn->r", weights, x, x) * np.einsum("rn,rn,rn->r", weights, y, y)
    return _ratio(covariance, np.sqrt(scale))


def mean_squared_error(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return _ratio(weights @ (predictions - labels) ** 2, weights.sum(axis=1))


WEIGHTED_METRICS: dict[str, dict[str, WeightedMetric]] = {
    BINARY: {
        "accuracy": accuracy,
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "average_precision": average_precision,
        "roc_auc": roc_auc,
        "mcc": mcc,
    },
    CLASSES: {"accuracy": accuracy, "macro_f1": macro_f1, "mcc": mcc},
    SCORES: {"pearson": pearson, "spearman": spearman, "mean_squared_error": mean_squared_error},
}


def _decide(predictions: np.ndarray) -> np.ndarray:
    return predictions.argmax(axis=1) if predictions.ndim == 2 else (predictions >= 0.5).astype(int)


def _f1_of_class(k: int, decided: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    hits = weights @ ((decided == k) & (labels == k))
    return _ratio(2 * hits, weights @ (decided == k) + weights @ (labels == k))


def _ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide, with NaN where the denominator is 0: that resample does not define the metric."""
    undefined = np.full(np.shape(numerator), np.nan)
    return np.divide(numerator, denominator, out=undefined, where=denominator != 0)


def _counts_by_score(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How many positives and negatives of each resample have each distinct score, highest first: 2 x (R, K)."""
    order = np.argsort(-predictions, kind="stable")
    starts = _tie_starts(predictions[order])
    ordered = weights[:, order]
    all_counts = np.add.reduceat(ordered, starts, axis=1)
    positives = np.add.reduceat(ordered * (labels[order] == 1), starts, axis=1)
    return positives, all_counts - positives


def _centred_ranks(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Each pair's rank in each resample, less the mean rank: (R, N); tied pairs share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    starts = _tie_starts(values[order])
    counts = np.add.reduceat(weights[:, order], starts, axis=1)  # (R, K)
    # The ranks of a tie group run from below + 1 to below + count; the mean rank of all is (total + 1) / 2.
    ranks = counts.cumsum(axis=1) - counts / 2 - counts.sum(axis=1, keepdims=True) / 2
    group_of_pair = np.empty(len(values), dtype=int)
    group_of_pair[order] = np.repeat(np.arange(len(starts)), np.diff(np.append(starts, len(values))))
    return ranks[:, group_of_pair]


def _tie_starts(ordered: np.ndarray) -> np.ndarray:
    """Where each run of equal values begins.

    >>> _tie_starts(np.array([1, 1, 2, 5, 5])).tolist()
    [0, 2, 3]
    """
    return np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
