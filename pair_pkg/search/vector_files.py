"""Files of vectors: npy, jsonl and parquet, read and written without a pickle, and refused where they are damaged."""

# R rows, D width of a vector

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pair_pkg.data.files import check_file, read_lines
from pair_pkg.errors import InputError, one_line

VECTOR_SUFFIXES = (".npy", ".jsonl", ".parquet")
VECTOR_COLUMN = "embedding"
BLOCK_ROWS = 65_536  # rows looked at, copied or written at once: 96 MB at 384 wide
UNIT_TOLERANCE = 1e-3  # of a row's length from 1: float16 rows are within 5e-4, forgotten normalization is far off


def vector_suffix(path: str | os.PathLike) -> str:
    """The suffix that tells a vector file's format. Raises ``InputError`` where it tells none."""
    suffix = Path(path).suffix.lower()
    if suffix not in VECTOR_SUFFIXES:
        raise InputError(
            f"{path}: unknown format {suffix or '(no suffix)'}; name it one of {', '.join(VECTOR_SUFFIXES)}"
        )
    return suffix


def open_vectors(path: str | os.PathLike) -> np.ndarray:
    """The rows of a file, (R, D) of a float type; an npy file is mapped, not read. Raises ``InputError``."""
    path = Path(path)
    suffix = vector_suffix(path)
    check_file(path)
    if suffix == ".npy":
        vectors = map_npy(path)
    else:
        vectors = _stack(path, _jsonl_rows(path) if suffix == ".jsonl" else _parquet_rows(path))
    if vectors.ndim != 2 or not vectors.size:
        raise InputError(f"{path}: holds an array of shape {vectors.shape}; (rows, width) is needed")
    if vectors.dtype.kind != "f":
        raise InputError(f"{path}: holds {vectors.dtype} numbers; write the vectors as float32")
    return vectors


def map_npy(path: Path) -> np.ndarray:
    """The array of an npy file of numbers, mapped and not read. Raises ``InputError``."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (
        Exception
    ) as error:  # cut short, objects, another format: numpy reads the head as Python, and raises anything
        reason = one_line(str(error))[:200]
        raise InputError(f"{path}: damaged, or no npy file of numbers ({reason}); write it again") from error


def float_blocks(vectors: np.ndarray, block_rows: int = BLOCK_ROWS) -> Iterator[tuple[int, np.ndarray]]:
    """The rows by blocks, each with the number of its first row, as float32 in the order that FAISS wants."""
    for start in range(0, len(vectors), block_rows):
        yield start, np.ascontiguousarray(vectors[start : start + block_rows], dtype=np.float32)


def check_unit_rows(vectors: np.ndarray, place: str | os.PathLike) -> None:
    """Raise ``InputError`` for the first row that is not finite, or not of length 1: an inner product is no cosine."""
    for start, block in float_blocks(vectors):
        lengths = np.sqrt(np.einsum("rd,rd->r", block, block, dtype=np.float64))
        wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))  # also where the length is NaN
        if len(wrong):
            row = int(wrong[0])
            if not np.isfinite(block[row]).all():
                raise InputError(f"{place}: row {start + row} holds NaN or infinity; embed its text again")
            cure = "embed with --normalize, or divide each row by its length"
            raise InputError(f"{place}: row {start + row} has length {lengths[row]:.4g}, not 1; {cure}")


def write_jsonl(path: str | os.PathLike, vectors: np.ndarray) -> None:
    """One list of numbers a line, with the nine digits that give the same float32 back."""
    pattern = "[" + ", ".join(["%.9g"] * vectors.shape[1]) + "]\n"

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8") as file:
            for _, block in float_blocks(vectors):
                file.writelines(pattern % tuple(row) for row in block.tolist())

    write_beside(path, write)


def write_parquet(
    path: str | os.PathLike, vectors: np.ndarray, columns: Mapping[str, Callable[[], Iterable[str | None]]]
) -> None:
    """The columns of texts as given (each called for its values), and ``embedding``: lists of D float32."""
    kind = pa.list_(pa.float32(), vectors.shape[1])
    schema = pa.schema([*((name, pa.string()) for name in columns), (VECTOR_COLUMN, kind)])
    values = {name: iter(read()) for name, read in columns.items()}

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema) as writer:
            for _, block in float_blocks(vectors):
                arrays = [pa.array(list(islice(cells, len(block))), pa.string()) for cells in values.values()]
                arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), type=kind))
                writer.write_table(pa.Table.from_arrays(arrays, schema=schema))

    write_beside(path, write)


def write_beside(path: str | os.PathLike, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a file beside ``path``, and rename it: a reader sees the old file or the whole new one."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.writing")
    try:
        write(temporary)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _stack(path: Path, rows: Iterator[np.ndarray]) -> np.ndarray:
    blocks = []
    while block := list(islice(rows, BLOCK_ROWS)):
        blocks.append(np.stack(block))
    if not blocks:
        raise InputError(f"{path}: holds no vectors; write it again")
    return np.concatenate(blocks)


def _jsonl_rows(path: Path) -> Iterator[np.ndarray]:
    width = None
    for line, text in read_lines(path):
        if not text.strip():
            continue
        try:
            row = np.array(json.loads(text), dtype=np.float32)
        except (TypeError, ValueError, OverflowError, RecursionError) as error:
            raise InputError(f"{path}:{line}: no list of numbers ({error}); write it as [0.1, 0.2, ...]") from error
        width = width or row.size
        if row.shape != (width,) or not width:
            raise InputError(f"{path}:{line}: an array of shape {row.shape} where the first line has {width} numbers")
        yield row


def _parquet_rows(path: Path) -> Iterator[np.ndarray]:
    try:
        with pq.ParquetFile(path) as file:
            if VECTOR_COLUMN not in file.schema_arrow.names:
                there = ", ".join(file.schema_arrow.names)
                raise InputError(f"{path}: no column {VECTOR_COLUMN!r} among {there}; rename the column of the vectors")
            width, number = None, 0
            for batch in file.iter_batches(columns=[VECTOR_COLUMN]):
                for cell in batch.column(0).to_pylist():
                    number += 1
                    row = np.array([] if cell is None else cell, dtype=np.float32)
                    width = width or row.size
                    if row.shape != (width,) or not width:
                        raise InputError(f"{path}:row {number}: a vector of {row.size} numbers, the first has {width}")
                    yield row
    except (pa.ArrowException, OSError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: damaged, or no parquet file of vectors ({error}); write it again") from error
