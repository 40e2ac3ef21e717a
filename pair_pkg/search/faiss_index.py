"""FAISS indexes of unit rows: which type, built how, searched, and how many of the true neighbours it finds."""

# R rows, D width of a vector, Q queries, K neighbours

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import psutil

from pair_pkg.errors import InputError, one_line
from pair_pkg.search.vector_files import float_blocks

FLAT, HNSW, IVF_PQ = INDEX_TYPES = ("flat", "hnsw", "ivf_pq")
MAX_FLAT_ROWS = 200_000  # beyond, the exact search of one query reads more than 300 MB at 384 wide
MIN_IVF_PQ_ROWS = 9_984  # 39 rows for each of a piece's 256 codes, below which FAISS warns
TRAINING_ROWS_A_LIST = 64  # FAISS asks for 39 to 256
BLOCK_ROWS = 16_384  # rows added at once, so that progress shows
MIN_RANKED = 100  # rows that are ranked by their exact cosine behind codes, also for few neighbours
RECALL_AT = 10
WANTED_RECALL = 0.95  # an index looks as widely as it must to find so many of the true neighbours
MAX_WIDENING = 16  # times as widely as by default; beyond, an exact search is near
RECALL_SAMPLE = 200  # rows whose neighbours are sought, so that 0.95 is known to two points
TIE = 1e-5  # two cosines this close are one in float32: whichever neighbour is found counts


@dataclass(frozen=True)
class HnswParameters:
    """The graph (Malkov and Yashunin, 2016): links a row, and how widely building and searching look around."""

    links: int = 16
    ef_construction: int = 80
    ef_search: int = 128


@dataclass(frozen=True)
class IvfPqParameters:
    """Inverted lists of product-quantized rows (Jégou et al., 2011), the best ``refine`` x K ranked by exact cosine."""

    lists: int
    pieces: int  # bytes of a row's code
    probes: int
    refine: int = 10


def choose_index_type(rows: int, width: int, available_bytes: int | None = None) -> tuple[str, str]:
    """An index type for so many rows, and why: flat below 200,000, beyond hnsw where half of the memory holds it.

    >>> [choose_index_type(rows, 384, 16 << 30)[0] for rows in (10**5, 10**6, 10**7)]
    ['flat', 'hnsw', 'ivf_pq']
    """
    if rows < MAX_FLAT_ROWS:
        return FLAT, f"exact, below {MAX_FLAT_ROWS:,} rows"
    available = psutil.virtual_memory().available if available_bytes is None else available_bytes
    needed = rows * hnsw_bytes(width)
    sizes = f"{needed / 2**30:.1f} GiB for half of the {available / 2**30:.1f} GiB that are free"
    return (HNSW, f"a graph takes {sizes}") if needed <= available / 2 else (IVF_PQ, f"a graph would take {sizes}")


def hnsw_bytes(width: int) -> int:
    """Bytes of a row in a graph: the vector, twice the links on the lowest level, and the levels above it."""
    return 4 * width + 4 * HnswParameters.links * 2 + 16


def default_parameters(index_type: str, rows: int, width: int) -> HnswParameters | IvfPqParameters | None:
    """The parameters that an index of so many rows is built with; a flat one has none."""
    if index_type == HNSW:
        return HnswParameters()
    if index_type == FLAT:
        return None
    lists = max(1, min(2 ** round(math.log2(4 * math.sqrt(rows))), rows // 39))
    pieces = max(piece for piece in range(1, max(2, width // 8 + 1)) if width % piece == 0)
    return IvfPqParameters(lists, pieces, probes=max(1, min(lists, max(16, lists // 32))))


def build_index(
    vectors: np.ndarray, index_type: str, on_rows: Callable[[int], object] | None = None, seed: int = 0
) -> tuple[faiss.Index, dict[str, Any]]:
    """A FAISS index of unit rows (R, D), and its parameters for the manifest. Raises ``InputError``.

    An index that is not exact looks twice as widely as by default, and twice again, until it finds ``WANTED_RECALL`` of
    the neighbours of a sample of its rows. A graph built by several threads is not the same twice; its recall is
    measured and stored.
    """
    rows, width = vectors.shape
    if index_type == IVF_PQ and rows < MIN_IVF_PQ_ROWS:
        raise InputError(f"--index_type ivf_pq: {rows:,} rows are too few to train it; take flat or hnsw")
    parameters = default_parameters(index_type, rows, width)
    index = _empty_index(width, index_type, parameters)
    if isinstance(parameters, IvfPqParameters):
        wanted = min(rows, TRAINING_ROWS_A_LIST * max(parameters.lists, 256))
        sample = np.sort(np.random.default_rng(seed).choice(rows, wanted, replace=False))
        index.train(np.ascontiguousarray(vectors[sample], dtype=np.float32))
    add_rows(index, vectors, on_rows)
    if parameters is None:
        return index, {}
    return index, asdict(_widen_search(index, parameters, seed))


def add_rows(index: faiss.Index, vectors: np.ndarray, on_rows: Callable[[int], object] | None = None) -> None:
    """Add unit rows (R, D) behind those that are there."""
    for _, block in float_blocks(vectors, BLOCK_ROWS):
        index.add(block)
        if on_rows is not None:
            on_rows(len(block))


def save_index(index: faiss.Index, path: Path) -> None:
    """Write an index."""
    faiss.write_index(index, str(path))


def load_index(path: Path, *, to_change: bool = False) -> faiss.Index:
    """Read an index whose file was verified; its vectors stay on disk, mapped, unless it is ``to_change``.

    Raises ``InputError`` for a file that was made to do harm, and its manifest with it: a length in it may not ask for
    more memory than the file is long.
    """
    flags = 0 if to_change else getattr(faiss, "IO_FLAG_MMAP_IFC", 0)  # older releases read it whole
    try:
        with _vectors_within(path.stat().st_size):
            index = faiss.read_index(str(path), flags)
    except (RuntimeError, MemoryError) as error:
        what = f"FAISS {faiss.__version__} cannot read it"
        raise InputError(f"{path}: {what} ({one_line(str(error))[:200]}); build the index again") from error
    if not _is_ours(index):
        raise InputError(f"{path}: is no index of ours, or its parts do not fit each other; build the index again")
    return index


def _is_ours(index: faiss.Index) -> bool:
    """Whether an index is of a type that is built here, and its parts of one width and number of rows.

    FAISS takes each part's word for it, and would write beyond its memory.
    """
    parts, fits = [index], True
    if isinstance(index, faiss.IndexRefine):
        coded, flat = faiss.downcast_index(index.base_index), faiss.downcast_index(index.refine_index)
        if not isinstance(coded, faiss.IndexIVFPQ):
            return False
        lists = coded.quantizer
        fits = (
            coded.pq.d == lists.d == index.d and lists.ntotal == coded.nlist and coded.code_size == coded.pq.code_size
        )
        parts += [coded, flat]
    elif isinstance(index, faiss.IndexHNSW):
        flat = faiss.downcast_index(index.storage)
        parts.append(flat)
    else:
        flat = index
    alike = {(part.d, part.ntotal, part.metric_type) for part in parts}
    return fits and isinstance(flat, faiss.IndexFlat) and alike == {(index.d, index.ntotal, faiss.METRIC_INNER_PRODUCT)}


@contextmanager
def _vectors_within(num_bytes: int) -> Iterator[None]:
    """No vector that FAISS reads is longer; older releases know no limit."""
    if not hasattr(faiss, "set_deserialization_vector_byte_limit"):
        yield
        return
    before = faiss.get_deserialization_vector_byte_limit()
    faiss.set_deserialization_vector_byte_limit(num_bytes)
    try:
        yield
    finally:
        faiss.set_deserialization_vector_byte_limit(before)


def search_rows(
    index: faiss.Index, queries: np.ndarray, top_k: int, removed: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The best rows of each query by cosine: (Q, K) float32 and (Q, K) int64, row -1 where there are no more.

    ``queries`` (Q, D) are unit rows; ``removed`` (R,) bool are rows that must not be found.
    """
    keep = None
    if removed is not None and removed.any():
        keep = faiss.IDSelectorBitmap(np.packbits(~removed, bitorder="little"))
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    return index.search(queries, top_k, params=_search_parameters(index, top_k, keep))


def stored_vectors(index: faiss.Index) -> np.ndarray:
    """The exact rows that an index of ours holds, (R, D) float32, not copied."""
    if isinstance(index, faiss.IndexRefine):
        flat = faiss.downcast_index(index.refine_index)
    elif isinstance(index, faiss.IndexHNSW):
        flat = faiss.downcast_index(index.storage)
    else:
        flat = index
    return np.asarray(_Rows(index, flat))


def measure_recall(
    index: faiss.Index,
    queries: np.ndarray,
    own_rows: np.ndarray | None = None,
    removed: np.ndarray | None = None,
    top_k: int = RECALL_AT,
) -> float | None:
    """The share of the ``top_k`` best rows by exact search that the index finds, over queries (Q, D).

    ``own_rows`` (Q,) are the rows that the queries themselves are, which do not count. A found row counts where its
    exact cosine is not below the last true neighbour's, so that equal texts are no errors. None where there are fewer
    than ``top_k`` other rows.
    """
    vectors = stored_vectors(index)
    live = len(vectors) - (0 if removed is None else int(removed.sum()))
    wanted = top_k + (own_rows is not None)
    if live < wanted or not len(queries):
        return None
    truth = _exact_cosines(vectors, queries, wanted, removed)[:, -1]  # with itself on top, the last is the same
    cosines, rows = search_rows(index, queries, wanted, removed)
    found = (rows >= 0) & (cosines >= truth[:, None] - TIE)
    if own_rows is not None:
        found &= rows != own_rows[:, None]
    return float(np.minimum(found.sum(1), top_k).mean() / top_k)


class _Rows:
    """An index's memory as numpy takes it; the array holds on to this, and this to the index, which would free it."""

    def __init__(self, index: faiss.Index, flat: faiss.IndexFlat):
        self._index = index
        rows = faiss.rev_swig_ptr(flat.get_xb(), flat.ntotal * flat.d).reshape(flat.ntotal, flat.d)
        self.__array_interface__ = rows.__array_interface__


def _exact_cosines(vectors: np.ndarray, queries: np.ndarray, top_k: int, removed: np.ndarray | None) -> np.ndarray:
    best = np.full((len(queries), top_k), -np.inf, dtype=np.float32)
    for start, block in float_blocks(vectors):
        if removed is not None:
            block = block[~removed[start : start + len(block)]]
        if len(block):
            cosines, _ = faiss.knn(queries, block, min(top_k, len(block)), metric=faiss.METRIC_INNER_PRODUCT)
            best = -np.sort(-np.concatenate([best, cosines], axis=1), axis=1)[:, :top_k]
    return best


def _empty_index(width: int, index_type: str, parameters: Any) -> faiss.Index:
    if index_type == FLAT:
        return faiss.IndexFlatIP(width)
    if index_type == HNSW:
        index = faiss.IndexHNSWFlat(width, parameters.links, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = parameters.ef_construction, parameters.ef_search
        return index
    lists, flat = faiss.IndexFlatIP(width), faiss.IndexFlatIP(width)
    coded = faiss.IndexIVFPQ(lists, width, parameters.lists, parameters.pieces, 8, faiss.METRIC_INNER_PRODUCT)
    coded.nprobe = parameters.probes
    coded.cp.spherical = True  # centers of unit length, as the library's own factory has them for inner products
    index = faiss.IndexRefine(coded, flat)
    index.k_factor = parameters.refine
    for part in (lists, coded, flat):
        part.this.disown()  # freed by the index that holds it
    coded.own_fields = index.own_fields = index.own_refine_index = True
    return index


def _widen_search(index: faiss.Index, parameters: Any, seed: int) -> HnswParameters | IvfPqParameters:
    """Set how widely an index looks by the recall of a sample of its rows; returns the parameters it then has."""
    rows = stored_vectors(index)
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), min(RECALL_SAMPLE, len(rows)), replace=False))
    for _ in range(int(math.log2(MAX_WIDENING))):
        recall = measure_recall(index, rows[sample], sample)
        if recall is None or recall >= WANTED_RECALL:
            break
        if isinstance(parameters, HnswParameters):
            parameters = replace(parameters, ef_search=2 * parameters.ef_search)
            index.hnsw.efSearch = parameters.ef_search
        elif parameters.probes < parameters.lists:
            parameters = replace(parameters, probes=min(parameters.lists, 2 * parameters.probes))
            faiss.downcast_index(index.base_index).nprobe = parameters.probes
    return parameters


def _search_parameters(index: faiss.Index, top_k: int, keep: faiss.IDSelector | None) -> faiss.SearchParameters | None:
    """What FAISS is told beside the queries: the rows to keep, and a search as wide as what is asked for."""
    if isinstance(index, faiss.IndexHNSW):
        width = max(index.hnsw.efSearch, 2 * top_k)
        return _graph_search(width) if keep is None else faiss.SearchParametersHNSW(efSearch=width, sel=keep)
    if isinstance(index, faiss.IndexRefine):
        probes = faiss.downcast_index(index.base_index).nprobe
        ranked = max(index.k_factor, MIN_RANKED / top_k)
        return _lists_search(probes, ranked) if keep is None else _build_lists_search(probes, ranked, keep)
    return None if keep is None else faiss.SearchParameters(sel=keep)


@lru_cache
def _graph_search(width: int) -> faiss.SearchParameters:
    """Made once for all queries alike; a search of one query would feel it made anew."""
    return faiss.SearchParametersHNSW(efSearch=width)


@lru_cache
def _lists_search(probes: int, ranked: float) -> faiss.SearchParameters:
    return _build_lists_search(probes, ranked, None)


def _build_lists_search(probes: int, ranked: float, keep: faiss.IDSelector | None) -> faiss.SearchParameters:
    base = faiss.SearchParametersIVF(nprobe=probes, sel=keep)
    return faiss.IndexRefineSearchParameters(k_factor=ranked, base_index_params=base)
