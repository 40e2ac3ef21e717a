"""The picture of attentions: written whole, readable labels, and a note on what cannot be drawn."""

import numpy as np
import pytest
from matplotlib.image import imread

from pair_pkg.report import attention_plot
from pair_pkg.report.attention_plot import choose_fonts, plot_attentions

NO_FONT = "𒀀"  # not in the font that matplotlib brings along


def attentions(tokens, layers=4, heads=2):
    values = np.random.default_rng(0).random((layers, heads, tokens, tokens))
    return values / values.sum(-1, keepdims=True)


@pytest.mark.parametrize("layers", [1, 2, 4])
def test_a_picture_with_a_panel_a_layer(layers, tmp_path):
    note = plot_attentions(attentions(6, layers), ["[CLS]", "the", "$5", "pump", "a\nb", "[SEP]"], tmp_path / "a.png")
    assert note is None
    image = imread(tmp_path / "a.png")
    assert image.shape[0] > 300 and len(np.unique(image)) > 50


def test_what_is_not_shown_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(attention_plot.font_manager.fontManager, "ttflist", [])
    note = plot_attentions(attentions(60), ["word", NO_FONT] * 30, tmp_path / "a.png")
    assert "no installed font has 1 characters" in note and "fonts-noto-cjk" in note
    assert "the first 40 of 60 tokens" in note
    assert attention_plot.drawable(NO_FONT, {NO_FONT}) == "U+12000"


def test_a_second_font_is_taken_for_what_the_first_lacks(monkeypatch):
    covered = {"first": set("abc"), "second": set("水泵"), "Last Resort": set("abc水泵鑫")}
    fonts = [type("Font", (), {"name": name, "fname": name, "style": "normal"})() for name in covered]
    monkeypatch.setattr(attention_plot.font_manager, "findfont", lambda family: "first")
    monkeypatch.setattr(attention_plot.font_manager, "fontManager", type("Manager", (), {"ttflist": fonts})())
    monkeypatch.setattr(attention_plot, "_characters", covered.__getitem__)
    assert choose_fonts(["ab", "水泵"]) == (["DejaVu Sans", "second"], set())
    assert choose_fonts(["水鑫"]) == (["DejaVu Sans", "second"], {"鑫"})
