"""Files of rows that commands write: csv or JSON lines by the suffix, whole or not at all."""

import csv
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.search.vector_files import write_beside

ROW_SUFFIXES = (".csv", ".jsonl")


def refuse_unknown_rows(path: Path) -> None:
    """Raise ``InputError`` where the suffix tells no format that ``write_rows`` writes."""
    if path.suffix not in ROW_SUFFIXES:
        raise InputError(f"{path}: unknown format {path.suffix!r}; name it one of {', '.join(ROW_SUFFIXES)}")


def refuse_input(output: Path, inputs: Iterable[str | Path]) -> None:
    """Raise ``InputError`` where a file to write is one of those that are read: it would be lost."""
    if any(output.resolve() == Path(path).resolve() for path in inputs):
        raise InputError(f"{output}: is one of the files that are read; name another file to write")


def write_rows(path: Path, rows: Iterable[dict[str, Any]], columns: list[str]) -> None:
    """Rows as csv or JSON lines by the path's suffix, in the order given."""

    def write(temporary: Path) -> None:
        with open(temporary, "w", encoding="utf-8", newline="") as file:
            if path.suffix == ".jsonl":
                file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
                return
            writer = csv.DictWriter(file, columns, lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)

    write_beside(path, write)
