"""``python -m pair_pkg history [DIR ...]``: all runs below some folders by date, with what each came to."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.pairs.metrics import format_accuracy
from pair_pkg.records import RECORD_NAME, read_record
from pair_pkg.report.evaluation import MAIN_METRIC
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.report.tables import format_table
from pair_pkg.stages.terminal import CommandParser, announce
from pair_pkg.training.checkpoints import FINISHED

DEFAULT_DIR = "runs"


def main(argv: Sequence[str] | None = None) -> list[dict[str, str]]:
    """Print the runs, the oldest first; returns a row for each."""
    options = build_parser().parse_args(argv)
    rows = list_runs(options.folders or [DEFAULT_DIR])
    if not rows:
        announce(f"no run stands below {', '.join(options.folders or [DEFAULT_DIR])}")
    else:
        announce(format_table(list(rows[0]), [list(row.values()) for row in rows]))
    return rows


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg history", description="Runs by date, with correct/total and accuracy.")
    parser.add_argument("folders", nargs="*", metavar="DIR", help=f"where to look (default: {DEFAULT_DIR})")
    return parser


def list_runs(folders: Sequence[str]) -> list[dict[str, str]]:
    """Every run below the folders, by date: when, stage, folder and result. Raises ``InputError``."""
    found: dict[Path, dict[str, str]] = {}
    for folder in folders:
        if not Path(folder).is_dir():
            raise InputError(f"{folder}: no such folder; name one that holds runs")
        found |= {run.resolve(): _row(run, record) for run, record in _runs_below(Path(folder))}
    return sorted(found.values(), key=lambda row: (row["date"], row["folder"]))


def _runs_below(top: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Folders that hold a record, and the record; links are not followed."""
    for folder, inside, files in os.walk(top):
        inside.sort()
        if RECORD_NAME in files:
            yield Path(folder), read_record(folder)


def _row(folder: Path, record: dict[str, Any]) -> dict[str, str]:
    date = record.get("written_at", "")[:16].replace("T", " ")
    return {"date": date, "stage": record.get("stage", ""), "result": _result(record), "folder": str(folder)}


def _result(record: dict[str, Any]) -> str:
    """What a run came to, in one short phrase."""
    if record.get("status") != FINISHED:
        return "not finished"
    metrics = record.get("metrics", {})
    test = metrics.get("test") or {}
    if "correct" in test:
        return format_accuracy(test["correct"], test["total"])
    if "eval_perplexity" in metrics:
        before = metrics.get("before", {}).get("eval_perplexity")
        change = f"{before:,.2f} -> " if before else ""
        return f"perplexity {change}{metrics['eval_perplexity']:,.2f}"
    kind = record.get("labels", {}).get("kind")
    name = next((name for name in (MAIN_METRIC.get(kind), "average_precision") if name in test), None)
    return f"{metric_title(name)} {format_value(name, test[name])}" if name else "no test figures"
