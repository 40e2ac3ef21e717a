"""Plots: what is drawn is decided by a pure function; the files are pictures of the right size."""

from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from pair_pkg.report.plots import history_panels, plot_comparison, plot_history
from pair_pkg.report.statistics import Difference

CORPUS_LOG = [
    {"loss": 3.0, "learning_rate": 2e-5, "grad_norm": 1.0, "epoch": 0.5, "step": 10},
    {"eval_loss": 2.5, "eval_perplexity": 12.18, "eval_runtime": 1.0, "epoch": 0.5, "step": 10},
    {"loss": 2.0, "learning_rate": 1e-5, "grad_norm": 1.0, "epoch": 1.0, "step": 20},
    {"eval_loss": 2.0, "eval_perplexity": 7.39, "epoch": 1.0, "step": 20},
    {"train_runtime": 9.0, "train_loss": 2.5, "epoch": 1.0, "step": 20},
]
PAIR_LOG = [
    {"loss": 0.6, "learning_rate": 2e-5, "step": 5},
    {"eval_loss": 0.5, "eval_accuracy": 0.7, "eval_f1": None, "eval_mcc": 0.4, "eval_undefined": {}, "step": 5},
    {"eval_loss": 0.4, "eval_accuracy": 0.8, "eval_f1": 0.75, "eval_mcc": 0.5, "eval_undefined": {}, "step": 9},
]
RISE = Difference(0.808, 0.831, 0.023, 0.004, 0.041, 2000, 0, 0.95, (0.012, 0.034))
NONE = Difference(None, None, None, None, None, 2000, 2000, 0.95, (None, None))


def panels(log_history):
    return {panel.title: panel for panel in history_panels(log_history)}


def test_corpus_stage_shows_loss_perplexity_and_rate():
    drawn = panels(CORPUS_LOG)
    assert list(drawn) == ["Loss", "Validation perplexity", "Learning rate"]
    assert drawn["Loss"].curves == {"training": {10: 3.0, 20: 2.0}, "validation": {10: 2.5, 20: 2.0}}
    assert drawn["Validation perplexity"].curves["validation"] == {10: 12.18, 20: 7.39}


def test_pair_stage_shows_its_metrics_in_place_of_perplexity_and_gaps_for_undefined_ones():
    drawn = panels(PAIR_LOG)
    assert "Validation perplexity" not in drawn
    curves = {name: curve for name, curve in drawn["Validation metrics"].curves.items() if curve}
    assert curves == {"accuracy": {5: 0.7, 9: 0.8}, "F1": {9: 0.75}}


def test_panels_without_data_are_skipped_and_numbers_that_are_not_finite_left_out():
    assert list(panels(CORPUS_LOG[1:2])) == ["Loss", "Validation perplexity"]
    assert panels([{"loss": float("nan"), "step": 1}, {"loss": 2.0, "step": 2}])["Loss"].curves["training"] == {2: 2.0}


def test_perplexity_that_falls_far_is_drawn_on_a_log_scale():
    steep = [{"eval_perplexity": value, "step": step} for step, value in enumerate((30000.0, 400.0, 12.0))]
    assert panels(steep)["Validation perplexity"].log_scale
    assert not panels(CORPUS_LOG)["Validation perplexity"].log_scale


@pytest.mark.parametrize("log_history, num_panels", [(CORPUS_LOG, 3), (PAIR_LOG, 3), (CORPUS_LOG[:1], 2)])
def test_history_is_a_picture_that_grows_with_its_panels(tmp_path, log_history, num_panels):
    path = plot_history(log_history, tmp_path / "new" / "history.png")
    height, width, _ = matplotlib.image.imread(path).shape
    assert width == 7 * 150 and height == pytest.approx(150 * (0.7 + 2.3 * num_panels), abs=1)


@pytest.mark.parametrize("log_history", [[], [{"train_runtime": 1.0, "step": 3}], [{"loss": None, "step": 1}]])
def test_history_with_nothing_to_draw_writes_nothing(tmp_path, log_history):
    assert plot_history(log_history, tmp_path / "history.png") is None
    assert not list(tmp_path.iterdir())


def colours(path):
    """The distinct colours of a picture as hexadecimal text."""
    pixels = np.round(matplotlib.image.imread(path)[..., :3].reshape(-1, 3) * 255).astype(int)
    return {"#{:02X}{:02X}{:02X}".format(*pixel) for pixel in np.unique(pixels, axis=0)}


@pytest.mark.parametrize(
    "name, sign, colour", [("f1", 1, "#0072B2"), ("f1", -1, "#D55E00"), ("mean_squared_error", -1, "#0072B2")]
)
def test_colour_tells_help_from_harm(tmp_path, name, sign, colour):
    low, high = sorted((sign * 0.004, sign * 0.041))
    difference = replace(RISE, difference=sign * 0.023, low=low, high=high)
    drawn = colours(plot_comparison({name: difference}, tmp_path / "one.png"))
    assert {"#0072B2", "#D55E00"} & drawn == {colour}


def test_interval_with_zero_is_grey_and_undefined_metrics_are_left_out(tmp_path):
    drawn = colours(plot_comparison({"mcc": replace(RISE, low=-0.01), "roc_auc": NONE}, tmp_path / "grey.png"))
    assert not {"#0072B2", "#D55E00"} & drawn
    assert plot_comparison({"roc_auc": NONE}, tmp_path / "none.png") is None
    assert not (tmp_path / "none.png").exists()


def test_plots_leave_no_global_figures(tmp_path):
    from matplotlib import _pylab_helpers

    plot_history(CORPUS_LOG, tmp_path / "history.png")
    plot_comparison({"accuracy": RISE, "mean_squared_error": RISE}, tmp_path / "comparison.svg")
    assert not _pylab_helpers.Gcf.figs
    assert (tmp_path / "comparison.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_general_text_and_the_probe_have_their_curves():
    log = [
        {"step": step, "eval_loss": 2.0, "eval_perplexity": 8.0 - step, "eval_general_perplexity": 5.0 + step,
         "eval_probe": 0.7 - step / 10}
        for step in (0, 2)
    ]  # fmt: skip
    panels = {panel.title: panel for panel in history_panels(log)}
    assert list(panels) == ["Loss", "Validation perplexity", "Probe"]
    assert panels["Validation perplexity"].curves == {"domain": {0: 8.0, 2: 6.0}, "general text": {0: 5.0, 2: 7.0}}
    assert panels["Probe"].curves == {"frozen encoder": {0: 0.7, 2: pytest.approx(0.5)}}
