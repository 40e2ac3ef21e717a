"""Tied predictions: no metric and no threshold depends on the order in which tied pairs stand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pair_pkg.pairs.metrics import BINARY, SCORES, compute_pair_metrics
from pair_pkg.pairs.thresholds import OBJECTIVES, PRECISION, best_threshold, fit_threshold

TIED = st.sampled_from([0.1, 0.2, 0.2 + 1e-17, np.nextafter(0.2, 1), 0.5, 0.9])
PAIRS = st.lists(st.tuples(TIED, st.integers(0, 1)), min_size=2, max_size=12)


@given(PAIRS, st.randoms(use_true_random=False))
def test_binary_metrics_and_the_threshold_do_not_see_the_order(pairs, draw):
    shuffled = draw.sample(pairs, len(pairs))
    results = []
    for rows in (pairs, shuffled):
        scores, labels = (np.array(column) for column in zip(*rows))
        cuts = [fit_threshold(scores, labels, by, 0.8 if by == PRECISION else None) for by in OBJECTIVES]
        cut = best_threshold(scores, labels)
        results.append((cut, cuts, compute_pair_metrics(BINARY, scores, labels, cut)))
    assert results[0] == results[1]


@given(PAIRS)
def test_the_threshold_reaches_the_best_accuracy_of_all_cuts_even_between_neighbouring_floats(pairs):
    scores, labels = (np.array(column) for column in zip(*pairs))
    possible = [((scores >= cut) == labels).sum() for cut in (*scores, 2.0)]
    for cut in (best_threshold(scores, labels), fit_threshold(scores, labels).value):
        assert ((scores >= cut) == labels).sum() == max(possible)


@given(PAIRS)
def test_average_precision_counts_a_tie_as_one_step(pairs):
    """By hand: precision where a whole tie is taken, weighted by the positives in it."""
    scores, labels = (np.array(column) for column in zip(*pairs))
    if labels.min() == labels.max():
        return
    steps = [(labels[scores == value].sum(), labels[scores >= value].mean()) for value in np.unique(scores)]
    by_hand = sum(found * precision for found, precision in steps) / labels.sum()
    assert compute_pair_metrics(BINARY, scores, labels)["average_precision"] == pytest.approx(by_hand)


@given(PAIRS)
def test_roc_auc_counts_a_tie_as_half(pairs):
    scores, labels = (np.array(column) for column in zip(*pairs))
    if labels.min() == labels.max():
        return
    positives, negatives = scores[labels == 1][:, None], scores[labels == 0][None]
    by_hand = ((positives > negatives) + (positives == negatives) / 2).mean()
    assert compute_pair_metrics(BINARY, scores, labels)["roc_auc"] == pytest.approx(by_hand)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=2, max_size=12))
def test_spearman_gives_tied_pairs_the_mean_of_their_ranks(pairs):
    scores, labels = (np.array(column, dtype=float) for column in zip(*pairs))
    found = compute_pair_metrics(SCORES, scores, labels)["spearman"]
    if np.ptp(scores) == 0 or np.ptp(labels) == 0:
        assert found is None
        return
    ranks = [
        [(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values] for values in (scores, labels)
    ]
    assert found == pytest.approx(np.corrcoef(*ranks)[0, 1], abs=1e-12)
    assert compute_pair_metrics(SCORES, scores[::-1], labels[::-1])["spearman"] == pytest.approx(found, abs=1e-12)
