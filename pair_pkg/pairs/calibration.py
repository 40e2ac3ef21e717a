"""Probabilities that mean what they say: a temperature fitted on validation pairs, and how far off they still are."""

# N pairs, C classes

import numpy as np
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

NUM_BINS = 15  # of equal width, as Guo et al. (ICML 2017) count the expected calibration error
SHARPNESS_BOUNDS = (0.01, 100.0)  # times 1 / the spread of the scores: beyond, a fit says nothing about its pairs


def fit_temperature(scores: np.ndarray, labels: np.ndarray, *, with_center: bool) -> tuple[float, float]:
    """(center, temperature) such that sigmoid((score - center) / temperature) has the least log loss on these pairs.

    The targets are Platt's (1999), (P + 1) / (P + 2) and 1 / (Q + 2) for P positives and Q negatives, in place of 1
    and 0: so few pairs, and pairs that the scores part perfectly, do not make every probability 0 or 1. The
    temperature stays within ``SHARPNESS_BOUNDS``, so it is positive: the order of the scores is never turned. Without
    ``with_center`` the center is 0.
    """
    middle = scores.mean() if with_center else 0.0
    spread = np.sqrt(np.mean((scores - middle) ** 2)) or 1.0
    standard = (scores - middle) / spread
    positives, negatives = (labels == 1).sum(), (labels != 1).sum()
    targets = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

    def loss_and_gradient(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        logits = parameters[0] * standard + parameters[1]
        slope = expit(logits) - targets
        return np.mean(np.logaddexp(0, logits) - targets * logits), np.array([np.mean(slope * standard), slope.mean()])

    offset_bounds = (None, None) if with_center else (0.0, 0.0)
    found = minimize(
        loss_and_gradient, [1.0, 0.0], jac=True, method="L-BFGS-B", bounds=[SHARPNESS_BOUNDS, offset_bounds],
        options={"ftol": 1e-14, "gtol": 1e-9},
    )  # fmt: skip
    sharpness, offset = found.x
    temperature = spread / sharpness
    return float(middle - offset * temperature), float(temperature)


def fit_class_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The temperature such that softmax(logits / temperature) has the least log loss: (N, C), class ids (N,).

    As in ``fit_temperature`` the targets keep off 0 and 1: (N + 1) / (N + C) for the true class, 1 / (N + C) for
    each other one.
    """
    num_pairs, num_classes = logits.shape
    centred = logits - logits.mean(1, keepdims=True)
    spread = centred.std() or 1.0
    standard = centred / spread
    true = standard[np.arange(num_pairs), labels]
    share = num_pairs / (num_pairs + num_classes)  # of the true class, beyond the equal share of every class

    def loss(log_sharpness: float) -> float:
        sharpness = np.exp(log_sharpness)  # the rows' sums are 0, so the equal shares add nothing
        return np.mean(logsumexp(sharpness * standard, axis=1) - share * sharpness * true)

    found = minimize_scalar(loss, bounds=np.log(SHARPNESS_BOUNDS), method="bounded", options={"xatol": 1e-9})
    return float(spread / np.exp(found.x))


def calibration_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """How well probabilities fit labels (N,): of label 1, (N,), or one a class, (N, C).

    - ece: the expected calibration error over ``NUM_BINS`` bins of equal width. Binary: the probability of label 1
      against the share of label 1. Classes: the highest probability against the share of right decisions.
    - brier: the mean squared error of the probabilities (Brier, 1950); of classes summed over them.
    - log_loss: the mean of -log of the probability of the true label, which is cut at 1e-15.
    - mean_confidence, hit_fraction: the means of what the ece compares by bins, over all pairs. Binary: the mean
      probability of label 1, and its share.
    """
    if probabilities.ndim == 1:
        confidence, hits, true = probabilities, labels == 1, np.where(labels == 1, probabilities, 1 - probabilities)
        brier = np.mean((probabilities - hits) ** 2)
    else:
        confidence, hits = probabilities.max(1), probabilities.argmax(1) == labels
        wanted = np.eye(probabilities.shape[1])[labels]
        brier, true = np.mean(((probabilities - wanted) ** 2).sum(1)), probabilities[np.arange(len(labels)), labels]
    return {
        "ece": expected_calibration_error(confidence, hits),
        "brier": float(brier),
        "log_loss": float(-np.log(np.maximum(true, 1e-15)).mean()),
        "mean_confidence": float(confidence.mean()),
        "hit_fraction": float(hits.mean()),
    }


def expected_calibration_error(confidence: np.ndarray, hits: np.ndarray, num_bins: int = NUM_BINS) -> float:
    """Mean distance of confidence (N,) in [0, 1] and share of hits (N,), over bins of equal width, by their pairs.

    >>> round(expected_calibration_error(np.array([0.9, 0.9, 0.1, 0.1]), np.array([1, 0, 0, 0])), 6)
    0.25
    """
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=confidence - hits, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(confidence))
