"""Indexes made, grown, thinned and made anew: each change is one new generation of an index's folder."""

# R rows, D width of a vector

import logging
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pair_pkg.errors import InputError
from pair_pkg.search.faiss_index import (
    FLAT,
    RECALL_AT,
    add_rows,
    build_index,
    choose_index_type,
    measure_recall,
    stored_vectors,
)
from pair_pkg.search.index_folder import SearchIndex, commit, next_paths
from pair_pkg.search.text_store import Record, write_store

logger = logging.getLogger("pair_pkg")

RECALL_QUERIES = 1_000  # of the index's own texts: a share of 0.95 is then known to within 0.01 or so
MAX_REMOVED_FRACTION = 0.2  # of rows: beyond, a graph or lists are built anew, for they slow the search down

Advance = Callable[[int], object]


def create_index(
    folder: Path,
    records: Iterable[Record],
    vectors: np.ndarray,
    facts: dict[str, Any],
    *,
    index_type: str | None = None,
    held_out: np.ndarray | None = None,
    on_rows: Advance | None = None,
) -> dict[str, Any]:
    """Build an index of unit rows (R, D) and their texts; returns its manifest.

    ``facts`` are what the manifest says of the model and the ids. ``held_out`` (Q, D) are queries that recall is
    measured on beside the index's own texts.
    """
    generation, paths = next_paths(folder)
    rows = write_store(records, paths["texts"], paths["offsets"])
    assert rows == len(vectors), (rows, len(vectors))
    index, described = _build(vectors, index_type, on_rows)
    recall = _recall(index, None, held_out)
    return commit(folder, generation, paths, index, {**facts, **described, **_counts(rows, 0), "recall": recall})


def add_to_index(
    opened: SearchIndex,
    records: Iterable[Record],
    vectors: np.ndarray,
    next_row_number: int,
    on_rows: Advance | None = None,
) -> dict[str, Any]:
    """Add texts and their unit rows (R, D) behind those that are there; ``opened`` is ``to_change``."""
    generation, paths = next_paths(opened.folder)
    rows = write_store(chain(opened.store, records), paths["texts"], paths["offsets"])
    add_rows(opened.index, vectors, on_rows)
    removed = None if opened.removed is None else np.append(opened.removed, np.zeros(len(vectors), bool))
    num_removed = 0 if removed is None else int(removed.sum())
    facts = _facts(opened.manifest) | _counts(rows, num_removed) | {"next_row_number": next_row_number}
    wanted, why = choose_index_type(rows - num_removed, opened.manifest["width"])
    if opened.manifest["index_type"] == FLAT and wanted != FLAT:
        logger.warning("%d texts in a flat index: --rebuild makes it %s (%s)", rows, wanted, why)
    return commit(opened.folder, generation, paths, opened.index, facts | {"recall": _recall(opened.index, removed)})


def remove_from_index(opened: SearchIndex, ids: Collection[str], on_rows: Advance | None = None) -> dict[str, Any]:
    """Take texts out, by id; returns the new manifest. Raises ``InputError`` for an id that is not there.

    Ids and texts leave the disk at once. Their vectors do so in a flat index; a graph cannot lose a node, so there
    (and in inverted lists) they are skipped in every search until a fifth of the rows is removed, which builds the
    index anew from the rest, as ``rebuild_index`` does.
    """
    wanted, gone = set(ids), np.zeros(len(opened.store), dtype=bool)
    for row, record in enumerate(opened.store):
        if record is not None and record.id in wanted:
            gone[row] = True
            wanted.discard(record.id)
    if wanted:
        example = sorted(wanted)[0]
        raise InputError(f"{opened.folder}: no id {example!r} in this index ({len(wanted)} of {len(set(ids))} are not)")
    removed = gone if opened.removed is None else gone | opened.removed
    if removed.all():
        raise InputError(f"{opened.folder}: nothing would be left; remove the folder instead")
    if opened.manifest["index_type"] == FLAT or removed.mean() > MAX_REMOVED_FRACTION:
        return _write_live(opened, removed, opened.manifest["index_type"], on_rows, opened.manifest.get("why"))
    generation, paths = next_paths(opened.folder)
    records = (None if removed[row] else record for row, record in enumerate(opened.store))
    rows = write_store(records, paths["texts"], paths["offsets"])
    facts = _facts(opened.manifest) | _counts(rows, int(removed.sum())) | {"recall": _recall(opened.index, removed)}
    return commit(opened.folder, generation, paths, opened.index, facts)


def rebuild_index(opened: SearchIndex, index_type: str | None = None, on_rows: Advance | None = None) -> dict[str, Any]:
    """Build the index anew from the vectors that it holds, without the removed ones; of the type that now fits."""
    removed = np.zeros(len(opened.store), bool) if opened.removed is None else opened.removed
    return _write_live(opened, removed, index_type, on_rows)


def _write_live(
    opened: SearchIndex,
    removed: np.ndarray,
    index_type: str | None,
    on_rows: Advance | None,
    why: str | None = None,
) -> dict[str, Any]:
    """A generation of the rows that are not removed."""
    generation, paths = next_paths(opened.folder)
    rows = write_store(_live_records(opened, removed), paths["texts"], paths["offsets"])
    index, described = _build(stored_vectors(opened.index)[~removed], index_type, on_rows, why)
    facts = _facts(opened.manifest) | described | _counts(rows, 0) | {"recall": _recall(index, None)}
    return commit(opened.folder, generation, paths, index, facts)


def _live_records(opened: SearchIndex, removed: np.ndarray) -> Iterator[Record]:
    return (record for row, record in enumerate(opened.store) if not removed[row])


def _build(
    vectors: np.ndarray, index_type: str | None, on_rows: Advance | None, why: str | None = None
) -> tuple[faiss.Index, dict[str, Any]]:
    if index_type is None:
        index_type, why = choose_index_type(*vectors.shape)
    index, parameters = build_index(vectors, index_type, on_rows)
    return index, {
        "width": vectors.shape[1], "metric": "inner product of unit rows, which is the cosine",
        "index_type": index_type, "why": why or "as asked", "parameters": parameters,
    }  # fmt: skip


def _counts(rows: int, removed: int) -> dict[str, int]:
    return {"rows": rows, "removed": removed, "texts": rows - removed}


def _facts(manifest: dict[str, Any]) -> dict[str, Any]:
    """What a change leaves as it was."""
    kept = ("model", "ids", "next_row_number", "width", "metric", "index_type", "why", "parameters")
    return {name: manifest.get(name) for name in kept}


def _recall(index: faiss.Index, removed: np.ndarray | None, held_out: np.ndarray | None = None) -> dict[str, Any]:
    """Recall against exact search, on a sample of the index's own texts and on queries that are not in it."""
    live = np.arange(index.ntotal) if removed is None else np.flatnonzero(~removed)
    sample = np.sort(np.random.default_rng(0).choice(live, min(RECALL_QUERIES, len(live)), replace=False))
    recall = measure_recall(index, np.array(stored_vectors(index)[sample]), sample, removed)
    measured = {"k": RECALL_AT, "own_texts": {"queries": len(sample), "recall": recall}}
    if held_out is not None:
        found = measure_recall(index, held_out, removed=removed)
        measured["held_out"] = {"queries": len(held_out), "recall": found}
    return measured
