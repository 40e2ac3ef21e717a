"""Pair metrics: known answers by hand, undefined metrics, and evaluate's interface without files."""

import json
import math

import numpy as np
import pytest

from pair_pkg.errors import InputError, TrainingFailure
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, PairMetrics, compute_pair_metrics, format_accuracy


def test_binary_metrics_are_those_computed_by_hand():
    # decided 1 1 0 0 1 0: tp 2, fp 1, fn 1, tn 2
    result = compute_pair_metrics(BINARY, [0.9, 0.8, 0.4, 0.1, 0.5, 0.2], [1, 1, 1, 0, 0, 0])
    assert (result["correct"], result["total"], result["accuracy"]) == (4, 6, 4 / 6)
    assert result["precision"] == result["recall"] == pytest.approx(2 / 3)
    assert result["f1"] == pytest.approx(2 / 3)
    assert result["mcc"] == pytest.approx((2 * 2 - 1 * 1) / 9)
    assert result["roc_auc"] == pytest.approx(8 / 9)  # of 9 couples only (0.4, 0.5) is in the wrong order
    assert result["average_precision"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    assert result["undefined"] == {}


def test_threshold_moves_decisions_and_not_the_ranking():
    predictions, labels = [0.9, 0.6, 0.55, 0.1], [1, 0, 1, 0]
    low, high = (compute_pair_metrics(BINARY, predictions, labels, threshold) for threshold in (0.5, 0.6))
    assert (low["correct"], high["correct"]) == (3, 2)  # the prediction at the threshold says 1
    assert low["roc_auc"] == high["roc_auc"] and low["average_precision"] == high["average_precision"]


def test_ranking_metrics_do_not_depend_on_the_order_of_tied_pairs():
    predictions, labels = np.array([0.5] * 6 + [0.7, 0.2]), np.array([1, 0, 0, 1, 0, 0, 1, 0])
    order = np.array([5, 4, 2, 1, 0, 3, 7, 6])
    one = compute_pair_metrics(BINARY, predictions, labels)
    assert one == compute_pair_metrics(BINARY, predictions[order], labels[order])
    assert compute_pair_metrics(BINARY, np.full(8, 0.5), labels)["roc_auc"] == 0.5
    assert compute_pair_metrics(BINARY, np.full(8, 0.5), labels)["average_precision"] == pytest.approx(3 / 8)


def test_class_metrics_are_those_computed_by_hand():
    # decided 0 1 2 1 for labels 0 1 1 1: F1 of the classes 1, 0.8 and 0
    predictions = [[0.8, 0.1, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6], [0.0, 1.0, 0.0]]
    result = compute_pair_metrics(CLASSES, predictions, [0, 1, 1, 1])
    assert (result["accuracy"], result["correct"], result["total"]) == (0.75, 3, 4)
    assert result["macro_f1"] == pytest.approx((1 + 0.8 + 0) / 3)
    assert result["mcc"] == pytest.approx(5 / math.sqrt((16 - 6) * (16 - 10)))


def test_score_metrics_are_those_computed_by_hand():
    result = compute_pair_metrics(SCORES, [1.0, 2.0, 3.0, 10.0], [0.0, 1.0, 2.0, 3.0])
    assert result["spearman"] == pytest.approx(1)
    assert result["pearson"] == pytest.approx(14 / math.sqrt(5 * 50))
    assert result["mean_squared_error"] == pytest.approx((1 + 1 + 1 + 49) / 4)


def test_pearson_ignores_scale_and_shift_and_spearman_any_growing_map():
    rng = np.random.default_rng(0)
    predictions, labels = rng.normal(size=50), rng.normal(size=50)
    plain = compute_pair_metrics(SCORES, predictions, labels)
    assert compute_pair_metrics(SCORES, 3 * predictions - 7, labels)["pearson"] == pytest.approx(plain["pearson"])
    assert compute_pair_metrics(SCORES, np.exp(predictions), labels)["spearman"] == pytest.approx(plain["spearman"])


@pytest.mark.parametrize(
    "kind, predictions, labels, undefined",
    [
        (BINARY, [0.9, 0.1], [0, 0], {"recall", "average_precision", "roc_auc", "mcc"}),
        (BINARY, [0.1, 0.2], [0, 0], {"f1", "precision", "recall", "average_precision", "roc_auc", "mcc"}),
        (BINARY, [0.1, 0.2], [0, 1], {"precision", "mcc"}),
        (BINARY, [0.8, 0.9], [1, 1], {"average_precision", "roc_auc", "mcc"}),
        (CLASSES, [[0.9, 0.1], [0.8, 0.2]], [0, 1], {"mcc"}),
        (CLASSES, [[0.9, 0.1], [0.2, 0.8]], [1, 1], {"mcc"}),
        (SCORES, [0.3, 0.3, 0.3], [1, 2, 3], {"pearson", "spearman"}),
        (SCORES, [0.1 + 0.2, 0.3, 0.3], [1, 2, 3], {"pearson", "spearman"}),  # apart by rounding only
        (SCORES, [1, 2, 3], [4, 4, 4], {"pearson", "spearman"}),
        (SCORES, [1], [4], {"pearson", "spearman"}),
    ],
)
def test_undefined_metric_is_none_with_a_reason(kind, predictions, labels, undefined):
    result = compute_pair_metrics(kind, predictions, labels)
    assert {name for name, value in result.items() if value is None} == undefined
    assert set(result["undefined"]) == undefined and all(result["undefined"].values())
    json.dumps(result, allow_nan=False)


@pytest.mark.parametrize(
    "kind, predictions",
    [
        (BINARY, [0.1, math.nan, 0.3]),
        (SCORES, [1, -math.inf, 2]),
        (CLASSES, [[1, 0], [math.nan, 0], [0, 1]]),
    ],
)
def test_prediction_that_is_not_finite_stops_with_its_row(kind, predictions):
    with pytest.raises(TrainingFailure, match="prediction of row 1 .*1 of 3"):
        compute_pair_metrics(kind, predictions, [0, 1, 1])


def test_no_pairs_are_refused():
    with pytest.raises(InputError, match="no pairs to score"):
        compute_pair_metrics(BINARY, [], [])


@pytest.mark.parametrize(
    "kind, predictions, labels",
    [
        (BINARY, np.array([0.9, 0.2, 0.6]), np.array([1, 0, 0])),
        (CLASSES, np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]), np.array([0, 1, 1])),
        (SCORES, np.array([0.9, 4.2, 3.3]), np.array([1.0, 5.0, 2.5])),
    ],
)
def test_evaluate_interface_gives_the_same_in_one_call_and_in_batches(kind, predictions, labels):
    metric = PairMetrics(kind)
    expected = compute_pair_metrics(kind, predictions, labels)
    assert metric.compute(predictions=predictions, references=labels) == expected
    metric.add_batch(predictions=predictions[:2], references=labels[:2])
    metric.add_batch(predictions=predictions[2:], references=labels[2:])
    assert metric.compute() == expected


def test_evaluate_interface_takes_a_threshold_and_recovers_from_a_failure():
    metric = PairMetrics(BINARY)
    with pytest.raises(TrainingFailure):
        metric.compute(predictions=[math.nan, 0.2], references=[1, 0])
    assert metric.compute(predictions=[0.3, 0.2], references=[1, 0], threshold=0.25)["accuracy"] == 1.0


def test_metrics_alive_at_once_keep_their_pairs_apart_and_leave_no_files(tmp_path, monkeypatch):
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    one, other = PairMetrics(BINARY), PairMetrics(BINARY)
    one.add_batch(predictions=[0.9], references=[1])
    other.add_batch(predictions=[0.9, 0.8], references=[0, 0])
    assert (one.compute()["correct"], other.compute()["total"]) == (1, 2)
    assert not list(tmp_path.iterdir())


def test_format_accuracy_shows_the_counts():
    assert format_accuracy(918, 2000) == "918/2000 = 0.459"
