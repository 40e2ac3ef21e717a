"""Pictures of a run: how training went, and how two models differ. Figures are values; no window is opened."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator

from pair_pkg.report.numbers import LOWER_IS_BETTER, metric_title
from pair_pkg.report.statistics import Difference

# Okabe and Ito's palette (2008): told apart with the common colour blindnesses.
BLUE, VERMILLION, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#767676"
COLOURS, MARKERS = (BLUE, VERMILLION, GREEN), "osD"  # the shape of the marker says it too
DOTS_PER_INCH = 150
MAX_MARKED_POINTS = 40  # more markers would hide their line
LOG_SCALE_FROM = 10  # highest / lowest perplexity: a start at 3,000 would flatten all that follows
PAIR_METRICS = ("accuracy", "f1", "macro_f1", "average_precision", "pearson", "spearman")  # at most 3 for one kind

Curve = dict[float, float]  # step -> value


@dataclass(frozen=True)
class Panel:
    """One plot of a history: a curve for each entry of the legend."""

    title: str
    y_label: str
    curves: dict[str, Curve]
    log_scale: bool = False


def plot_history(log_history: Sequence[dict], path: str | os.PathLike) -> Path | None:
    """Draw a Trainer's ``log_history`` against the step: loss, perplexity or pair metrics, and learning rate.

    Returns the path, or None (and writes nothing) where there is nothing to draw.
    """
    panels = history_panels(log_history)
    if not panels:
        return None
    figure = new_figure(height=0.7 + 2.3 * len(panels))
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, panel in zip(axes, panels):
        draw_panel(ax, panel)
    axes[-1].set_xlabel("step (optimizer updates)")
    axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    return _save(figure, path)


def history_panels(log_history: Sequence[dict]) -> list[Panel]:
    """The panels that a history has data for, from the top. Of two values at one step the later counts."""
    pair_curves = {metric_title(name): _curve(log_history, f"eval_{name}") for name in PAIR_METRICS}
    perplexity = _curve(log_history, "eval_perplexity")
    if any(pair_curves.values()):
        quality = Panel("Validation metrics", "value (best is 1)", pair_curves)
    else:
        steep = bool(perplexity) and max(perplexity.values()) > LOG_SCALE_FROM * min(perplexity.values())
        general = _curve(log_history, "eval_general_perplexity")
        curves = {"domain" if general else "validation": perplexity, "general text": general}
        quality = Panel("Validation perplexity", "perplexity", curves, log_scale=steep)
    probe = Panel("Probe", "ranking of validation pairs", {"frozen encoder": _curve(log_history, "eval_probe")})
    losses = {"training": _curve(log_history, "loss"), "validation": _curve(log_history, "eval_loss")}
    rates = {"learning rate": _curve(log_history, "learning_rate")}
    panels = [Panel("Loss", "mean loss", losses), quality, probe, Panel("Learning rate", "learning rate", rates)]
    return [panel for panel in panels if any(panel.curves.values())]


def plot_comparison(differences: dict[str, Difference], path: str | os.PathLike) -> Path | None:
    """Write ``draw_comparison`` to a file. Returns the path, or None (and writes nothing) where nothing is defined."""
    figure = draw_comparison(differences)
    return _save(figure, path) if figure else None


def draw_comparison(differences: dict[str, Difference]) -> Figure | None:
    """Adapted minus base of each metric with its interval, and the single seeds as pale dots.

    Undefined differences are left out; None where none is defined.
    """
    defined = {
        name: difference
        for name, difference in differences.items()
        if None not in (difference.low, difference.difference)
    }
    errors = {name: difference for name, difference in defined.items() if name in LOWER_IS_BETTER}
    quality = {name: difference for name, difference in defined.items() if name not in LOWER_IS_BETTER}
    forests = [forest for forest in (quality, errors) if forest]
    if not forests:
        return None
    heights = [0.8 + 0.45 * len(forest) for forest in forests]
    figure = new_figure(height=0.8 + sum(heights))
    axes = figure.subplots(len(forests), 1, height_ratios=heights, squeeze=False)[:, 0]
    for ax, forest in zip(axes, forests):
        if forest is errors:
            _draw_forest(ax, forest, "change (the metric's own unit; lower is better)", unit=1, better=-1)
        else:
            _draw_forest(ax, forest, "change (points, 1 point = 0.01; higher is better)", unit=0.01, better=1)
    confidence = 100 * next(iter(defined.values())).confidence
    figure.suptitle(f"Adapted minus base, with {confidence:g} % intervals", fontsize=12)
    figure.supxlabel("small dots: single seeds; grey: the interval includes zero", fontsize=8, color=GREY)
    return figure


def draw_panel(ax: Axes, panel: Panel) -> None:
    """Draw the curves of a panel that have values, with a legend where the title does not name the only one."""
    curves = {label: curve for label, curve in panel.curves.items() if curve}
    for (label, curve), colour, marker in zip(curves.items(), COLOURS, MARKERS):
        marked = marker if len(curve) <= MAX_MARKED_POINTS else None
        ax.plot(list(curve), list(curve.values()), color=colour, marker=marked, markersize=4, label=label)
    if panel.log_scale:
        ax.set_yscale("log")
    ax.set_title(panel.title, loc="left")
    ax.set_ylabel(panel.y_label)
    if len(curves) > 1 or label not in panel.title.lower():
        ax.legend(frameon=False)
    clean(ax)


def new_figure(height: float, width: float = 7.0) -> Figure:
    """An empty figure, in inches."""
    engine = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1)  # inches
    return Figure(figsize=(width, height), layout=engine)


def clean(ax: Axes) -> None:
    """A pale grid, and no frame above and to the right."""
    ax.grid(alpha=0.3)
    ax.spines[["top", "right"]].set_visible(False)


def _curve(log_history: Sequence[dict], key: str) -> Curve:
    """The finite numbers logged under ``key``; an undefined metric (None) leaves a gap."""
    entries = ((entry.get("step"), entry.get(key)) for entry in log_history)
    return {step: value for step, value in entries if step is not None and _is_finite_number(value)}


def _is_finite_number(value: object) -> bool:
    return isinstance(value, (int, float)) and isfinite(value)


def _draw_forest(ax: Axes, differences: dict[str, Difference], x_label: str, unit: float, better: int) -> None:
    """One row a metric, from the top, in multiples of ``unit``; ``better`` is 1 where a rise is good, else -1."""
    ax.axvline(0, color=GREY, linewidth=1, linestyle="--")
    for row, difference in enumerate(differences.values()):
        low, middle, high = (value / unit for value in (difference.low, difference.difference, difference.high))
        told_apart = low > 0 or high < 0
        colour = (BLUE if middle * better > 0 else VERMILLION) if told_apart else GREY
        seeds = [value / unit for value in difference.by_seed if value is not None]
        ax.plot([low, high], [row, row], color=colour, linewidth=2.5, solid_capstyle="butt")
        ax.plot(seeds, [row + 0.22] * len(seeds), "o", color=colour, alpha=0.45, markersize=3.5, markeredgewidth=0)
        ax.plot(middle, row, "o" if told_apart else "D", color=colour, markersize=7)
        ax.annotate(
            f"{middle:+{'.3f' if unit == 1 else '.1f'}}",
            (1.02, row),
            xycoords=("axes fraction", "data"),
            va="center",
            color=colour,
        )
    ax.set_yticks(range(len(differences)), [metric_title(name) for name in differences])
    ax.set_ylim(len(differences) - 0.5, -0.5)
    ax.set_xlabel(x_label)
    clean(ax)


def _save(figure: Figure, path: str | os.PathLike) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return path
