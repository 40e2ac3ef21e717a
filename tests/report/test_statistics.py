"""Intervals, tests and verdicts: hand answers, invariances, coverage on simulated pairs, and a negative control."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, compute_pair_metrics
from pair_pkg.report import statistics
from pair_pkg.report.statistics import (
    HELPED,
    HURT,
    NOT_TOLD_APART,
    Difference,
    bootstrap_metrics,
    compare_metrics,
    mcnemar_exact,
    paired_bootstrap,
    verdict,
)
from pair_pkg.report.weighted_metrics import accuracy, roc_auc

RISE = Difference(0.808, 0.831, 0.023, 0.004, 0.041, 2000, 0, 0.95, (0.023,))


def simulate(num_pairs, num_seeds, seed, gain=0.2):
    """Probabilities of two models that find the same pairs hard, and labels that are all 1."""
    rng = np.random.default_rng(seed)
    ease = 0.8 + rng.normal(size=num_pairs)
    base = ease + 0.5 * rng.normal(size=(num_seeds, num_pairs))
    adapted = ease + gain + 0.5 * rng.normal(size=(num_seeds, num_pairs))
    return np.ones(num_pairs), (base > 0).astype(float), (adapted > 0).astype(float)


def width(difference):
    return difference.high - difference.low


def test_point_values_are_means_over_the_seeds():
    labels = np.array([1, 1, 0, 0])
    base = np.array([[0.9, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.1]])  # accuracy 3/4 and 2/4
    adapted = np.array([[0.9, 0.9, 0.1, 0.1], [0.9, 0.1, 0.1, 0.1]])  # 4/4 and 3/4
    result = paired_bootstrap(accuracy, labels, base, adapted, num_resamples=50, seed=0)
    assert (result.base, result.adapted, result.difference) == (0.625, 0.875, 0.25)
    assert result.by_seed == (0.25, 0.25) and result.num_undefined == 0
    assert 0 <= result.low <= 0.25 <= result.high


def test_equal_models_differ_by_exactly_nothing():
    labels, base, _ = simulate(50, 3, seed=0)
    result = paired_bootstrap(accuracy, labels, base, base, num_resamples=100, seed=0)
    assert (result.difference, result.low, result.high) == (0, 0, 0)


def test_one_seed_gives_one_interval_and_another_seed_another():
    labels, base, adapted = simulate(101, 3, seed=0)
    one, same, other = (paired_bootstrap(accuracy, labels, base, adapted, seed=seed) for seed in (1, 1, 2))
    assert one == same != other
    assert other.low == pytest.approx(one.low, abs=0.02)


def test_exchanged_models_mirror_the_interval():
    labels, base, adapted = simulate(100, 3, seed=0)
    forth = paired_bootstrap(accuracy, labels, base, adapted, seed=1)
    back = paired_bootstrap(accuracy, labels, adapted, base, seed=1)
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))


def test_interval_of_one_seed_is_that_of_the_normal_approximation():
    labels, base, adapted = simulate(1000, 1, seed=0)
    result = paired_bootstrap(accuracy, labels, base, adapted, num_resamples=4000, seed=0)
    error = (adapted - base)[0].std() / np.sqrt(1000)
    assert result.low == pytest.approx(result.difference - 1.96 * error, abs=0.15 * error)
    assert result.high == pytest.approx(result.difference + 1.96 * error, abs=0.15 * error)


def test_seeds_are_resampled_too():
    labels = np.ones(200)
    base, steady = np.zeros((2, 200)), np.full((2, 200), 1.0)
    adapted = np.stack([np.ones(200), np.zeros(200)])  # one seed gets all right, the other none
    assert width(paired_bootstrap(accuracy, labels, base, steady, num_resamples=200, seed=0)) == 0
    assert width(paired_bootstrap(accuracy, labels, base, adapted, num_resamples=200, seed=0)) == 1


def test_pairs_drawn_in_groups_count_as_one_observation():
    labels, base, adapted = simulate(50, 1, seed=0)
    plain = paired_bootstrap(accuracy, labels, base, adapted, seed=0)
    copies = [np.repeat(values, 4, axis=-1) for values in (labels, base, adapted)]
    grouped = paired_bootstrap(accuracy, *copies, groups=np.repeat(np.arange(50), 4) + 17, seed=0)
    assert (grouped.low, grouped.high) == (plain.low, plain.high)
    assert width(paired_bootstrap(accuracy, *copies, seed=0)) < 0.6 * width(plain)


def test_groups_of_unequal_size_are_drawn_whole():
    groups = np.array(["x", "y", "x", "z", "x"])
    [weights] = statistics._draw_pairs(5, groups, 200, np.random.default_rng(0))
    assert (weights[:, 0] == weights[:, 2]).all() and (weights[:, 0] == weights[:, 4]).all()
    assert (weights[:, [0, 1, 3]].sum(axis=1) == 3).all()


def test_large_sets_are_drawn_in_chunks(monkeypatch):
    labels, base, adapted = simulate(100, 2, seed=0)
    whole = paired_bootstrap(accuracy, labels, base, adapted, num_resamples=1000, seed=0)
    monkeypatch.setattr(statistics, "WEIGHTS_PER_CHUNK", 700)  # 7 resamples at a time, the last chunk short
    chunks = list(statistics._draw_pairs(100, None, 1000, np.random.default_rng(0)))
    assert {len(chunk) for chunk in chunks} == {7, 6} and sum(map(len, chunks)) == 1000
    chunked = paired_bootstrap(accuracy, labels, base, adapted, num_resamples=1000, seed=0)
    assert (chunked.low, chunked.high) == pytest.approx((whole.low, whole.high), abs=0.02)


def test_undefined_resamples_are_left_out_and_counted():
    labels, predictions = np.array([1, 0, 0]), np.array([[0.9, 0.2, 0.3]])
    result = paired_bootstrap(roc_auc, labels, predictions, predictions, num_resamples=2000, seed=0)
    # of 27 draws 8 miss the positive pair and 1 has nothing else
    assert result.num_undefined / 2000 == pytest.approx(9 / 27, abs=0.04)
    assert (result.difference, result.low) == (0, 0)


def test_metric_without_both_labels_is_none_and_the_verdict_says_so():
    predictions = np.array([[0.9, 0.2, 0.3]])
    result = paired_bootstrap(roc_auc, np.zeros(3), predictions, predictions, num_resamples=20, seed=0)
    assert result.base is result.difference is result.low is None and result.num_undefined == 20
    json.dumps(asdict(result), allow_nan=False)
    assert verdict(result, "roc_auc").answer == NOT_TOLD_APART
    assert "ROC AUC is not defined" in verdict(result, "roc_auc").sentence


@pytest.mark.parametrize("kind", [BINARY, CLASSES, SCORES])
def test_compared_points_are_the_reported_metrics(kind):
    rng = np.random.default_rng(0)
    shape = (1, 40, 3) if kind == CLASSES else (1, 40)
    labels, base, adapted = rng.integers(0, 2, 40), rng.random(shape), rng.random(shape)
    differences = compare_metrics(kind, labels, base, adapted, adapted_threshold=[0.7], num_resamples=20, seed=0)
    for name, difference in differences.items():
        assert difference.base == pytest.approx(compute_pair_metrics(kind, base[0], labels)[name]), name
        assert difference.adapted == pytest.approx(compute_pair_metrics(kind, adapted[0], labels, 0.7)[name]), name


def test_each_seed_has_its_own_threshold():
    labels, base = np.array([1, 0]), np.array([[0.9, 0.6], [0.4, 0.1]])
    result = compare_metrics(BINARY, labels, base, base, adapted_threshold=[0.7, 0.3], num_resamples=20, seed=0)
    assert result["accuracy"].base == 0.5 and result["accuracy"].adapted == 1.0


@pytest.mark.parametrize("kind", [BINARY, CLASSES, SCORES])
def test_every_reported_metric_has_an_interval_around_it(kind):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3 if kind == CLASSES else 2, 120)
    predictions = rng.random((120, 3)) if kind == CLASSES else 0.4 * labels + rng.random(120)
    intervals = bootstrap_metrics(kind, labels, predictions, threshold=0.7, num_resamples=500, seed=0)
    reported = compute_pair_metrics(kind, predictions, labels, 0.7)
    assert set(intervals) == set(reported) - {"correct", "total", "undefined"}
    for name, interval in intervals.items():
        assert interval.low < reported[name] < interval.high and interval.num_undefined == 0, name


def test_interval_of_an_accuracy_is_that_of_the_binomial():
    labels, predictions = np.ones(400), np.repeat([0.9, 0.1], [320, 80])
    interval = bootstrap_metrics(BINARY, labels, predictions, num_resamples=4000, seed=1)["accuracy"]
    assert (interval.low, interval.high) == pytest.approx((0.8 - 1.96 * 0.02, 0.8 + 1.96 * 0.02), abs=0.004)


def test_intervals_draw_whole_groups():
    rng = np.random.default_rng(0)
    labels, predictions = rng.integers(0, 2, 50), rng.random(50)
    plain = bootstrap_metrics(BINARY, labels, predictions, seed=3)
    copies = np.repeat(labels, 4), np.repeat(predictions, 4)
    grouped = bootstrap_metrics(BINARY, *copies, groups=np.repeat(np.arange(50), 4), seed=3)
    assert grouped["accuracy"] == plain["accuracy"] and grouped["f1"] == plain["f1"]
    narrow = bootstrap_metrics(BINARY, *copies, seed=3)["accuracy"]
    assert width(narrow) < 0.6 * width(plain["accuracy"])


def test_a_threshold_decides_and_without_one_rankings_are_left():
    labels, predictions = np.array([0, 1] * 20), np.array([0.6, 0.8] * 20)
    assert bootstrap_metrics(BINARY, labels, predictions, threshold=0.7, seed=0)["accuracy"].low == 1
    assert set(bootstrap_metrics(BINARY, labels, predictions, threshold=None, seed=0)) == {
        "average_precision",
        "roc_auc",
    }


def test_an_interval_that_no_resample_defines_is_none_and_counted():
    interval = bootstrap_metrics(BINARY, np.zeros(5), np.linspace(0, 1, 5), num_resamples=30, seed=0)["roc_auc"]
    assert (interval.low, interval.high, interval.num_undefined) == (None, None, 30)


def test_interval_covers_the_accuracy_of_all_such_pairs():
    rng = np.random.default_rng(0)
    covered = 0
    for run in range(200):
        labels = np.ones(150)
        predictions = (rng.random(150) < 0.8).astype(float)
        interval = bootstrap_metrics(BINARY, labels, predictions, num_resamples=300, seed=run)["accuracy"]
        covered += interval.low <= 0.8 <= interval.high
    assert 0.9 <= covered / 200 < 1


def test_interval_covers_a_known_difference():
    gain, true = 0.2, _true_difference(0.2)
    covered = 0
    for run in range(200):
        labels, base, adapted = simulate(200, 1, seed=run, gain=gain)
        result = paired_bootstrap(accuracy, labels, base, adapted, num_resamples=300, seed=run)
        covered += result.low <= true <= result.high
    assert 0.9 <= covered / 200 < 1


def test_unpaired_predictions_widen_the_interval():
    labels, base, adapted = simulate(400, 3, seed=0)
    shuffled = adapted[:, np.random.default_rng(0).permutation(400)]
    paired = paired_bootstrap(accuracy, labels, base, adapted, seed=0)
    unpaired = paired_bootstrap(accuracy, labels, base, shuffled, seed=0)
    assert paired.difference == pytest.approx(unpaired.difference)
    assert width(unpaired) > 1.3 * width(paired)


def test_mcnemar_counts_the_pairs_that_one_model_gets_right():
    base = np.repeat([1, 1, 0, 0], [30, 2, 9, 4])
    adapted = np.repeat([1, 0, 1, 0], [30, 2, 9, 4])
    result = mcnemar_exact(base, adapted)
    assert (result.only_base, result.only_adapted) == (2, 9)
    assert result.p_value == pytest.approx(2 * (1 + 11 + 55) / 2**11)
    assert mcnemar_exact(adapted, base).p_value == pytest.approx(result.p_value)


def test_mcnemar_of_models_that_agree_is_one():
    assert mcnemar_exact(np.array([True, False]), np.array([True, False])).p_value == 1.0


def test_verdict_says_not_told_apart_where_zero_is_inside():
    difference = replace(RISE, adapted=0.793, difference=-0.015, low=-0.042, high=0.011)
    assert verdict(difference, "accuracy").sentence == (
        "Adaptation made no difference that this test set can show: accuracy went from 80.8 % to 79.3 % "
        "(-1.5 points, 95 % interval -4.2 to +1.1, which includes zero)."
    )
    assert verdict(replace(RISE, low=0.0), "accuracy").answer == NOT_TOLD_APART


def test_verdict_knows_which_way_is_better():
    fall = replace(RISE, adapted=0.785, difference=-0.023, low=-0.041, high=-0.004)
    assert verdict(RISE, "accuracy").answer == verdict(fall, "mean_squared_error").answer == HELPED
    assert verdict(fall, "accuracy").answer == verdict(RISE, "mean_squared_error").answer == HURT
    assert verdict(fall, "accuracy", higher_is_better=False).answer == HELPED
    assert "mean squared error fell from 0.808 to 0.785 (-0.023," in verdict(fall, "mean_squared_error").sentence


def test_small_bound_that_leaves_out_zero_is_not_printed_as_zero():
    assert "+0.02 to +4.1" in verdict(replace(RISE, low=0.0002), "accuracy").sentence


def _true_difference(gain):
    """The difference of the two accuracies of ``simulate``, from many pairs."""
    _, base, adapted = simulate(2_000_000, 1, seed=99, gain=gain)
    return adapted.mean() - base.mean()
