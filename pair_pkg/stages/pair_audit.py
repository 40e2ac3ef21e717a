"""What to know of the pairs before the figures: two labels for one pair, and a test unlike the training."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.conflicts import list_conflicts
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.shift import measure_shifts
from pair_pkg.report.evaluation import shift_sentence
from pair_pkg.report.spreadsheet import write_sheet

logger = logging.getLogger("pair_pkg")

RARE_FRACTION = 0.05  # of the rows: below it, whoever always says the other label has an accuracy above 95 %
CONFLICTS_NAME = "conflicts.csv"


class Conflict(NamedTuple):
    """One row of a pair that stands in the data with more than one label; its fields are columns of the file."""

    conflict: int  # rows of one number are one pair
    split: str
    place: str
    sentence1: str
    sentence2: str
    label: str | float


def find_conflicts(splits: dict[str, Pairs], scheme: LabelScheme) -> list[Conflict]:
    """Every row of every pair with more than one label; logs one line where there are any."""
    found = list_conflicts(splits)
    rows = [
        Conflict(
            number, name, pairs.places[row], pairs.sentence1[row], pairs.sentence2[row], _label(scheme, pairs, row)
        )
        for number, places in enumerate(found, start=1)
        for name, row in places
        for pairs in (splits[name],)
    ]
    if found:
        first = rows[0]
        other = next(row for row in rows if row.label != first.label)
        logger.warning(
            "%d pair%s with more than one label, in %d rows, such as %s (%s) and %s (%s); all are kept, and listed in "
            "%s of the run's folder",
            len(found), "s" if len(found) > 1 else "", len(rows),
            first.place, first.label, other.place, other.label, CONFLICTS_NAME,
        )  # fmt: skip
    return rows


def warn_of_imbalance(class_counts: Mapping[str, int]) -> None:
    """Say which label of the training file is rare, where one is."""
    rarest = min(class_counts, key=lambda name: class_counts[name], default=None)
    if rarest is None:
        return
    rows = sum(class_counts.values())
    if class_counts[rarest] < RARE_FRACTION * rows:
        logger.warning(
            "only %d of %d rows have the label %r: look at F1 and average precision, not at accuracy, and see "
            "--class_weights and --decide_by",
            class_counts[rarest], rows, rarest,
        )  # fmt: skip


def write_conflicts(conflicts: Sequence[Conflict], folder: str) -> None:
    """The list as a file for a spreadsheet; no file where there are none."""
    path = Path(folder, CONFLICTS_NAME)
    path.unlink(missing_ok=True)
    if conflicts:
        write_sheet(path, Conflict._fields, conflicts)


def compare_train_and_test(splits: dict[str, Pairs], scheme: LabelScheme) -> list[dict[str, Any]]:
    """How test (or validation, where there is no test) differs from train, ready for JSON; logs what differs."""
    name = TEST if TEST in splits else VALIDATION
    shifts = measure_shifts(splits[TRAIN], splits[name], scheme)
    for shift in shifts:
        if shift.differs:
            logger.warning("%s", shift_sentence(shift, name, scheme.kind))
    return [{"split": name, **asdict(shift)} for shift in shifts]


def _label(scheme: LabelScheme, pairs: Pairs, row: int) -> str | float:
    label = pairs.labels[row]
    return round(float(label), 6) if scheme.kind == "scores" else scheme.names[int(label)]
