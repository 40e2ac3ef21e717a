"""The rows of a token store on disk, beside it: laid once, memory-mapped ever after.

A folder ``rows-<fingerprint>`` holds the arrays of ``Rows`` as ``starts.bin``, ``lengths.bin`` and ``row_offsets.bin``,
int64 each, and their lengths in ``rows.json``. It is whole as the store is: flushed, then renamed. A store's name tells
its content, so the rows of one that is built anew stay right.
"""

from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.data.arrays import append, find_wrong_size, map_array
from pair_pkg.data.draws import PART
from pair_pkg.data.once import build_once
from pair_pkg.data.rows import Rows
from pair_pkg.records import fingerprint, read_json, write_json

ARRAYS = tuple(field.name for field in fields(Rows))
COUNTS_NAME = "rows.json"
DTYPE = np.dtype(np.int64)
LAYOUT = 1  # how documents become rows: with another way of splitting, cutting or packing comes another number


def load_or_build_rows(store_dir: Path, settings: Any, parts: Iterable[Rows]) -> Rows:
    """The rows that ``settings`` lay over a store: ``parts``, one after the other, which are asked for only once.

    Damaged ones are laid anew, with a warning.
    """
    folder = store_dir.with_name(f"rows-{fingerprint([store_dir.name, LAYOUT, PART, settings])}")
    build_once(folder, partial(_write, parts), find_damage=_find_damage)
    return Rows(*(map_array(folder / _file(name), DTYPE) for name in ARRAYS))


def _write(parts: Iterable[Rows], folder: Path) -> None:
    folder.mkdir()
    counts = dict.fromkeys(ARRAYS, 0)
    with ExitStack() as files:
        file_of = {name: files.enter_context(open(folder / _file(name), "wb")) for name in ARRAYS}

        def add(name: str, values: np.ndarray) -> None:
            append(file_of[name], values.astype(DTYPE, copy=False))
            counts[name] += len(values)

        add("row_offsets", np.zeros(1, DTYPE))
        for part in parts:
            add("row_offsets", part.row_offsets[1:] + counts["starts"])
            add("starts", part.starts)
            add("lengths", part.lengths)
    write_json(folder / COUNTS_NAME, counts)


def _find_damage(folder: Path) -> str | None:
    """What is wrong with rows on disk, in words; None where each file is as long as it should be."""
    try:
        counts = read_json(folder / COUNTS_NAME)
        return find_wrong_size(folder, {_file(name): counts[name] * DTYPE.itemsize for name in ARRAYS})
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror})"
    except Exception as error:  # another shape
        return f"{COUNTS_NAME} is damaged ({error})"


def _file(name: str) -> str:
    return f"{name}.bin"
