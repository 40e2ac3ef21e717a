"""Tables of every format as rows with a place: csv, tsv, json, jsonl, parquet."""

import csv
import difflib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pair_pkg.columns import LABEL_SYNONYMS, SENTENCE1_SYNONYMS, SENTENCE2_SYNONYMS, TEXT_SYNONYMS
from pair_pkg.data.files import MAX_LINE_BYTES, check_file, read_lines, read_raw_lines
from pair_pkg.data.strict_json import parse_json
from pair_pkg.errors import InputError, one_line

TABLE_SUFFIXES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".parquet")
KNOWN_NAMES = frozenset((*TEXT_SYNONYMS, *SENTENCE1_SYNONYMS, *SENTENCE2_SYNONYMS, *LABEL_SYNONYMS))
PARQUET_BATCH_ROWS = 1024
PARQUET_ERRORS = (pa.ArrowException, OSError, UnicodeDecodeError)  # what Arrow says of a damaged file

Value = str | int | float | bool | None  # json and parquet may nest lists and objects in columns that nobody picks
Records = Callable[[], Iterator[tuple[int, list[str]]]]  # (line of the record's start, its cells), from the top


@dataclass(frozen=True, slots=True)
class Row:
    """One row; ``place`` is where a user finds it: ``train.csv:17``, or ``train.parquet:row 17``."""

    place: str
    values: dict[str, Value]


@dataclass(frozen=True)
class Table:
    """A file of rows, read anew at each iteration; every row has exactly the keys ``columns``."""

    path: Path
    columns: list[str]
    has_header: bool
    rows: Callable[[], Iterator[Row]] = field(repr=False)

    def __iter__(self) -> Iterator[Row]:
        return self.rows()


def read_table(
    path: str | Path,
    *,
    encoding: str | None = None,
    delimiter: str | None = None,
    header: bool | None = None,
    column_names: Sequence[str] | None = None,
) -> Table:
    """Open a table by its suffix (``.gz`` may follow); ``.txt`` is read as tsv. Text is never converted.

    csv has quoted fields (quotes are doubled inside), tsv has none: there a quote is text. Without ``header`` the
    first row is a header if it looks like one (see :func:`looks_like_header`). ``column_names`` replace the header's
    names, or the names "0", "1", ... of a table without one. ``delimiter``, ``header`` and ``column_names`` concern
    csv and tsv only. Raises ``InputError`` with the place, here or while iterating.
    """
    path = Path(path)
    suffix = table_suffix(path)
    if suffix == ".parquet":
        return _open_parquet(path)
    if suffix == ".json":
        return _open_objects(path, partial(_json_array, path, encoding))
    if suffix in (".jsonl", ".ndjson"):
        return _open_objects(path, partial(_json_lines, path, encoding))
    delimiter = _one_character(delimiter)
    if suffix == ".csv":
        records: Records = partial(_quoted_records, path, encoding, delimiter or ",")
    else:
        records = partial(_plain_records, path, encoding, delimiter or "\t")
    return _open_delimited(path, records, header, column_names, delimiter)


def table_suffix(path: Path) -> str:
    """The suffix that tells a table's format. Raises ``InputError`` where it tells none.

    >>> table_suffix(Path("train.CSV.gz"))
    '.csv'
    """
    suffix = Path(path.name.lower().removesuffix(".gz")).suffix
    if suffix not in (*TABLE_SUFFIXES, ".txt"):
        raise InputError(
            f"{path}: unknown format {suffix or '(no suffix)'}; name it one of {', '.join(TABLE_SUFFIXES)}"
        )
    return suffix


def looks_like_header(cells: Sequence[str]) -> bool:
    """Whether a first row names columns: it has a name that columns.py knows, in any case, and no number.

    >>> looks_like_header(["Sentence1", "sentence2", "gold"]), looks_like_header(["A plane.", "label", "4.5"])
    (True, False)
    """
    names = [cell.strip().lower() for cell in cells]
    return any(name in KNOWN_NAMES for name in names) and not any(map(_is_number, names))


def pick_column(
    table_columns: Sequence[str], synonyms: Sequence[str], wanted: str | None, flag: str, place: str | Path
) -> str:
    """The column ``wanted``, or the first of ``synonyms`` that the table has, in any case.

    Raises ``InputError`` with the columns found and the ``flag`` that cures it.

    >>> pick_column(["id", "Question1"], ["sentence1", "question1"], None, "--sentence1_column", "train.csv")
    'Question1'
    """
    found = ", ".join(table_columns)
    if wanted is not None:
        if wanted in table_columns:
            return wanted
        near = difflib.get_close_matches(wanted, table_columns, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of them with {flag}"
        raise InputError(f"{place}: no column {wanted!r} among {found}; {hint}")
    by_name = {column.lower(): column for column in reversed(table_columns)}
    for synonym in synonyms:
        if synonym.lower() in by_name:
            return by_name[synonym.lower()]
    raise InputError(f"{place}: no column named {', '.join(synonyms)} among {found}; name it with {flag}")


def _open_delimited(
    path: Path, records: Records, header: bool | None, column_names: Sequence[str] | None, delimiter: str | None
) -> Table:
    top = list(islice(records(), 2))
    if not top:
        raise InputError(f"{path}: has no rows; remove it or fetch it again")
    line, cells = top[0]
    if delimiter is None and len(cells) == 1 and table_suffix(path) == ".csv":
        _refuse_delimiter(path, line, cells[0])
    has_header = looks_like_header(cells) if header is None else header
    if has_header and len(top) == 1:
        raise InputError(f"{path}:{line}: a header and no rows; add rows, or say that the first row is data")
    columns = [cell.strip() for cell in cells] if has_header else [str(index) for index in range(len(cells))]
    if column_names is not None:
        if len(column_names) != len(cells):
            raise InputError(f"{path}:{line}: {len(cells)} columns, but {len(column_names)} column names were given")
        columns = list(column_names)
    _refuse_duplicates(columns, f"{path}:{line}")
    return Table(path, columns, has_header, partial(_delimited_rows, path, records, columns, has_header))


def _delimited_rows(path: Path, records: Records, columns: list[str], has_header: bool) -> Iterator[Row]:
    for line, cells in islice(records(), int(has_header), None):
        if len(cells) != len(columns):
            raise InputError(
                f"{path}:{line}: {len(cells)} fields where the first row has {len(columns)}; "
                "complete the row, or quote a field that holds the delimiter"
            )
        yield Row(f"{path}:{line}", dict(zip(columns, cells)))


def _quoted_records(path: Path, encoding: str | None, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    csv.field_size_limit(MAX_LINE_BYTES)  # the module's own limit, 131,072 characters, is below a long document
    reader = csv.reader(read_raw_lines(path, encoding), delimiter=delimiter, strict=True)
    line = 1
    while True:
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise InputError(
                f"{path}:{line}: a quoted field is not closed or goes on after its closing quote ({error}); "
                "close the quote, and double the quotes inside a quoted field"
            ) from error
        if cells is None:
            return
        if cells:
            yield line, cells
        line = reader.line_num + 1


def _plain_records(path: Path, encoding: str | None, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    return ((line, text.split(delimiter)) for line, text in read_lines(path, encoding) if text)


def _open_objects(path: Path, objects: Callable[[], Iterator[tuple[str, Any]]]) -> Table:
    first = next(objects(), None)
    if first is None:
        raise InputError(f"{path}: has no rows; remove it or fetch it again")
    place, values = first
    columns = list(_object_row(place, values, None).values)
    return Table(path, columns, True, lambda: (_object_row(*item, columns) for item in objects()))


def _object_row(place: str, values: Any, columns: list[str] | None) -> Row:
    if not isinstance(values, dict):
        found = json.dumps(values, ensure_ascii=False)[:40]
        raise InputError(f'{place}: a row is not an object but {found}; write it as {{"text": ...}}')
    if columns is not None and values.keys() != set(columns):
        missing, extra = [key for key in columns if key not in values], [key for key in values if key not in columns]
        what = f"key {missing[0]!r} is missing" if missing else f"key {extra[0]!r} is not in the first row"
        raise InputError(f"{place}: {what}; give every row the same keys, null where there is no value")
    return Row(place, values)


def _json_lines(path: Path, encoding: str | None) -> Iterator[tuple[str, Any]]:
    for line, text in read_lines(path, encoding):
        if text.strip():
            yield f"{path}:{line}", parse_json(text, path, line)


def _json_array(path: Path, encoding: str | None) -> Iterator[tuple[str, Any]]:
    """Rows of an array, or of the array under "data". The file is parsed whole: jsonl is the format for large ones."""
    value = parse_json("\n".join(text for _, text in read_lines(path, encoding)), path, 1)
    rows = value.get("data") if isinstance(value, dict) else value
    if not isinstance(rows, list):
        raise InputError(f'{path}: neither an array of objects nor {{"data": [...]}}; name it .jsonl if it is lines')
    return ((f"{path}:row {index}", row) for index, row in enumerate(rows, start=1))


def _open_parquet(path: Path) -> Table:
    check_file(path)
    if path.name.lower().endswith(".gz"):
        raise InputError(f"{path}: parquet compresses itself; unpack the .gz")
    try:
        metadata = pq.read_metadata(path)
        columns = metadata.schema.to_arrow_schema().names
    except PARQUET_ERRORS as error:
        raise InputError(f"{path}: damaged or not parquet ({error}); fetch it again") from error
    if metadata.num_rows == 0:
        raise InputError(f"{path}: has no rows; remove it or fetch it again")
    _refuse_duplicates(columns, str(path))
    return Table(path, columns, True, partial(_parquet_rows, path, columns))


def _parquet_rows(path: Path, columns: list[str]) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=PARQUET_BATCH_ROWS):
                for cells in zip(*_python_columns(batch, f"{path}:row {number + 1}")):
                    number += 1
                    yield Row(f"{path}:row {number}", dict(zip(columns, cells)))
    except PARQUET_ERRORS as error:
        raise InputError(f"{path}:row {number + 1}: damaged parquet ({error}); fetch it again") from error


def _python_columns(batch: pa.RecordBatch, place: str) -> list[list[Any]]:
    """The values of each column as Python has them."""
    try:
        return list(batch.to_pydict().values())
    # a date that no calendar has, a time zone of nowhere
    except (ValueError, OverflowError, LookupError, pa.ArrowException) as error:
        raise InputError(f"{place}: damaged parquet ({one_line(str(error))}); fetch it again") from error


def _one_character(delimiter: str | None) -> str | None:
    delimiter = "\t" if delimiter == "\\t" else delimiter  # as a shell hands it over
    if delimiter is not None and (len(delimiter) != 1 or delimiter in '"\r\n\0'):
        raise InputError(f"--delimiter {delimiter!r}: must be one character, such as ',' or ';' or '\\t'")
    return delimiter


def _refuse_delimiter(path: Path, line: int, cell: str) -> None:
    """A csv of one column that holds separators of another kind was probably written with them."""
    for mark, name, option in (("\t", "tabs", "\\t"), (";", "semicolons", ";")):
        if mark in cell:
            cure = f"give --delimiter '{option}', or --delimiter ',' if it is one column"
            raise InputError(f"{path}:{line}: one comma-separated field, but it holds {name}; {cure}")


def _refuse_duplicates(columns: Sequence[str], place: str) -> None:
    for index, name in enumerate(columns):
        if name in columns[:index]:
            raise InputError(f"{place}: column {name!r} stands twice in the header; rename one")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
