"""Unlabelled pairs whose similarity spans the whole range: nearest neighbours, farther ones, and random pairs."""

# R rows of distinct texts, D width of a vector, Q rows that look for neighbours, K neighbours, P pairs

import faiss
import numpy as np

SOURCES = ("nearest", "neighbour", "random")
FARTHEST_RANK = 100  # of a neighbour; ranks are drawn evenly on a logarithmic scale, for cosines fall fast at first
QUERY_CHUNK = 1_000  # rows compared with all others at once


def sample_candidates(vectors: np.ndarray, num_pairs: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Up to ``num_pairs`` different pairs of unit rows (R, D): rows (P, 2) and their source, (P,) by ``SOURCES``.

    A third each are a row, drawn without repeat, with its nearest other row, with one of rank 2 to 100, and with a
    random one: semantic search for what is alike, and a random partner, which hardly ever is (Thakur et al., NAACL
    2021, sample so for a teacher). At least three rows are needed. Neighbours are exact, by inner product.
    """
    num_rows = len(vectors)
    assert num_rows > 2, num_rows
    num_neighbours = min(FARTHEST_RANK, num_rows - 1)
    queries = rng.permutation(num_rows)[: -(-num_pairs // len(SOURCES))]
    ranks = np.exp(rng.uniform(0, np.log(num_neighbours), len(queries))).astype(np.int64)  # from 1; 0 is the nearest
    partners = np.empty((len(SOURCES), len(queries)), dtype=np.int64)
    partners[2] = (queries + rng.integers(1, num_rows, len(queries))) % num_rows
    for start in range(0, len(queries), QUERY_CHUNK):
        part = slice(start, start + QUERY_CHUNK)
        own = queries[part, None]
        _, found = faiss.knn(vectors[own[:, 0]], vectors, num_neighbours + 1, metric=faiss.METRIC_INNER_PRODUCT)
        found = np.take_along_axis(found, np.argsort(found == own, axis=1, kind="stable"), axis=1)  # itself last
        partners[0, part], partners[1, part] = found[:, 0], found[np.arange(len(own)), ranks[part]]
    pairs = np.stack([np.tile(queries, len(SOURCES)), partners.ravel()], axis=1)
    sources = np.repeat(np.arange(len(SOURCES)), len(queries))
    _, firsts = np.unique(np.sort(pairs, axis=1), axis=0, return_index=True)
    firsts = np.sort(firsts)
    return pairs[firsts][:num_pairs], sources[firsts][:num_pairs]
