"""What a benchmark hands back: tables for the terminal, and the same as JSON."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.timing import Laps
from pair_pkg.report.tables import format_table


@dataclass(frozen=True)
class Table:
    """Rows under a title; the first column is text, the others are numbers."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[object]]

    def render(self) -> str:
        return f"{self.title}\n{format_table(self.header, self.rows, 'l' + 'r' * (len(self.header) - 1))}"

    def to_json(self) -> dict[str, Any]:
        return {"title": self.title, "rows": [dict(zip(self.header, row)) for row in self.rows]}


@dataclass
class Result:
    """Tables, the values behind them and notes on how they were taken."""

    tables: list[Table] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def render(self) -> str:
        return "\n\n".join([*(table.render() for table in self.tables), *self.notes])

    def to_json(self) -> dict[str, Any]:
        return {"tables": [table.to_json() for table in self.tables], "notes": self.notes, **self.values}


def number(value: float | None, digits: int = 0) -> str | None:
    """A number as a cell.

    >>> number(12345.678, 1), number(None)
    ('12,345.7', None)
    """
    return None if value is None else f"{value:,.{digits}f}"


def comparison(
    title: str, unit: str, laps: Laps, ours: str, extra: dict[str, dict[str, object]] | None = None
) -> Table:
    """Every contestant's rate and how many times faster ``ours`` is; ``extra``: more columns, by contestant."""
    extra = extra or {}
    columns = list(dict.fromkeys(column for cells in extra.values() for column in cells))
    digits = 1 if laps.rate(ours) < 1000 else 0
    rows = [
        [
            name,
            number(laps.rate(name), digits),
            None if name == ours else f"{laps.ratio(ours, name):.2f} x",
            *(extra.get(name, {}).get(column) for column in columns),
        ]
        for name in laps.by_name
    ]
    return Table(title, ["", unit, "ours is faster", *columns], rows)
