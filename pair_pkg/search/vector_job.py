"""Texts of any number to rows on disk, a chunk at a time: a killed job goes on where it stopped, to the same bytes."""

# R rows, D width of a vector

import hashlib
import logging
import os
import shutil
from array import array
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pair_pkg.data.corpus import Document, text_digest
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit, SentenceEncoder, encode_texts
from pair_pkg.records import read_json, write_json

logger = logging.getLogger("pair_pkg")

# Rows between two stops. A batch never reaches over a chunk, so where a job was killed does not change a byte.
CHUNK_ROWS = 4096


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
    """Rows of vectors that grow in ``PATH.partial``, and what is done of them in ``PATH.state.json``."""

    def __init__(self, path: str | os.PathLike, plan: RowPlan, encoder: SentenceEncoder, identity: dict[str, Any]):
        """``identity`` is what the bytes depend on. Raises ``InputError`` where the path holds another job's part."""
        path = Path(path)
        self.partial, self.state = path.with_name(f"{path.name}.partial"), path.with_name(f"{path.name}.state.json")
        self.plan, self.encoder = plan, encoder
        width = encode_texts(encoder, [""]).shape[1]
        self.identity = {**identity, "texts": plan.fingerprint(), "width": width, "chunk_rows": CHUNK_ROWS}
        self.shape = len(plan.digests), width
        self.rows_done, self.audit = 0, EncodingAudit()
        if self.state.is_file() and self.partial.is_file():
            self._take_up()
        else:
            refuse_without_room(path.parent, 4 * self.shape[0] * width)

    @property
    def texts_to_do(self) -> int:
        """Distinct texts that are not encoded yet."""
        rows = np.arange(self.rows_done, self.shape[0])
        return int(np.sum(self.plan.first_rows[rows] == rows))

    def run(
        self,
        documents: Iterable[Document],
        *,
        batch_tokens: int,
        dtype: torch.dtype,
        on_texts: Callable[[int], object] | None = None,
    ) -> np.ndarray:
        """Encode what is missing of the planned texts, read a second time; returns the rows, (R, D) on disk."""
        mode = "r+" if self.rows_done else "w+"
        out = np.lib.format.open_memmap(self.partial, mode=mode, dtype=np.float32, shape=self.shape)
        rest = islice(iter(documents), self.rows_done, None)
        while chunk := list(islice(rest, CHUNK_ROWS)):
            self._check_unchanged(chunk)
            self._encode_chunk(chunk, out, batch_tokens=batch_tokens, dtype=dtype, on_texts=on_texts)
            out.flush()
            self.rows_done += len(chunk)
            write_json(self.state, {**self._done(), "identity": self.identity})
        if self.rows_done != self.shape[0]:
            raise InputError("the texts became fewer while they were read; run again when nothing writes to them")
        return out

    def finish(self, path: str | os.PathLike | None) -> None:
        """Rename the rows to ``path``, or drop them where they were written elsewhere meanwhile."""
        if path is None:
            self.partial.unlink()
        else:
            os.replace(self.partial, path)
        self.state.unlink(missing_ok=True)

    def _take_up(self) -> None:
        state = read_json(self.state)
        changed = [name for name, value in self.identity.items() if state["identity"].get(name) != value]
        if changed:
            old, new = state["identity"].get(changed[0]), self.identity[changed[0]]
            cure = f"give the same, or remove {self.partial} and {self.state} to start anew"
            raise InputError(f"{self.partial}: part of another run ({changed[0]}: {old} -> {new}); {cure}")
        self.rows_done, self.audit = state["rows_done"], EncodingAudit(**state["audit"])
        logger.info("%s: going on behind row %d of %d", self.partial, self.rows_done, self.shape[0])

    def _check_unchanged(self, chunk: list[Document]) -> None:
        planned = self.plan.digests[self.rows_done : self.rows_done + len(chunk)]
        if planned.tolist() != [text_digest(document.text, document.place) for document in chunk]:
            place = f"{chunk[0].place} to {chunk[-1].place}"
            raise InputError(f"{place}: changed while it was read; run again when nothing writes to it")

    def _encode_chunk(self, chunk: list[Document], out: np.ndarray, **settings: Any) -> None:
        rows = np.arange(self.rows_done, self.rows_done + len(chunk))
        firsts = self.plan.first_rows[rows]
        new = np.flatnonzero(firsts == rows)
        if len(new):
            vectors = encode_texts(self.encoder, [chunk[row].text for row in new], audit=self.audit, **settings)
            bad = np.flatnonzero(~np.isfinite(vectors).all(1))
            if len(bad):
                place = chunk[new[bad[0]]].place
                raise InputError(f"{place}: its vector holds NaN or infinity; compute with --dtype float32, or mend it")
            out[rows[new]] = vectors
        old = np.flatnonzero(firsts != rows)
        out[rows[old]] = out[firsts[old]]

    def _done(self) -> dict[str, Any]:
        return {"rows_done": self.rows_done, "audit": asdict(self.audit)}


def refuse_without_room(folder: Path, num_bytes: int) -> None:
    """Raise ``InputError`` where a disk cannot take so much: a full one would kill who writes to a memory map."""
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise InputError(f"{folder}: {num_bytes / 2**30:.1f} GiB are needed and {free / 2**30:.1f} free; make room")
