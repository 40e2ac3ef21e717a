"""FAISS indexes as ``index`` builds and ``search`` asks them, beside plain ``faiss`` calls with the same settings."""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from benchmarks.result import Result, Table, number
from benchmarks.timing import Contestant, alternate, call_in_subprocess, clocked, peak_bytes
from pair_pkg.search.faiss_index import (
    BLOCK_ROWS,
    FLAT,
    HNSW,
    IVF_PQ,
    RECALL_AT,
    TRAINING_ROWS_A_LIST,
    build_index,
    load_index,
    measure_recall,
    save_index,
    search_rows,
)

WIDTH, QUERIES = 384, 1_000
ROWS_A_CLUSTER, SUBSPACE = 100, 32
OFFSET = 0.8  # length of a row's way from its center, whose length is 1: neighbours have cosines of 0.6 to 0.8
MAX_PLAIN_ROWS = 200_000  # more than a flat index takes minutes to build a second time
OURS, PLAIN = "ours", "plain faiss"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, help="vectors to index; unset: 100,000 with --quick, else 1,000,000")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 5 with --quick, else 3")


def run(quick: bool, rows: int | None = None, rounds: int | None = None) -> Result:
    rows = rows or (100_000 if quick else 1_000_000)
    result = Result(
        notes=[
            f"made vectors: {ROWS_A_CLUSTER} a cluster around random unit centers, {OFFSET} away within one random "
            f"subspace of {SUBSPACE} dimensions, normalized; the queries are made alike and not indexed",
            f"recall@{RECALL_AT} of the queries is against exact search",
        ]
    )
    values: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as work_dir:
        make_vectors(Path(work_dir), rows)
        for index_type in (FLAT, IVF_PQ, HNSW):  # the one that takes longest last
            values[index_type], _ = call_in_subprocess(
                measure, work_dir=work_dir, index_type=index_type, rounds=rounds or (5 if quick else 3)
            )
            print(f"{index_type}: {values[index_type]}", file=sys.stderr, flush=True)
    result.tables = [_build_table(values, rows), _search_table(values)]
    result.values["index_types"] = values
    if any(measured["plain_build_seconds"] is None for measured in values.values()):
        result.notes.append(
            "graph and lists are built once at this size: plain faiss searches the same ones, read anew"
        )
    return result


def make_vectors(folder: Path, rows: int, seed: int = 0) -> None:
    """Write ``vectors.npy`` and ``queries.npy`` of unit rows, block by block."""
    draw = np.random.default_rng(seed)
    centers = draw.standard_normal((max(1, rows // ROWS_A_CLUSTER), WIDTH), dtype=np.float32)
    centers /= np.linalg.norm(centers, axis=1, keepdims=True)
    subspace = OFFSET / np.sqrt(SUBSPACE * WIDTH) * draw.standard_normal((SUBSPACE, WIDTH), dtype=np.float32)
    for name, count in (("vectors", rows), ("queries", QUERIES)):
        out = np.lib.format.open_memmap(folder / f"{name}.npy", mode="w+", dtype=np.float32, shape=(count, WIDTH))
        for start in range(0, count, BLOCK_ROWS):
            size = min(BLOCK_ROWS, count - start)
            offsets = draw.standard_normal((size, SUBSPACE), dtype=np.float32) @ subspace
            block = centers[draw.integers(0, len(centers), size)] + offsets
            out[start : start + size] = block / np.linalg.norm(block, axis=1, keepdims=True)
        out.flush()


def measure(work_dir: str, index_type: str, rounds: int) -> dict[str, Any]:
    """Build, save, open and search one index type in this process: ours first, so that its peak memory is its own."""
    vectors = np.load(Path(work_dir, "vectors.npy"), mmap_mode="r")
    queries = np.load(Path(work_dir, "queries.npy"))
    path = Path(work_dir, f"{index_type}.faiss")
    begin = time.perf_counter()
    index, parameters = build_index(vectors, index_type)
    build_seconds = time.perf_counter() - begin
    save_index(index, path)
    del index
    opened = load_index(path)
    recall = measure_recall(opened, queries)
    peak = peak_bytes()
    if index_type != FLAT and len(vectors) > MAX_PLAIN_ROWS:
        plain, plain_seconds = faiss.read_index(str(path)), None
    else:
        begin = time.perf_counter()
        plain = _build_plain(np.array(vectors), index_type, parameters)
        plain_seconds = time.perf_counter() - begin
    return {
        "parameters": parameters,
        "build_seconds": build_seconds,
        "plain_build_seconds": plain_seconds,
        "peak_bytes": peak,
        "bytes_a_vector": path.stat().st_size / len(vectors),
        "recall": recall,
        **{f"queries_per_second_batch_{size}": _laps(opened, plain, queries, size, rounds) for size in (1, QUERIES)},
    }


def _build_plain(vectors: np.ndarray, index_type: str, parameters: dict[str, int]) -> faiss.Index:
    """The same index with the same parameters by calls of the library alone, all rows added at once."""
    rows, width = vectors.shape
    if index_type == FLAT:
        index = faiss.IndexFlatIP(width)
    elif index_type == HNSW:
        index = faiss.IndexHNSWFlat(width, parameters["links"], faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = parameters["ef_construction"], parameters["ef_search"]
    else:
        # np: without polysemous codes, whose training takes minutes and which no search here uses
        factory = f"IVF{parameters['lists']},PQ{parameters['pieces']}np,RFlat"
        index = faiss.index_factory(width, factory, faiss.METRIC_INNER_PRODUCT)
        index.k_factor = parameters["refine"]
        faiss.extract_index_ivf(index).nprobe = parameters["probes"]
        index.train(vectors[:: max(1, rows // (TRAINING_ROWS_A_LIST * max(parameters["lists"], 256)))])
    index.add(vectors)
    return index


def _laps(opened: faiss.Index, plain: faiss.Index, queries: np.ndarray, size: int, rounds: int) -> dict[str, list]:
    count = QUERIES if size > 1 else (20 if isinstance(opened, faiss.IndexFlat) else 200)
    batches = [queries[start : start + size] for start in range(0, count, size)]

    def contestant(search) -> Contestant:
        def work() -> float:
            for batch in batches:
                search(batch)
            return float(count)

        return clocked(work)

    sides = {
        OURS: lambda batch: search_rows(opened, batch, RECALL_AT),
        PLAIN: lambda batch: plain.search(batch, RECALL_AT),
    }
    laps = alternate({name: contestant(search) for name, search in sides.items()}, rounds, warm_up_rounds=1)
    return {
        "laps": laps.to_json(),
        "rates": {name: laps.rate(name) for name in sides},
        "ratio": laps.ratio(OURS, PLAIN),
    }


def _build_table(values: dict[str, Any], rows: int) -> Table:
    header = ["", "build, s", "plain faiss, s", "peak, GiB", "bytes a vector", f"recall@{RECALL_AT}", "looks at"]
    cells = [
        [
            index_type,
            number(measured["build_seconds"], 1),
            number(measured["plain_build_seconds"], 1),
            number(measured["peak_bytes"] / 2**30, 2),
            number(measured["bytes_a_vector"]),
            number(measured["recall"], 3),
            _looks_at(measured["parameters"]),
        ]
        for index_type, measured in values.items()
    ]
    return Table(f"building, {rows:,} vectors, {WIDTH} wide", header, cells)


def _looks_at(parameters: dict[str, int]) -> str | None:
    if "probes" in parameters:
        return f"{parameters['probes']:,} of {parameters['lists']:,} lists"
    return f"{parameters['ef_search']:,} candidates" if parameters else None


def _search_table(values: dict[str, Any]) -> Table:
    header, cells = ["", "queries/s", PLAIN, "ours is faster"], []
    for index_type, measured in values.items():
        for size in (1, QUERIES):
            found = measured[f"queries_per_second_batch_{size}"]
            rates = [number(found["rates"][name]) for name in (OURS, PLAIN)]
            cells.append([f"{index_type}, batch {size:,}", *rates, f"{found['ratio']:.2f} x"])
    return Table(f"searching, the best {RECALL_AT}", header, cells)
