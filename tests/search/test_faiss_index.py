"""FAISS indexes: the type for a size, what a search finds and skips, and recall with a negative control."""

import faiss
import numpy as np
import pytest

from pair_pkg.errors import InputError
from pair_pkg.search import faiss_index
from pair_pkg.search.faiss_index import (
    FLAT,
    HNSW,
    INDEX_TYPES,
    IVF_PQ,
    HnswParameters,
    IvfPqParameters,
    add_rows,
    build_index,
    choose_index_type,
    default_parameters,
    hnsw_bytes,
    load_index,
    measure_recall,
    save_index,
    search_rows,
    stored_vectors,
)

WIDTH, ROWS = 32, 10_000


def clustered(rows, seed=0):
    draw = np.random.default_rng(seed)
    centers = np.random.default_rng(99).standard_normal((40, WIDTH))
    vectors = centers[draw.integers(0, 40, rows)] + 0.4 * draw.standard_normal((rows, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module", params=INDEX_TYPES)
def built(request):
    vectors = clustered(ROWS)
    return build_index(vectors, request.param)[0], vectors


def test_the_type_follows_from_rows_and_memory():
    assert choose_index_type(199_999, 384)[0] == FLAT
    needed = 200_000 * hnsw_bytes(384)
    assert choose_index_type(200_000, 384, 2 * needed) == (
        HNSW,
        "a graph takes 0.3 GiB for half of the 0.6 GiB that are free",
    )
    assert choose_index_type(200_000, 384, 2 * needed - 2)[0] == IVF_PQ


def test_ivf_pq_parameters_follow_the_size():
    assert default_parameters(IVF_PQ, 10**6, 384).__dict__ == {"lists": 4096, "pieces": 48, "probes": 128, "refine": 10}
    assert default_parameters(IVF_PQ, 1000, 100).pieces == 10
    assert default_parameters(IVF_PQ, 1000, 7).pieces == 1
    with pytest.raises(InputError, match="9,983 rows are too few to train it; take flat or hnsw"):
        build_index(clustered(9983), IVF_PQ)


def test_a_search_finds_the_true_neighbours_with_exact_cosines(built):
    index, vectors = built
    queries = clustered(50, seed=1)
    cosines, rows = search_rows(index, queries, 5)
    np.testing.assert_allclose(cosines, (queries[:, None] * vectors[rows]).sum(-1), atol=1e-5)
    assert (np.diff(cosines, axis=1) <= 1e-6).all()
    truth = np.argsort(-queries @ vectors.T, axis=1)[:, :5]
    assert np.mean([len(set(a) & set(b)) / 5 for a, b in zip(rows, truth)]) > 0.85


def test_removed_rows_are_never_found_and_the_next_ones_take_their_place(built):
    index, vectors = built
    queries = clustered(50, seed=1)
    removed = np.zeros(len(vectors), bool)
    removed[np.unique(search_rows(index, queries, 3)[1])] = True
    cosines, rows = search_rows(index, queries, 3, removed)
    assert (rows >= 0).all() and not removed[rows].any()
    truth = np.sort(-(queries @ vectors[~removed].T), axis=1)[:, :3]
    np.testing.assert_allclose(cosines[:, 0], -truth[:, 0], atol=0.05)


def test_more_than_there_is_gives_minus_one():
    index, _ = build_index(clustered(3), FLAT)
    assert search_rows(index, clustered(1), 5)[1].tolist()[0][3:] == [-1, -1]


def test_an_index_is_the_same_from_disk_and_grows(built, tmp_path):
    index, vectors = built
    save_index(index, tmp_path / "index")
    queries = clustered(20, seed=2)
    expected = search_rows(index, queries, 4)
    mapped, whole = load_index(tmp_path / "index"), load_index(tmp_path / "index", to_change=True)
    for other in (mapped, whole):
        assert np.array_equal(search_rows(other, queries, 4)[1], expected[1])
        assert np.array_equal(stored_vectors(other), vectors)
    add_rows(whole, queries)
    assert whole.ntotal == len(vectors) + 20
    assert search_rows(whole, queries, 1)[1][:, 0].tolist() == list(range(len(vectors), len(vectors) + 20))


def test_stored_vectors_outlive_the_name_of_their_index():
    vectors = clustered(2000)
    kept = [stored_vectors(build_index(vectors, index_type)[0]) for index_type in (FLAT, HNSW)]
    build_index(clustered(2000, seed=9), FLAT)  # would take the freed memory
    assert all(np.array_equal(rows, vectors) for rows in kept)


def test_recall_counts_as_by_hand(built):
    index, vectors = built
    queries = clustered(100, seed=3)
    rows = search_rows(index, queries, 10)[1]
    truth = np.argsort(-queries @ vectors.T, axis=1)[:, :10]
    by_hand = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(rows, truth)])
    assert measure_recall(index, queries) == pytest.approx(by_hand, abs=1e-3)


def test_recall_of_own_texts_leaves_the_text_itself_out_and_falls_when_the_search_gets_worse():
    vectors = clustered(ROWS)
    rows = np.arange(0, ROWS, 20)
    index, _ = build_index(vectors, IVF_PQ)
    good = measure_recall(index, vectors[rows], rows)
    faiss.downcast_index(index.base_index).nprobe = 1
    index.k_factor = 1
    bad = measure_recall(index, vectors[rows], rows)
    assert bad + 0.1 < good < 1
    removed = np.zeros(ROWS, bool)
    removed[1::2] = True
    assert measure_recall(build_index(vectors, FLAT)[0], vectors[rows], rows, removed) == 1


def test_an_index_looks_as_widely_as_its_recall_needs_and_no_wider_than_that(monkeypatch):
    vectors = clustered(ROWS)
    sample = np.arange(0, ROWS, 50)
    narrow = IvfPqParameters(lists=256, pieces=8, probes=1)
    monkeypatch.setattr(faiss_index, "default_parameters", lambda *_: narrow)
    monkeypatch.setattr(faiss_index, "MAX_WIDENING", 1)
    alone = measure_recall(build_index(vectors, IVF_PQ)[0], vectors[sample], sample)
    monkeypatch.setattr(faiss_index, "MAX_WIDENING", 64)
    index, parameters = build_index(vectors, IVF_PQ)
    probes = faiss.downcast_index(index.base_index).nprobe
    assert parameters["probes"] == probes and 1 < probes < 64
    assert alone < faiss_index.WANTED_RECALL - 0.1
    assert measure_recall(index, vectors[sample], sample) > faiss_index.WANTED_RECALL - 0.03  # of another sample
    monkeypatch.setattr(faiss_index, "default_parameters", lambda *_: HnswParameters(links=4, ef_search=2))
    graph, parameters = build_index(vectors, HNSW)
    assert parameters["ef_search"] == graph.hnsw.efSearch > 2


def test_equal_texts_do_not_lower_recall():
    vectors = np.repeat(clustered(200), 15, axis=0)
    index, _ = build_index(vectors, HNSW)
    assert measure_recall(index, vectors[::30], np.arange(0, 3000, 30)) > 0.99


def test_recall_of_fewer_texts_than_neighbours_is_undefined():
    assert measure_recall(build_index(clustered(10), FLAT)[0], clustered(2), np.arange(2)) is None
    assert measure_recall(build_index(clustered(10), FLAT)[0], clustered(2, seed=5)) == 1


def test_an_index_that_faiss_cannot_read_is_refused(tmp_path):
    (tmp_path / "index").write_bytes(b"not an index at all")
    with pytest.raises(InputError, match="FAISS .* cannot read it"):
        load_index(tmp_path / "index")
