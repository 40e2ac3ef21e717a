"""The charts of runs: which of them a folder has the numbers for, and what each shows in words."""

from collections.abc import Mapping

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from pair_pkg.columns import BI_ENCODER, CROSS_ENCODER
from pair_pkg.data.labels import LabelScheme
from pair_pkg.pairs.decision import Decision, bare_probability
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES
from pair_pkg.report.charts import (
    MAX_CURVES,
    Ranked,
    Trusted,
    draw_confusion,
    draw_histogram,
    draw_history_panel,
    draw_precision_recall,
    draw_reliability,
    draw_roc,
    draw_scatter,
)
from pair_pkg.report.page import Chart
from pair_pkg.report.plots import history_panels
from pair_pkg.report.svg import inline_svg
from pair_pkg.stages.run_folders import RunFolder


def history_charts(run: RunFolder) -> list[Chart]:
    """Losses, perplexity or pair metrics, learning rate and speed over the steps of a run."""
    charts = []
    for number, panel in enumerate(history_panels(run.history), start=1):
        last = ", ".join(
            f"{name} {list(curve.values())[-1]:.4g}" for name, curve in panel.curves.items() if curve
        )  # fmt: skip
        label = f"{panel.title} of {run.name} over the steps; at the end: {last}"
        charts.append(
            Chart(inline_svg(draw_history_panel(panel), label, f"{run.key}-h{number}"), f"At the end: {last}.")
        )
    return charts


def ranking_charts(runs: Mapping[str, RunFolder], prefix: str) -> list[Chart]:
    """ROC and precision-recall curves of the runs that have binary labels of both kinds, by their names."""
    ranked = {name: part for name, run in runs.items() if (part := _ranked(run)) is not None}
    if not ranked or len(ranked) > MAX_CURVES:
        return []
    areas = ", ".join(f"{name} {roc_auc_score(*part):.3f}" for name, part in ranked.items())
    precisions = ", ".join(f"{name} {average_precision_score(*part):.3f}" for name, part in ranked.items())
    drawn = (
        (draw_roc, "roc", f"Area under the ROC curve: {areas}. The dotted line is a guess."),
        (draw_precision_recall, "pr", f"Average precision: {precisions}. The dotted line is the share of positives."),
    )
    return [Chart(inline_svg(draw(ranked), caption, f"{prefix}-{word}"), caption) for draw, word, caption in drawn]


def calibration_chart(run: RunFolder) -> list[Chart]:
    """Probabilities against what came true, before and after calibration; nothing where there are none."""
    curves = _trusted(run)
    if not curves:
        return []
    binary = run.predictions.kind == BINARY
    axes = (
        ("probability of label 1", "share of label 1") if binary else ("highest probability", "share decided rightly")
    )
    title = "Reliability: the closer to the dotted line, the more a probability means what it says; a dot's size is "
    title += "its number of pairs."
    return [Chart(inline_svg(draw_reliability(curves, *axes), title, f"{run.key}-calibration"), title)]


def score_charts(run: RunFolder) -> list[Chart]:
    """Scores by label and the decisions of one run's test pairs."""
    scored = run.predictions
    if scored is None or not len(scored.labels):
        return []
    scheme, charts = LabelScheme.from_json(run.record["labels"]), []
    if scored.kind == BINARY:
        threshold = run.record.get("threshold")
        x_label = "cosine" if threshold is None and run.record.get("architecture") == BI_ENCODER else "probability"
        figure = draw_histogram(Ranked(scored.labels, scored.scores), scheme.names, x_label, threshold)
        caption = "How far the two labels lie apart, and where the threshold cuts."
        charts.append(Chart(inline_svg(figure, caption, f"{run.key}-histogram"), caption))
    if scored.kind == SCORES:
        caption = f"Score and label of {len(scored.labels):,} pairs."
        charts.append(Chart(inline_svg(draw_scatter(scored.labels, scored.scores), caption, f"{run.key}-s"), caption))
    elif (scored.decided >= 0).all():
        counts = np.zeros((len(scheme.names),) * 2, dtype=int)
        np.add.at(counts, (scored.labels, scored.decided), 1)
        right = int(np.trace(counts))
        caption = f"{right:,} of {counts.sum():,} decisions are right; percentages are shares of a row."
        charts.append(Chart(inline_svg(draw_confusion(counts, scheme.names), caption, f"{run.key}-confusion"), caption))
    return charts


def _ranked(run: RunFolder) -> Ranked | None:
    scored = run.predictions
    if scored is None or scored.kind != BINARY or len(np.unique(scored.labels)) < 2:
        return None
    return Ranked(scored.labels, scored.scores)


def _trusted(run: RunFolder) -> dict[str, Trusted]:
    """Probabilities of a run's test pairs, before (where the bare scores are known) and after calibration."""
    scored, fitted = run.predictions, run.metrics.get("decision")
    if scored is None or fitted is None or not len(scored.labels):
        return {}
    decision = Decision(**fitted)
    if scored.kind == CLASSES:
        logits = decision.temperature * np.log(np.maximum(scored.scores, 1e-300))  # up to what softmax takes off
        before = bare_probability(CLASSES, logits, are_cosines=False)
        return {name: _of_classes(part, scored.labels) for name, part in (("before", before), ("after", scored.scores))}
    curves = {"after": Trusted(scored.scores, scored.labels == 1)}
    are_cosines = {CROSS_ENCODER: False, BI_ENCODER: True}.get(run.record.get("architecture"))
    if scored.raw_scores is not None and are_cosines is not None and "members" not in run.record:
        bare = bare_probability(BINARY, scored.raw_scores, are_cosines)
        curves = {"before": Trusted(bare, scored.labels == 1), **curves}
    return curves


def _of_classes(probabilities: np.ndarray, labels: np.ndarray) -> Trusted:
    return Trusted(probabilities.max(1), probabilities.argmax(1) == labels)
