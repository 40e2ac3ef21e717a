"""An evaluation in words and tables: figures with their intervals, error slices, seeds, and shifts of the data."""

from collections.abc import Mapping, Sequence
from typing import Any

from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES
from pair_pkg.pairs.shift import Shift
from pair_pkg.pairs.slices import SMALL_SLICE
from pair_pkg.pairs.thresholds import F1, PRECISION
from pair_pkg.report.numbers import (
    format_interval,
    format_share,
    format_spread,
    format_value,
    metric_title,
)
from pair_pkg.report.tables import Cells, fit_width, format_table

MAIN_METRIC = {BINARY: "accuracy", CLASSES: "accuracy", SCORES: "spearman"}
OF_DECISION = {F1: "f1", PRECISION: "recall"}  # at a wanted precision, recall is what is left to win
SHOWN_METRICS = ("accuracy", "f1", "macro_f1", "average_precision", "roc_auc", "mcc", "pearson", "spearman")
SLICE_NAME_WIDTH = 44  # columns; the path of a source may be longer
SMALL_NOTE = f"* fewer than {SMALL_SLICE} pairs: such a figure is mostly chance"
SLICE_COLUMNS = {  # metric -> the head of its column
    "accuracy": "accuracy",
    "f1": "F1",
    "macro_f1": "macro F1",
    "spearman": "Spearman",
    "mean_probability": "mean probability",
    "positive_share": "positives",
    "mean_score": "mean score",
    "mean_label": "mean label",
}


def answer_metric(kind: str, decide_by: str | None = None) -> str:
    """The metric that an answer is given in: the one that the threshold was fitted for.

    >>> answer_metric(BINARY), answer_metric(BINARY, F1), answer_metric(SCORES)
    ('accuracy', 'f1', 'spearman')
    """
    return OF_DECISION.get(decide_by, MAIN_METRIC[kind])


def result_table(title: str, figures: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any] | None) -> str:
    """``result_cells`` as text."""
    return format_table(*result_cells(title, figures, intervals))


def result_cells(title: str, figures: Mapping[str, Mapping[str, Any]], intervals: Mapping[str, Any] | None) -> Cells:
    """The metrics of the model and of each baseline, a column each, every value above its interval.

    ``intervals``: ``{"confidence": 0.95, "bounds": {column: {metric: [low, high]}}}``; None leaves their lines out.
    """
    names = [name for name in SHOWN_METRICS if any(name in values for values in figures.values())]
    rows = []
    for name in names:
        rows.append([metric_title(name), *(format_value(name, values.get(name)) for values in figures.values())])
        if intervals is not None:
            bounds = [intervals["bounds"][column].get(name, (None, None)) for column in figures]
            head = f"{100 * intervals['confidence']:g} % interval"
            rows.append([head, *(format_interval(name, *found) for found in bounds)])
    return Cells([title, *(metric_title(column) for column in figures)], rows, "l" + "r" * len(figures))


def slice_table(title: str, slices: Sequence[Mapping[str, Any]]) -> str:
    """``slice_cells`` as text, with what the mark means."""
    table = format_table(*slice_cells(title, slices))
    return f"{table}\n{SMALL_NOTE}" if any(row["small"] for row in slices) else table


def slice_cells(title: str, slices: Sequence[Mapping[str, Any]]) -> Cells:
    """What the model does in each slice of ``pairs.slices.slice_metrics``; small ones bear a mark."""
    columns = [name for name in SLICE_COLUMNS if name in slices[0]]
    rows = [
        [
            fit_width(f"{row['family']}: {row['slice']}", SLICE_NAME_WIDTH),
            f"{row['pairs']:,}{' *' if row['small'] else '  '}",
            *(_slice_value(name, row[name]) for name in columns),
        ]
        for row in slices
    ]
    header = [title, "pairs  ", *(SLICE_COLUMNS[name] for name in columns)]
    return Cells(header, rows, "l" + "r" * (len(columns) + 1))


def spread_table(title: str, spreads: Mapping[str, Mapping[str, float | None]]) -> str:
    """``spread_cells`` as text."""
    return format_table(*spread_cells(title, spreads))


def spread_cells(title: str, spreads: Mapping[str, Mapping[str, float | None]]) -> Cells:
    """Mean and spread of the test metrics over seeds, as ``statistics.spread`` gives them."""
    names = [name for name in SHOWN_METRICS if name in spreads]
    rows = [
        [
            metric_title(name),
            format_value(name, spreads[name]["mean"]),
            format_spread(name, spreads[name]["standard_deviation"]),
            format_value(name, spreads[name]["min"]),
            format_value(name, spreads[name]["max"]),
        ]
        for name in names
    ]
    return Cells([title, "mean", "standard deviation", "lowest", "highest"], rows, "lrrrr")


def shift_sentence(shift: Shift, split: str, kind: str) -> str:
    """What differs between train and test, by how much, and what it means for the figures."""
    if shift.what == "labels":
        return _label_sentence(shift, split, kind)
    if shift.what == "vocabulary":
        return (
            f"{split} differs from train in its vocabulary: {format_share(shift.test)} of its words stand nowhere in "
            f"train (random splits of the same pairs: {format_share(shift.random_distance)}); its figures tell of "
            "words that no training pair showed, and validation figures promise more than they will hold"
        )
    change = "longer" if shift.test > shift.train else "shorter" if shift.test < shift.train else "other"
    return (
        f"{split} differs from train in the {shift.what}: {shift.test:g} words in the middle, {shift.train:g} in "
        f"train ({_distances(shift)}); its figures tell of {change} texts than were learned from, so a gap to "
        "validation need be no overfitting"
    )


def _label_sentence(shift: Shift, split: str, kind: str) -> str:
    if kind == SCORES:
        return (
            f"{split} differs from train in its labels: mean {shift.test:.2f}, {shift.train:.2f} in train "
            f"({_distances(shift)}); a squared error moves with that, and correlations with the spread of the labels"
        )
    moved = (
        "accuracy, precision, F1 and average precision move with that share, and a threshold fitted on validation is "
        "fitted to train's; ROC AUC does not move with it"
        if kind == BINARY
        else "accuracy and F1 move with these shares"
    )
    return (
        f"{split} differs from train in its labels: {format_share(shift.test)} are {shift.of!r}, "
        f"{format_share(shift.train)} in train (random splits of the same pairs: "
        f"{100 * shift.random_distance:.1f} points apart); {moved}"
    )


def _distances(shift: Shift) -> str:
    return f"distance {shift.distance:.2f} of 1, random splits of the same pairs {shift.random_distance:.2f}"


def _slice_value(name: str, value: float | None) -> str:
    if value is None:
        return "-"
    if name == "positive_share":
        return format_share(value)
    return format_value(name, value)
