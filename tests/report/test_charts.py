"""Charts draw the numbers that they are given."""

import numpy as np
import pytest

from pair_pkg.pairs.calibration import expected_calibration_error
from pair_pkg.report import charts
from pair_pkg.report.charts import Ranked, Trusted, reliability_bins
from pair_pkg.report.svg import inline_svg

LABELS = np.array([0, 0, 1, 1, 1, 0])
SCORES = np.array([0.1, 0.4, 0.35, 0.8, 0.9, 0.6])


def test_the_bins_are_those_of_the_calibration_error():
    draw = np.random.default_rng(0)
    confidence, hits = draw.uniform(size=500), draw.integers(2, size=500)
    means, shares, counts = reliability_bins(Trusted(confidence, hits))
    assert counts.sum() == 500
    error = (np.abs(means - shares) * counts).sum() / 500
    assert error == pytest.approx(expected_calibration_error(confidence, hits))


def test_the_curves_are_those_of_the_scores():
    lines = charts.draw_roc({"model": Ranked(LABELS, SCORES)}).axes[0].lines
    false, true = lines[1].get_data()
    assert np.trapezoid(true, false) == pytest.approx(7 / 9)  # of 9 couples the scores order 7 rightly
    lines = charts.draw_precision_recall({"a": Ranked(LABELS, SCORES), "b": Ranked(LABELS, -SCORES)}).axes[0].lines
    assert lines[1].get_ydata()[0] == pytest.approx(0.5)
    assert lines[0].get_xdata()[0] == 1.0 and lines[0].get_ydata()[0] == pytest.approx(0.5)


def test_a_histogram_counts_every_pair_once():
    figure = charts.draw_histogram(Ranked(LABELS, SCORES), ["no", "yes"], "probability", 0.5)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == len(LABELS)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["label no", "label yes", "threshold 0.500"]
    outside = charts.draw_histogram(Ranked(LABELS, SCORES - 0.5), ["no", "yes"], "cosine", None).axes[0]
    assert sum(bar.get_height() for bar in outside.patches) == len(LABELS)


def test_a_confusion_matrix_tells_counts_and_shares():
    counts = np.array([[8, 2], [5, 15]])
    written = [text.get_text() for text in charts.draw_confusion(counts, ["no", "yes"]).axes[0].texts]
    assert written == ["8\n80 %", "2\n20 %", "5\n25 %", "15\n75 %"]
    assert not charts.draw_confusion(np.eye(13, dtype=int), [f"class {n}" for n in range(13)]).axes[0].texts


def test_names_with_dollars_and_characters_of_other_scripts_are_drawn(recwarn):
    figure = charts.draw_confusion(np.eye(2, dtype=int), ["$x_{", "花呗"])
    svg = inline_svg(figure, "decisions", "c")
    assert "$x_{" in svg and "花呗" in svg
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
