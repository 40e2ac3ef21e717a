"""Tables that people open in a spreadsheet: no cell is a formula, and none hides a control character."""

import csv
import os
from collections.abc import Iterable, Sequence

from pair_pkg.errors import escape_control

FORMULA_MARKS = "=+-@＝＋－＠"  # the full-width ones are formulas too in East Asian locales


def write_sheet(path: str | os.PathLike, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Write a csv with a byte order mark, without which Excel reads UTF-8 in the system's own encoding.

    Numbers stay numbers. Texts are written by ``sheet_cell``, so the file is for reading: it does not give the texts
    back to the letter.
    """
    with open(path, "w", encoding="utf-8-sig", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        for row in (header, *rows):
            writer.writerow([sheet_cell(value) if isinstance(value, str) else value for value in row])


def sheet_cell(text: str) -> str:
    """A text as a cell: what a spreadsheet would run begins with an apostrophe (OWASP ASVS 1.2.10), control
    characters are escapes.

    >>> sheet_cell("=1+1"), sheet_cell("a-b"), sheet_cell(" -x\\n")
    ("'=1+1", 'a-b', "' -x\\\\n")
    """
    escaped = escape_control(text)
    return f"'{escaped}" if escaped.lstrip().startswith(tuple(FORMULA_MARKS)) else escaped
