"""Texts of one meaning as clusters around a representative, and the near pairs behind them."""

# R rows of distinct texts, D width of a vector, P near pairs, B rows of a block

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from pair_pkg.errors import InputError
from pair_pkg.search.faiss_index import FLAT, HNSW, MAX_FLAT_ROWS, build_index, search_rows
from pair_pkg.search.vector_files import float_blocks

BLOCK_ROWS = 1024  # rows whose neighbours are looked for at once
MAX_NEIGHBOURS = 64  # of a row, where neighbours are looked for in a graph
MAX_NEAR_PAIRS = 50_000_000  # 400 MB; more means a threshold that tells nothing apart
ROUNDING = 1e-6  # of a float32 cosine: a row at the threshold counts as near


# The first row of a block, how many rows are near to each of its rows (B,), which, and their cosines.
Found = tuple[int, np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Neighbours:
    """For each row the rows that are near, itself left out: those of row r are ``rows[starts[r]:starts[r + 1]]``."""

    starts: np.ndarray  # (R + 1,) int64
    rows: np.ndarray  # (P,) int32
    cosines: np.ndarray  # (P,) float32

    def of(self, row: int) -> slice:
        """Where the neighbours of a row stand."""
        return slice(int(self.starts[row]), int(self.starts[row + 1]))


def find_neighbours(
    vectors: np.ndarray, threshold: float, on_rows: Callable[[int], object] | None = None
) -> Neighbours:
    """All pairs of unit rows (R, D) whose cosine is at least ``threshold``.

    Exact below 200,000 rows. Beyond, a graph gives the 64 nearest of each row, and may miss a few. Raises
    ``InputError`` where too many pairs are near.
    """
    exact = len(vectors) < MAX_FLAT_ROWS
    found = _exact_neighbours(vectors, threshold) if exact else _nearest_neighbours(vectors, threshold)
    counts, rows, cosines, total = [], [], [], 0
    for start, block_counts, block_rows, block_cosines in found:
        own = np.repeat(np.arange(start, start + len(block_counts)), block_counts)
        others = block_rows != own
        counts.append(block_counts - np.bincount(own[~others] - start, minlength=len(block_counts)))
        rows.append(block_rows[others].astype(np.int32))
        cosines.append(block_cosines[others])
        total += len(rows[-1])
        if total > MAX_NEAR_PAIRS:
            raise InputError(f"more than {MAX_NEAR_PAIRS:,} pairs of texts have a cosine of {threshold:g}; raise it")
        if on_rows is not None:
            on_rows(len(block_counts))
    starts = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    return Neighbours(starts, np.concatenate(rows), np.concatenate(cosines))


def star_clusters(neighbours: Neighbours) -> np.ndarray:
    """The representative of each row, (R,): the row itself where it represents its cluster.

    Rows are asked by falling number of neighbours, the earlier row first: one that belongs to nobody becomes a
    representative, and all its neighbours that belong to nobody join it. So every text is as near as the threshold to
    its representative. Connected components would chain: a text joins whoever is near to any member, and the ends of
    a chain need have nothing in common. The rule is the one of sentence-transformers' ``community_detection`` with
    communities of one; that compares each row with all others at once, whose memory and time grow with the square.

    >>> chain = Neighbours(np.array([0, 1, 3, 5, 6]), np.array([1, 0, 2, 1, 3, 2]), np.ones(6))  # 0 - 1 - 2 - 3
    >>> star_clusters(chain).tolist()
    [1, 1, 1, 3]
    """
    num_rows = len(neighbours.starts) - 1
    representative = np.full(num_rows, -1, dtype=np.int64)
    for row in np.argsort(-np.diff(neighbours.starts), kind="stable").tolist():
        if representative[row] < 0:
            near = neighbours.rows[neighbours.of(row)]
            representative[near[representative[near] < 0]] = row
            representative[row] = row
    return representative


def _exact_neighbours(vectors: np.ndarray, threshold: float) -> Iterator[Found]:
    index, _ = build_index(vectors, FLAT)
    for start, block in float_blocks(vectors, BLOCK_ROWS):
        limits, cosines, rows = index.range_search(block, threshold - ROUNDING)
        yield start, np.diff(limits.astype(np.int64)), rows, cosines


def _nearest_neighbours(vectors: np.ndarray, threshold: float) -> Iterator[Found]:
    index, _ = build_index(vectors, HNSW)
    for start, block in float_blocks(vectors, BLOCK_ROWS):
        cosines, rows = search_rows(index, block, MAX_NEIGHBOURS + 1)
        near = (rows >= 0) & (cosines >= threshold - ROUNDING)
        yield start, near.sum(1), rows[near], cosines[near]
