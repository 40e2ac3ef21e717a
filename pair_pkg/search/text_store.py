"""Ids and texts beside an index: JSON lines with the offset of each, so that one is read without the others."""

import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pair_pkg.errors import InputError
from pair_pkg.search.vector_files import map_npy


@dataclass(frozen=True, slots=True)
class Record:
    """What a row of an index stands for."""

    id: str
    text: str


def write_store(records: Iterable[Record | None], texts_path: Path, offsets_path: Path) -> int:
    """Write the records of all rows, nothing for a removed one (None); returns how many rows there are."""
    offsets = array("q", [0])
    with open(texts_path, "wb") as file:
        for record in records:
            if record is not None:
                line = json.dumps({"id": record.id, "text": record.text}, ensure_ascii=False) + "\n"
                file.write(line.encode())
            offsets.append(file.tell())
    np.save(offsets_path, np.frombuffer(offsets, dtype=np.int64))
    return len(offsets) - 1


class TextStore:
    """The records of an index's rows; only the offsets are held in memory, 8 bytes a row."""

    def __init__(self, texts_path: Path, offsets_path: Path):
        """Raises ``InputError`` where the two files do not fit each other."""
        self.path = texts_path
        self.offsets = np.array(map_npy(offsets_path))
        whole = self.offsets.ndim == 1 and self.offsets.dtype == np.int64 and len(self.offsets)
        whole = whole and self.offsets[0] == 0 and self.offsets[-1] == texts_path.stat().st_size
        if not whole or np.any(self.offsets[1:] < self.offsets[:-1]):
            raise InputError(f"{offsets_path}: does not fit {texts_path.name}; build the index again")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def removed(self) -> np.ndarray:
        """Which rows were removed: (R,) bool."""
        return np.diff(self.offsets) == 0

    def read(self, rows: Iterable[int]) -> list[Record]:
        """The records of some rows that are not removed, in the order given."""
        with open(self.path, "rb") as file:
            return [self._read(file, row) for row in rows]

    def __iter__(self) -> Iterator[Record | None]:
        """The records of all rows, None for a removed one."""
        with open(self.path, "rb") as file:
            for row, removed in enumerate(self.removed.tolist()):
                yield None if removed else self._read(file, row)

    def _read(self, file, row: int) -> Record:
        begin, end = self.offsets[row : row + 2].tolist()
        file.seek(begin)
        try:
            record = Record(**json.loads(file.read(end - begin)))
            if not (isinstance(record.id, str) and isinstance(record.text, str)):
                raise TypeError
            record.text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise InputError(f"{self.path}: row {row} is no id and text; build the index again") from error
        return record
