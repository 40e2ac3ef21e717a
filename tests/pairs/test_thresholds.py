"""Thresholds against every other cut, by hand and by scikit-learn's definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_curve

from pair_pkg.pairs.thresholds import best_threshold, fit_threshold

CUTS = np.linspace(-0.1, 1.1, 481)  # finer than the grid of the scores below


def test_best_threshold_beats_every_other_cut():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 8, 60) / 7, rng.integers(0, 2, 60)
    reached = ((scores >= best_threshold(scores, labels)) == labels).mean()
    assert reached == max(((scores >= cut) == labels).mean() for cut in np.linspace(-0.1, 1.1, 121))


@pytest.mark.parametrize("label", [0, 1])
def test_best_threshold_of_one_label_says_it_always(label):
    scores = np.array([0.0, 0.4, 1.0])
    assert ((scores >= best_threshold(scores, np.full(3, label))) == label).all()


def drawn(seed, count=40, levels=11):
    rng = np.random.default_rng(seed)
    return rng.integers(0, levels, count) / (levels - 1), rng.integers(0, 2, count)


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_has_a_better_accuracy_or_f1(seed):
    scores, labels = drawn(seed)
    for decide_by, merit in (
        ("accuracy", lambda decided: (decided == labels).mean()),
        ("f1", lambda decided: f1_score(labels, decided, zero_division=0)),
    ):
        cut = fit_threshold(scores, labels, decide_by).value
        assert merit(scores >= cut) == pytest.approx(max(merit(scores >= other) for other in CUTS))


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("wanted", [0.4, 0.5, 2 / 3, 0.75, 1.0])
def test_precision_takes_the_most_recall_that_it_leaves(seed, wanted):
    scores, labels = drawn(seed)
    precision, recall, _ = precision_recall_curve(labels, scores)
    precision, recall = precision[:-1], recall[:-1]  # the library's last point is no cut
    cut, reached = fit_threshold(scores, labels, "precision", wanted)
    decided = scores >= cut
    assert reached == (precision >= wanted).any() and decided.any()
    if reached:
        assert labels[decided].mean() >= wanted
        assert labels[decided].sum() / labels.sum() == pytest.approx(recall[precision >= wanted].max())
    else:
        assert labels[decided].mean() == pytest.approx(precision.max())


def test_equally_good_cuts_go_to_the_middle():
    assert fit_threshold(np.array([0.2, 0.9]), np.array([0, 1])) == (0.5, True)
    assert fit_threshold(np.array([0.6, 0.9]), np.array([0, 1])) == (0.75, True)
    # cuts at 0.2 and at 0.4 both decide three of four rightly, 0.4 is nearer to the middle
    assert fit_threshold(np.array([0.1, 0.3, 0.35, 0.45]), np.array([0, 1, 0, 1])).value == pytest.approx(0.4)


def test_equal_scores_are_never_parted():
    scores, labels = np.array([0.3, 0.3, 0.3, 0.7]), np.array([1, 1, 0, 0])
    assert (scores >= fit_threshold(scores, labels, "f1").value).tolist() == [True] * 4


def test_the_ends_say_all_or_nothing_even_of_probabilities_0_and_1():
    scores = np.array([0.0, 1.0, 1.0])
    assert not (scores >= fit_threshold(scores, np.zeros(3)).value).any()
    assert (scores >= fit_threshold(scores, np.ones(3)).value).all()


@given(st.lists(st.tuples(st.floats(0, 1), st.integers(0, 1)), min_size=1, max_size=12))
def test_neighbouring_floats_are_cut_between(rows):
    scores, labels = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    reached = ((scores >= fit_threshold(scores, labels).value) == labels).mean()
    cuts = [*scores, np.nextafter(scores.max(), 2)]
    assert reached == max(((scores >= cut) == labels).mean() for cut in cuts)
