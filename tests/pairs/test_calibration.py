"""Temperatures that are known beforehand, the guards of small and separable sets, and the errors by hand."""

import numpy as np
import pytest
from scipy.special import expit, softmax
from sklearn.metrics import brier_score_loss, log_loss

from pair_pkg.pairs.calibration import (
    calibration_metrics,
    expected_calibration_error,
    fit_class_temperature,
    fit_temperature,
)


def test_a_known_temperature_is_found_again():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 20_000)
    labels = rng.random(len(true)) < expit(true)
    center, temperature = fit_temperature(3 * true, labels, with_center=False)
    assert center == 0 and temperature == pytest.approx(3, rel=0.05)
    center, temperature = fit_temperature(0.6 + 0.1 * true, labels, with_center=True)
    assert center == pytest.approx(0.6, abs=0.01) and temperature == pytest.approx(0.1, rel=0.05)


def test_the_temperature_of_classes_is_found_again():
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, (20_000, 4))
    labels = np.array([rng.choice(4, p=row) for row in softmax(true, axis=1)])
    assert fit_class_temperature(2.5 * true + 7, labels) == pytest.approx(2.5, rel=0.05)


def test_no_other_temperature_has_a_lower_log_loss():
    rng = np.random.default_rng(1)
    scores = rng.normal(0, 3, 2_000)
    labels = rng.random(2_000) < expit(scores / 2)
    _, temperature = fit_temperature(scores, labels, with_center=False)
    losses = [log_loss(labels, expit(scores / (temperature * factor))) for factor in (0.9, 1, 1.1)]
    assert losses[1] == min(losses)


@pytest.mark.parametrize("with_center", [True, False])
@pytest.mark.parametrize("half", [1, 3, 50])
def test_a_perfectly_separable_set_leaves_room_for_error(with_center, half):
    scores, labels = np.repeat([-4.0, 4.0], half), np.repeat([0, 1], half)
    center, temperature = fit_temperature(scores, labels, with_center=with_center)
    highest = expit((4 - center) / temperature)
    assert highest == pytest.approx((half + 1) / (half + 2), abs=1e-4)  # Platt's target: more pairs, more trust


def test_separable_classes_leave_room_for_error():
    logits, labels = 5 * np.eye(3), np.arange(3)
    highest = softmax(logits / fit_class_temperature(logits, labels), axis=1).max(1)
    assert highest == pytest.approx(np.full(3, 4 / 6), abs=1e-4)


@pytest.mark.parametrize("scores", [np.zeros(4), np.full(4, 0.7), np.array([3.0, 2.0, -2.0, -3.0])])
def test_scores_that_tell_nothing_or_the_contrary_keep_a_finite_positive_temperature(scores):
    labels = np.array([0, 0, 1, 1])
    for with_center in (True, False):
        center, temperature = fit_temperature(scores, labels, with_center=with_center)
        assert np.isfinite(center) and 0 < temperature < np.inf
        assert expit((scores - center) / temperature) == pytest.approx(np.full(4, 0.5), abs=0.01) or scores[0] == 0.7


def test_errors_by_hand():
    # two bins: 0.1 with no hit, 0.9 with half hits -> (2 * 0.1 + 2 * 0.4) / 4
    confidence, hits = np.array([0.1, 0.1, 0.9, 0.9]), np.array([0, 0, 1, 0])
    assert expected_calibration_error(confidence, hits) == pytest.approx(0.25)
    assert expected_calibration_error(np.array([1.0, 0.0]), np.array([1, 0])) == 0


def test_brier_and_log_loss_are_scikit_learns():
    rng = np.random.default_rng(2)
    probabilities, labels = rng.random(50), rng.integers(0, 2, 50)
    found = calibration_metrics(probabilities, labels)
    assert found["brier"] == pytest.approx(brier_score_loss(labels, probabilities))
    assert found["log_loss"] == pytest.approx(log_loss(labels, probabilities))
    classes, labels = softmax(rng.normal(0, 1, (50, 3)), axis=1), rng.integers(0, 3, 50)
    found = calibration_metrics(classes, labels)
    assert found["log_loss"] == pytest.approx(log_loss(labels, classes))
    assert found["brier"] == pytest.approx(np.mean(((classes - np.eye(3)[labels]) ** 2).sum(1)))
