"""Clusters around representatives: no chains, the rule of the library's communities, exact neighbours."""

import numpy as np
import pytest
from sentence_transformers.util import community_detection

from pair_pkg.errors import InputError
from pair_pkg.search import clusters
from pair_pkg.search.clusters import find_neighbours, star_clusters


def on_a_circle(*degrees):
    angles = np.radians(degrees)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def random_rows(rows=400, width=8):
    vectors = np.random.default_rng(0).standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def test_a_chain_is_not_one_cluster():
    vectors = on_a_circle(0, 20, 40, 60, 80)  # each is near to the next only
    found = star_clusters(find_neighbours(vectors, np.cos(np.radians(21))))
    assert found.tolist() == [1, 1, 1, 3, 3]


@pytest.mark.parametrize("threshold", [0.5, 0.8, 0.95])
def test_every_text_is_near_to_its_representative_and_clusters_are_the_library_s(threshold):
    vectors = random_rows()
    found = star_clusters(find_neighbours(vectors, threshold))
    assert (found[found] == found).all()
    assert ((vectors * vectors[found]).sum(1) >= threshold - 1e-5).all()
    communities = community_detection(vectors, threshold=threshold, min_community_size=1)
    ours = {frozenset(np.flatnonzero(found == chief).tolist()) for chief in np.unique(found)}
    assert ours == {frozenset(community) for community in communities}


@pytest.mark.parametrize("block_rows", [7, 1024])
def test_neighbours_are_all_pairs_above_the_threshold_at_it_too(block_rows, monkeypatch):
    monkeypatch.setattr(clusters, "BLOCK_ROWS", block_rows)
    vectors = random_rows()
    threshold = float((vectors @ vectors.T)[3, 5])
    neighbours = find_neighbours(vectors, threshold)
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)
    assert neighbours.starts[-1] == len(neighbours.rows) == (cosines >= threshold - 1e-6).sum()
    assert 5 in neighbours.rows[neighbours.of(3)]
    row = neighbours.of(9)
    np.testing.assert_allclose(neighbours.cosines[row], cosines[9, neighbours.rows[row]], atol=1e-6)


def test_a_graph_serves_large_sets_alike(monkeypatch):
    exact = find_neighbours(random_rows(), 0.8)
    monkeypatch.setattr(clusters, "MAX_FLAT_ROWS", 100)
    by_graph = find_neighbours(random_rows(), 0.8)
    assert len(by_graph.rows) >= 0.99 * len(exact.rows)
    assert not np.any(by_graph.rows == np.repeat(np.arange(400), np.diff(by_graph.starts)))


def test_a_threshold_that_tells_nothing_apart_is_refused(monkeypatch):
    monkeypatch.setattr(clusters, "MAX_NEAR_PAIRS", 1000)
    with pytest.raises(InputError, match="more than 1,000 pairs of texts have a cosine of 0; raise it"):
        find_neighbours(random_rows(), 0.0)
