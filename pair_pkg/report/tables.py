"""Tables of text for the terminal and for Markdown, aligned for wide (Chinese) characters too."""

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

from pair_pkg.errors import one_line
from pair_pkg.report.numbers import UNDEFINED, format_change, format_value, metric_title
from pair_pkg.report.statistics import Difference


class Cells(NamedTuple):
    """A table before it is drawn: ``format_table(*cells)``, ``markdown_table(*cells)``, or a page's."""

    header: Sequence[str]
    rows: Sequence[Sequence[object]]
    align: str


def format_table(header: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """A plain text table; ``align`` has "l" or "r" for each column and defaults to left.

    Cells become one line without control characters, None becomes "-".

    >>> print(format_table(["text", "n"], [["花呗", 12], ["loan", None]], align="lr"))
    text   n
    ----  --
    花呗  12
    loan   -
    """
    align = align or "l" * len(header)
    lines = [[_cell(value) for value in row] for row in (header, *rows)]
    widths = [max(map(display_width, column)) for column in zip(*lines, strict=True)]
    lines.insert(1, ["-" * width for width in widths])
    padded = ([_pad(*cell) for cell in zip(line, widths, align, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in padded)


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[object]], align: str = "") -> str:
    """The same table in Markdown; characters that Markdown or HTML would read as markup are escaped.

    >>> print(markdown_table(["text", "n"], [["a|b", 12]], align="lr"))
    | text | n |
    | :--- | ---: |
    | a\\|b | 12 |
    """
    align = align or "l" * len(header)
    lines = [[_escape_markdown(_cell(value)) for value in row] for row in (header, *rows)]
    lines.insert(1, [":---" if side == "l" else "---:" for _, side in zip(header, align, strict=True)])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def comparison_table(differences: dict[str, Difference], markdown: bool = False) -> str:
    """The metrics of two models side by side, as text or as Markdown."""
    return (markdown_table if markdown else format_table)(*comparison_cells(differences))


def comparison_cells(differences: dict[str, Difference]) -> Cells:
    """The metrics of two models side by side; the last column spans the differences of the single seeds."""
    confidences = sorted({f"{100 * difference.confidence:g} %" for difference in differences.values()})
    header = ["metric", "base", "adapted", "difference", f"{' / '.join(confidences)} interval", "by seed"]
    return Cells(header, [_comparison_row(name, difference) for name, difference in differences.items()], "lrrrrr")


def display_width(text: str) -> int:
    """How many terminal columns a text takes: a wide character two, a combining mark none.

    >>> display_width("abc"), display_width("花呗"), display_width("e\\u0301")
    (3, 4, 1)
    """
    return sum(2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in text if not _is_combining(char))


def fit_width(text: str, width: int) -> str:
    """A text cut in its middle to ``width`` terminal columns: both ends of a path tell most.

    >>> fit_width("/data/2026/pairs/train.csv", 17), fit_width("花呗还款怎么办", 7)
    ('/data/20…rain.csv', '花呗…办')
    """
    text = one_line(text)
    if display_width(text) <= width:
        return text
    head, tail, room = "", "", width - 1
    for place in range(len(text)):
        for char, at_head in ((text[place], True), (text[-1 - place], False)):
            if display_width(head) + display_width(tail) + display_width(char) > room:
                return f"{head}…{tail}"
            head, tail = (head + char, tail) if at_head else (head, char + tail)
    return text


def _comparison_row(name: str, difference: Difference) -> list[str]:
    low, high = format_change(name, difference.low), format_change(name, difference.high)
    return [
        metric_title(name),
        format_value(name, difference.base),
        format_value(name, difference.adapted),
        format_change(name, difference.difference, unit=True),
        UNDEFINED if difference.low is None else f"{low} to {high}",
        _seed_spread(name, difference.by_seed),
    ]


def _seed_spread(name: str, by_seed: Sequence[float | None]) -> str:
    defined = [value for value in by_seed if value is not None]
    if not defined:
        return UNDEFINED
    if len(by_seed) == 1:
        return "one seed"
    spread = f"{format_change(name, min(defined))} to {format_change(name, max(defined))}"
    return f"{spread} ({len(defined)} of {len(by_seed)} seeds)" if len(defined) < len(by_seed) else spread


def _cell(value: object) -> str:
    return "-" if value is None else one_line(str(value))


def _pad(text: str, width: int, side: str) -> str:
    padding = " " * (width - display_width(text))
    return padding + text if side == "r" else text + padding


def _is_combining(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Me")


def _escape_markdown(text: str) -> str:
    return re.sub(r"([\\|<*`\[])", r"\\\1", text)
