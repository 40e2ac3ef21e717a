"""The charts of a page, one figure each, small enough to be read on a phone."""

# N pairs, C classes, K bins

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, PercentFormatter
from sklearn.metrics import precision_recall_curve, roc_curve

from pair_pkg.pairs.calibration import NUM_BINS
from pair_pkg.report.attention_plot import drawable
from pair_pkg.report.plots import BLUE, COLOURS, GREEN, GREY, VERMILLION, Panel, clean, draw_panel, new_figure
from pair_pkg.report.tables import fit_width

WIDTH, HEIGHT = 4.4, 3.1  # inches; 1 inch is 72 units of a page
STYLES = [(colour, line) for line, colour in product(("-", "--", ":", "-."), COLOURS)]
MAX_CURVES = len(STYLES)
NUM_HISTOGRAM_BINS = 20
LEGEND_WIDTH = 28  # characters of a name; a legend takes room from its plot
MAX_CLASSES_WRITTEN = 12  # of a confusion matrix, whose numbers would run into each other


class Ranked(NamedTuple):
    """Scores of pairs with labels 0 and 1, for a curve: (N,) each."""

    labels: np.ndarray
    scores: np.ndarray


class Trusted(NamedTuple):
    """Probabilities and whether each came true, for a reliability curve: (N,) each."""

    confidence: np.ndarray
    hits: np.ndarray


def draw_history_panel(panel: Panel) -> Figure:
    """One panel of a run's history against the step."""
    figure, ax = _one_plot()
    draw_panel(ax, panel)
    ax.set_xlabel("step (optimizer updates)")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    return figure


def draw_roc(runs: Mapping[str, Ranked]) -> Figure:
    """The share of positives found against the share of negatives taken for positive, at every threshold."""
    figure, ax = _one_plot()
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for (name, run), (colour, line) in zip(runs.items(), STYLES, strict=False):
        false, true, _ = roc_curve(run.labels, run.scores)
        ax.plot(false, true, color=colour, linestyle=line, label=_shown(name))
    _unit_square(ax, "ROC", "false positive rate", "true positive rate (recall)", len(runs))
    return figure


def draw_precision_recall(runs: Mapping[str, Ranked]) -> Figure:
    """Precision against recall at every threshold; the dotted line is the share of positives."""
    figure, ax = _one_plot()
    for (name, run), (colour, line) in zip(runs.items(), STYLES, strict=False):
        precision, recall, _ = precision_recall_curve(run.labels, run.scores)
        ax.plot(recall, precision, color=colour, linestyle=line, label=_shown(name), drawstyle="steps-post")
        ax.axhline(run.labels.mean(), color=GREY, linewidth=1, linestyle=":")
    _unit_square(ax, "Precision and recall", "recall", "precision", len(runs))
    return figure


def draw_reliability(curves: Mapping[str, Trusted], x_label: str, y_label: str) -> Figure:
    """Mean probability of each bin against what came true in it; on the dotted line the two are equal."""
    figure, ax = _one_plot()
    ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle=":")
    for (name, curve), (colour, _), marker in zip(curves.items(), STYLES, "osDv", strict=False):
        means, shares, counts = reliability_bins(curve)
        ax.plot(means, shares, color=colour, linewidth=1, label=_shown(name))
        ax.scatter(means, shares, s=8 + 60 * counts / counts.max(), color=colour, marker=marker, linewidths=0)
    _unit_square(ax, "Calibration", x_label, y_label, len(curves))
    return figure


def reliability_bins(curve: Trusted, num_bins: int = NUM_BINS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share of hits and count of each bin of equal width that holds a pair: (K,) each.

    >>> curve = Trusted(np.array([0.1, 0.15, 0.9]), np.array([0, 1, 1]))
    >>> [part.tolist() for part in reliability_bins(curve, num_bins=2)]
    [[0.125, 0.9], [0.5, 1.0], [2, 1]]
    """
    bins = np.minimum((curve.confidence * num_bins).astype(int), num_bins - 1)
    counts = np.bincount(bins, minlength=num_bins)
    sums = [np.bincount(bins, weights=values, minlength=num_bins) for values in (curve.confidence, curve.hits)]
    held = counts > 0
    return sums[0][held] / counts[held], sums[1][held] / counts[held], counts[held]


def draw_histogram(scored: Ranked, names: Sequence[str], x_label: str, threshold: float | None) -> Figure:
    """How many pairs of either label have which score; the dashed line is the threshold."""
    figure, ax = _one_plot()
    edges = np.linspace(min(0.0, scored.scores.min()), max(1.0, scored.scores.max()), NUM_HISTOGRAM_BINS + 1)
    values = [scored.scores[scored.labels == class_id] for class_id in (0, 1)]
    labels = [f"label {_shown(name)}" for name in names]
    ax.hist(values, bins=edges.tolist(), color=(VERMILLION, BLUE), label=labels, rwidth=0.9)
    if threshold is not None and edges[0] <= threshold <= edges[-1]:
        ax.axvline(threshold, color="black", linewidth=1, linestyle="--", label=f"threshold {threshold:.3f}")
    ax.set_title("Scores by label", loc="left")
    ax.set_xlabel(x_label)
    ax.set_ylabel("pairs")
    ax.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True, min_n_ticks=1))
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=8)  # inside it would hide bars
    clean(ax)
    return figure


def draw_confusion(counts: np.ndarray, names: Sequence[str]) -> Figure:
    """Pairs by their label (row) and what was decided (column); (C, C). The shade is the share of its row."""
    figure, ax = _one_plot(height=max(HEIGHT, 0.9 + 0.32 * len(names)))
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    for row, column in product(range(len(names)), repeat=2):
        colour = GREEN if row == column else VERMILLION
        corner, shade = (column - 0.5, row - 0.5), 0.08 + 0.5 * shares[row, column]
        ax.add_patch(Rectangle(corner, 1, 1, facecolor=colour, alpha=shade, edgecolor="none"))
        if len(names) <= MAX_CLASSES_WRITTEN:
            written = f"{counts[row, column]:,}\n{100 * shares[row, column]:.0f} %"
            ax.text(column, row, written, ha="center", va="center", fontsize=10 if len(names) <= 4 else 7)
    labels = [_shown(name) for name in names]
    ax.set_xticks(range(len(names)), labels, rotation=0 if len(names) <= 4 else 60)
    ax.set_yticks(range(len(names)), labels)
    ax.set_xlim(-0.5, len(names) - 0.5)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.set_title("Decisions", loc="left")
    ax.set_xlabel("decided")
    ax.set_ylabel("label")
    ax.spines[:].set_visible(False)
    ax.tick_params(length=0)
    return figure


def draw_scatter(labels: np.ndarray, scores: np.ndarray) -> Figure:
    """The model's score of each pair against its label, for labels that are scores."""
    figure, ax = _one_plot()
    ax.plot(labels, scores, "o", color=BLUE, markersize=3, alpha=0.35, markeredgewidth=0)
    ax.set_title("Scores against labels", loc="left")
    ax.set_xlabel("label")
    ax.set_ylabel("score")
    clean(ax)
    return figure


def _shown(name: str) -> str:
    """A name as short as a plot wants it, with nothing in it that would be set as a formula."""
    return drawable(fit_width(name, LEGEND_WIDTH), set())


def _one_plot(height: float = HEIGHT) -> tuple[Figure, Axes]:
    figure = new_figure(height=height, width=WIDTH)
    return figure, figure.subplots()


def _unit_square(ax: Axes, title: str, x_label: str, y_label: str, num_curves: int) -> None:
    ax.set_xlim(-0.02, 1.02)
    ax.set_ylim(-0.02, 1.02)
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    ax.set_title(title, loc="left")
    ax.set_xlabel(x_label)
    ax.set_ylabel(y_label)
    if num_curves > 1:
        ax.legend(frameon=False, fontsize=8)
    clean(ax)
