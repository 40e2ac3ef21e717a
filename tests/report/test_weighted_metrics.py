"""A weighted metric equals sklearn's and scipy's on the pairs repeated as often as the weights say."""

import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn_metrics

from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, compute_pair_metrics
from pair_pkg.report.weighted_metrics import WEIGHTED_METRICS, pearson

NUM_PAIRS, NUM_RESAMPLES = 60, 40


def draw(kind, seed):
    """Predictions with ties, labels and the weights of resamples, some of them few pairs."""
    rng = np.random.default_rng(seed)
    if kind == BINARY:
        predictions, labels = rng.integers(0, 11, NUM_PAIRS) / 10, rng.integers(0, 2, NUM_PAIRS)
    elif kind == CLASSES:
        predictions, labels = rng.dirichlet([1, 1, 1, 1], NUM_PAIRS), rng.integers(0, 3, NUM_PAIRS)
    else:
        labels = rng.integers(0, 6, NUM_PAIRS).astype(float)
        predictions = labels + rng.integers(-3, 4, NUM_PAIRS) + 1e6  # a shift that a naive variance loses digits to
    return predictions, labels, rng.multinomial(NUM_PAIRS, np.full(NUM_PAIRS, 1 / NUM_PAIRS), NUM_RESAMPLES) * 1.0


ORACLES = {
    (BINARY, "accuracy"): lambda p, y: sklearn_metrics.accuracy_score(y, p >= 0.5),
    (BINARY, "f1"): lambda p, y: sklearn_metrics.f1_score(y, p >= 0.5),
    (BINARY, "precision"): lambda p, y: sklearn_metrics.precision_score(y, p >= 0.5),
    (BINARY, "recall"): lambda p, y: sklearn_metrics.recall_score(y, p >= 0.5),
    (BINARY, "average_precision"): lambda p, y: sklearn_metrics.average_precision_score(y, p),
    (BINARY, "roc_auc"): lambda p, y: sklearn_metrics.roc_auc_score(y, p),
    (BINARY, "mcc"): lambda p, y: sklearn_metrics.matthews_corrcoef(y, p >= 0.5),
    (CLASSES, "accuracy"): lambda p, y: sklearn_metrics.accuracy_score(y, p.argmax(1)),
    (CLASSES, "macro_f1"): lambda p, y: sklearn_metrics.f1_score(y, p.argmax(1), average="macro"),
    (CLASSES, "mcc"): lambda p, y: sklearn_metrics.matthews_corrcoef(y, p.argmax(1)),
    (SCORES, "pearson"): lambda p, y: stats.pearsonr(p, y).statistic,
    (SCORES, "spearman"): lambda p, y: stats.spearmanr(p, y).statistic,
    (SCORES, "mean_squared_error"): lambda p, y: sklearn_metrics.mean_squared_error(y, p),
}


def test_every_weighted_metric_has_an_oracle():
    assert set(ORACLES) == {(kind, name) for kind, metrics in WEIGHTED_METRICS.items() for name in metrics}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind, name", ORACLES)
def test_weights_are_repetitions(kind, name, seed):
    predictions, labels, weights = draw(kind, seed)
    measured = WEIGHTED_METRICS[kind][name](predictions, labels, weights)
    for value, counts in zip(measured, weights.astype(int)):
        repeated = ORACLES[kind, name](np.repeat(predictions, counts, axis=0), np.repeat(labels, counts))
        assert value == pytest.approx(repeated, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("kind", WEIGHTED_METRICS)
def test_unit_weights_give_the_reported_metrics(kind):
    predictions, labels, _ = draw(kind, seed=7)
    reported = compute_pair_metrics(kind, predictions, labels)
    for name, metric in WEIGHTED_METRICS[kind].items():
        assert metric(predictions, labels, np.ones((1, NUM_PAIRS)))[0] == pytest.approx(
            reported[name], rel=1e-9, abs=1e-9
        ), name


@pytest.mark.parametrize(
    "kind, predictions, labels",
    [
        (BINARY, [0.9, 0.1, 0.2], [0, 0, 0]),
        (BINARY, [0.1, 0.1, 0.2], [0, 0, 0]),
        (BINARY, [0.1, 0.2, 0.3], [0, 1, 1]),
        (BINARY, [0.8, 0.9, 0.7], [1, 1, 1]),
        (CLASSES, [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4]], [0, 1, 1]),
        (CLASSES, [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [1, 1, 1]),
        (SCORES, [0.3, 0.3, 0.3], [1, 2, 3]),
        (SCORES, [1, 2, 3], [4.1, 4.1, 4.1]),
    ],
)
def test_undefined_in_the_report_is_nan_in_a_resample_without_a_warning(kind, predictions, labels):
    reported = compute_pair_metrics(kind, predictions, labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name, metric in WEIGHTED_METRICS[kind].items():
            value = metric(np.array(predictions), np.array(labels), np.ones((1, 3)))[0]
            assert np.isnan(value) == (reported[name] is None), name


def test_resample_that_holds_one_prediction_only_has_no_correlation_in_spite_of_rounding():
    rng = np.random.default_rng(0)
    predictions, labels = np.append(np.full(30, 0.1), 0.7), rng.random(31)
    weights = np.append(rng.integers(0, 4, (200, 30)), np.zeros((200, 1)), axis=1)  # the 0.7 is never drawn
    assert np.isnan(pearson(predictions, labels, weights)).all()
    assert np.isnan(pearson(labels, predictions, weights)).all()
