"""Candidates are different pairs of different rows, from the nearest to the farthest, and drawn by the seed."""

import numpy as np
import pytest

from pair_pkg.search.candidates import FARTHEST_RANK, SOURCES, sample_candidates


def unit_rows(num_rows, width=16, seed=0):
    rows = np.random.default_rng(seed).normal(size=(num_rows, width)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("num_rows, num_pairs", [(500, 300), (500, 1500), (500, 5000), (40, 90), (3, 9)])
def test_pairs_are_different_and_of_the_ranks_that_they_say(num_rows, num_pairs):
    vectors = unit_rows(num_rows)
    pairs, sources = sample_candidates(vectors, num_pairs, np.random.default_rng(1))
    assert len(pairs) == len(sources) <= num_pairs
    assert (pairs[:, 0] != pairs[:, 1]).all()
    assert len(np.unique(np.sort(pairs, axis=1), axis=0)) == len(pairs)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -2)
    ranks = (cosines[pairs[:, 0]] > cosines[pairs[:, 0], pairs[:, 1]][:, None]).sum(1)
    assert (ranks[sources == 0] == 0).all()
    neighbours = ranks[sources == 1]
    assert (neighbours >= 1).all() and (neighbours < FARTHEST_RANK).all()
    if num_pairs == 300:
        assert len(pairs) > 290 and np.bincount(sources, minlength=len(SOURCES)).min() > 90
        assert neighbours.min() < 3 and neighbours.max() > 50 and np.median(neighbours) < 20
        assert np.median(ranks[sources == 2]) > 150
        means = [cosines[tuple(pairs[sources == source].T)].mean() for source in range(3)]
        assert means[0] > means[1] > means[2] + 0.2


def test_a_row_is_no_candidate_of_itself_where_many_rows_are_equal():
    vectors = np.tile(unit_rows(1), (300, 1))
    pairs, _ = sample_candidates(vectors, 200, np.random.default_rng(0))
    assert (pairs[:, 0] != pairs[:, 1]).all()


def test_one_seed_gives_the_same_pairs_and_another_others():
    vectors = unit_rows(200)
    first, again, other = (sample_candidates(vectors, 99, np.random.default_rng(seed))[0] for seed in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
