"""Texts of any number to rows on disk, a chunk at a time: a killed job goes on where it stopped, to the same bytes.

Several processes deal the chunks among them, and each leaves a file for every chunk of its own; one of them puts these
into the rows.
"""

# R rows, D width of a vector

import hashlib
import logging
import os
import shutil
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import asdict, astuple, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.data.arrays import create_npy
from pair_pkg.data.corpus import Document, text_digest
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit, SentenceEncoder, encode_texts
from pair_pkg.processes import ALONE, Processes
from pair_pkg.records import read_json, write_json
from pair_pkg.search.vector_files import write_beside

logger = logging.getLogger("pair_pkg")

# Rows between two stops. A batch never reaches over a chunk, so where a job was killed does not change a byte.
CHUNK_ROWS = 4096
PART_SUFFIX = ".npz"


@dataclass(frozen=True)
class RowPlan:
    """What a first reading of R texts tells: 16 bytes a row are kept, and no text."""

    digests: np.ndarray  # (R,) uint64, of the texts
    first_rows: np.ndarray  # (R,) int64, the first row that holds the same text
    num_empty: int
    first_empty: str | None  # its place

    @property
    def num_distinct(self) -> int:
        return int(np.sum(self.first_rows == np.arange(len(self.first_rows))))

    def fingerprint(self) -> str:
        """The same for the same texts in the same order."""
        return hashlib.sha256(self.digests.data).hexdigest()[:16]


def plan_rows(documents: Iterable[Document]) -> RowPlan:
    """Read all texts once. Equal texts are told by 64 bits, as ``clean_documents`` does."""
    digests, num_empty, first_empty = array("Q"), 0, None
    for document in documents:
        digests.append(text_digest(document.text, document.place))
        if not document.text.strip():
            num_empty += 1
            first_empty = first_empty or document.place
    values = np.frombuffer(digests, dtype=np.uint64) if digests else np.empty(0, np.uint64)
    _, firsts, inverse = np.unique(values, return_index=True, return_inverse=True)
    return RowPlan(values, firsts[inverse], num_empty, first_empty)


class VectorJob:
    """Rows of vectors that grow in ``PATH.partial``, and what is done of them in ``PATH.state.json``.

    ``PATH.parts`` holds the chunks that one of several processes has encoded and that are not among the rows yet.
    """

    def __init__(self, path: str | os.PathLike, plan: RowPlan, encoder: SentenceEncoder, identity: dict[str, Any]):
        """``identity`` is what the bytes depend on. Raises ``InputError`` where the path holds another job's part."""
        path = Path(path)
        self.partial, self.state, self.parts = (
            path.with_name(f"{path.name}.{ending}") for ending in ("partial", "state.json", "parts")
        )
        self.plan, self.encoder = plan, encoder
        width = encode_texts(encoder, [""]).shape[1]
        self.identity = {**identity, "texts": plan.fingerprint(), "width": width, "chunk_rows": CHUNK_ROWS}
        self.shape = len(plan.digests), width
        self.rows_done, self.audit = 0, EncodingAudit()
        self._taken_up = self.state.is_file() and self.partial.is_file()
        if self._taken_up:
            self._take_up()
        else:
            refuse_without_room(path.parent, 4 * self.shape[0] * width)

    def texts_to_do(self, processes: Processes = ALONE) -> int:
        """Distinct texts of this process that are not encoded yet."""
        rows = processes.own(self.shape[0], CHUNK_ROWS)
        rows = rows[(rows >= self.rows_done) & (self.plan.first_rows[rows] == rows)]
        numbers, counts = np.unique(rows // CHUNK_ROWS, return_counts=True)
        return sum(count for number, count in zip(numbers, counts.tolist()) if not self._part(number).is_file())

    def run(self, documents: Iterable[Document], **settings: Any) -> np.ndarray:
        """Encode what is missing of the planned texts, read a second time; returns the rows, (R, D) on disk.

        ``settings`` are those of ``encode_texts``: ``batch_tokens``, ``dtype`` and ``on_texts``.
        """
        self._begin()
        if self.rows_done:
            out = np.lib.format.open_memmap(self.partial, mode="r+")
        else:
            out = create_npy(self.partial, np.dtype(np.float32), self.shape)
        for number, chunk in self._chunks(documents):
            vectors, audit = self._read_part(number) or self._encode(chunk, **settings)
            chunk.place(vectors, out)
            out.flush()
            self.audit.add(audit)
            self.rows_done += len(chunk.documents)
            self._write_state()
            self._part(number).unlink(missing_ok=True)
        return out

    def run_share(self, documents: Iterable[Document], processes: Processes, **settings: Any) -> None:
        """Encode the missing chunks of this process into ``PATH.parts``; returns when all processes have done so.

        Whole chunks are dealt, so the bytes do not tell how many processes there were. ``run`` takes the files up.
        """
        if processes.is_main:
            self._begin()
            self.partial.touch()
            self._write_state()  # says whose the parts are
            self.parts.mkdir(exist_ok=True)
        processes.gather(None)
        for number, chunk in self._chunks(documents):
            if number % processes.count == processes.index and not self._part(number).is_file():
                vectors, audit = self._encode(chunk, **settings)
                write_beside(self._part(number), partial(_save_part, vectors, audit))
        processes.gather(None)

    def finish(self, path: str | os.PathLike | None) -> None:
        """Rename the rows to ``path``, or drop them where they were written elsewhere meanwhile."""
        if path is None:
            self.partial.unlink()
        else:
            os.replace(self.partial, path)
        self.state.unlink(missing_ok=True)
        shutil.rmtree(self.parts, ignore_errors=True)

    def _take_up(self) -> None:
        state = read_json(self.state)
        changed = [name for name, value in self.identity.items() if state["identity"].get(name) != value]
        if changed:
            old, new = state["identity"].get(changed[0]), self.identity[changed[0]]
            cure = f"give the same, or remove {self.partial} and {self.state} to start anew"
            raise InputError(f"{self.partial}: part of another run ({changed[0]}: {old} -> {new}); {cure}")
        self.rows_done, self.audit = state["rows_done"], EncodingAudit(**state["audit"])
        num_parts = len(list(self.parts.glob(f"*{PART_SUFFIX}")))
        beyond = f", with {num_parts} chunks of {CHUNK_ROWS} rows from beyond it" if num_parts else ""
        logger.info("%s: going on behind row %d of %d%s", self.partial, self.rows_done, self.shape[0], beyond)

    def _begin(self) -> None:
        """Take the place. Parts that lie there without a state are nobody's."""
        if not self._taken_up:
            shutil.rmtree(self.parts, ignore_errors=True)
            self._taken_up = True

    def _write_state(self) -> None:
        done = {"rows_done": self.rows_done, "audit": asdict(self.audit)}
        write_json(self.state, {**done, "identity": self.identity})

    def _chunks(self, documents: Iterable[Document]) -> Iterator[tuple[int, "_Chunk"]]:
        """The chunks that are not among the rows yet, with their numbers. Raises ``InputError`` where one changed."""
        rest = islice(iter(documents), self.rows_done, None)
        for first in range(self.rows_done, self.shape[0], CHUNK_ROWS):
            planned = self.plan.digests[first : first + CHUNK_ROWS].tolist()
            found = list(islice(rest, CHUNK_ROWS))
            if len(found) < len(planned):
                raise InputError("the texts became fewer while they were read; run again when nothing writes to them")
            if planned != [text_digest(document.text, document.place) for document in found]:
                place = f"{found[0].place} to {found[-1].place}"
                raise InputError(f"{place}: changed while it was read; run again when nothing writes to it")
            rows = np.arange(first, first + len(found))
            yield first // CHUNK_ROWS, _Chunk(found, rows, self.plan.first_rows[rows])
        for more in rest:
            raise InputError(f"{more.place}: came while the texts were read; run again when nothing writes to them")

    def _encode(self, chunk: "_Chunk", **settings: Any) -> tuple[np.ndarray, EncodingAudit]:
        """The vectors of the chunk's new texts, (N, D)."""
        audit, new = EncodingAudit(), [chunk.documents[number] for number in np.flatnonzero(chunk.is_new)]
        if not new:
            return np.empty((0, self.shape[1]), np.float32), audit
        vectors = encode_texts(self.encoder, [document.text for document in new], audit=audit, **settings)
        bad = np.flatnonzero(~np.isfinite(vectors).all(1))
        if len(bad):
            place = new[bad[0]].place
            raise InputError(f"{place}: its vector holds NaN or infinity; compute with --dtype float32, or mend it")
        return vectors, audit

    def _part(self, number: int) -> Path:
        return self.parts / f"{number:08d}{PART_SUFFIX}"

    def _read_part(self, number: int) -> tuple[np.ndarray, EncodingAudit] | None:
        """What a process has made of a chunk, if one has."""
        if not self._part(number).is_file():
            return None
        with np.load(self._part(number), allow_pickle=False) as part:
            return part["vectors"], EncodingAudit(*part["counts"].tolist())


@dataclass(frozen=True)
class _Chunk:
    """Consecutive rows of a job."""

    documents: list[Document]
    rows: np.ndarray  # (N,) their numbers
    first_rows: np.ndarray  # (N,) the first row that holds the same text

    @property
    def is_new(self) -> np.ndarray:
        return self.first_rows == self.rows

    def place(self, vectors: np.ndarray, out: np.ndarray) -> None:
        """Write the vectors of the new texts into the rows, and copy the others, which stand before them."""
        out[self.rows[self.is_new]] = vectors
        out[self.rows[~self.is_new]] = out[self.first_rows[~self.is_new]]


def _save_part(vectors: np.ndarray, audit: EncodingAudit, path: Path) -> None:
    with open(path, "wb") as file:
        np.savez(file, vectors=vectors, counts=np.array(astuple(audit)))


def refuse_without_room(folder: Path, num_bytes: int) -> None:
    """Raise ``InputError`` where a disk cannot take so much: told before the first vector is encoded."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise InputError(f"{folder}: {num_bytes / 2**30:.1f} GiB are needed and {free / 2**30:.1f} free; make room")
