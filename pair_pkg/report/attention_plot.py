"""Attentions of one text as a picture: a panel a layer, tokens on both axes, in a font that has their characters."""

# L layers, H heads, T tokens

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font

from pair_pkg.errors import one_line

MAX_TOKENS = 40  # more labels would run into each other
INCHES_A_TOKEN = 0.2
DOTS_PER_INCH = 150
LABEL_SIZE = 7
LAST_RESORT = "Last Resort"  # a font that has every character, as one and the same box


def plot_attentions(attentions: np.ndarray, labels: Sequence[str], path: str | os.PathLike) -> str | None:
    """Draw attentions (L, H, T, T), the mean over heads, one panel a layer; returns a note on what is not shown.

    The first 40 tokens are drawn. A character that no installed font has is shown by its code point.
    """
    shown = min(len(labels), MAX_TOKENS)
    means = attentions[:, :, :shown, :shown].mean(1)  # (L, shown, shown)
    families, missing = choose_fonts(labels[:shown])
    drawn = [drawable(label, missing) for label in labels[:shown]]
    columns = min(3, len(means))
    rows = math.ceil(len(means) / columns)
    side = 1.2 + INCHES_A_TOKEN * max(shown, 8)
    figure = Figure(figsize=(columns * side + 0.8, rows * side + 0.6), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for layer, ax in enumerate(axes):
        if layer < len(means):
            image: Any = _draw_layer(ax, means[layer], f"layer {layer + 1}", drawn, families, float(means.max()))
        else:
            ax.set_visible(False)
    figure.colorbar(image, ax=axes.tolist(), shrink=0.6, label="attention, mean of the heads (a row sums to 1)")
    figure.suptitle("from each token (row) to each token (column)", fontsize=10)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DOTS_PER_INCH)
    return _note(len(labels), shown, missing)


def choose_fonts(labels: Iterable[str]) -> tuple[list[str], set[str]]:
    """Font families that draw the labels together, the usual one first, and the characters that none of them has."""
    families = ["DejaVu Sans"]  # matplotlib brings it along
    missing = {char for label in labels for char in one_line(label)} - _characters(font_manager.findfont(families[0]))
    fonts = sorted(font_manager.fontManager.ttflist, key=lambda font: (font.style != "normal", str(font.name)))
    for font in fonts:
        if not missing:
            break
        if LAST_RESORT in font.name or font.name in families:
            continue
        if covered := missing & _characters(font.fname):
            families.append(font.name)
            missing -= covered
    return families, missing


def drawable(label: str, missing: set[str]) -> str:
    """A label with the code points of characters that cannot be drawn.

    >>> drawable("手机", {"手", "机"}), drawable("pump", {"手"})
    ('U+624B U+673A', 'pump')
    """
    parts = [f"U+{ord(char):04X} " if char in missing else char for char in one_line(label)]
    return "".join(parts).strip().replace("$", r"\$")  # a dollar would begin a formula


def _characters(font_path: str) -> set[str]:
    return {chr(code) for code in FT2Font(font_path).get_charmap()}


def _draw_layer(
    ax: Axes, means: np.ndarray, title: str, labels: Sequence[str], families: list[str], largest: float
) -> object:
    image = ax.imshow(means, cmap="viridis", vmin=0, vmax=largest)
    places = range(len(labels))
    ax.set_xticks(places, labels, rotation=90, fontsize=LABEL_SIZE, fontfamily=families)
    ax.set_yticks(places, labels, fontsize=LABEL_SIZE, fontfamily=families)
    ax.set_title(title, loc="left", fontsize=9)
    return image


def _note(num_tokens: int, shown: int, missing: set[str]) -> str | None:
    notes = []
    if missing:
        example = "".join(sorted(missing)[:5])
        notes.append(
            f"no installed font has {len(missing)} characters ({example}): the picture shows their code points; "
            "install a font that has them, such as Noto Sans CJK (Debian: fonts-noto-cjk)"
        )
    if shown < num_tokens:
        notes.append(f"the picture shows the first {shown} of {num_tokens} tokens")
    return "; ".join(notes) or None
