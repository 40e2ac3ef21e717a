"""Inline SVG: the page's colours, ids of its own, text as text, and no name of a namespace left."""

import re
from xml.etree import ElementTree

from matplotlib.figure import Figure

from pair_pkg.report.plots import BLUE, GREY
from pair_pkg.report.svg import inline_svg


def drawn(prefix="one", label="a line"):
    figure = Figure(figsize=(3, 2))
    ax = figure.subplots()
    ax.plot([0, 1], [1, 0], color=BLUE, marker="o", label="花呗 <b>")
    ax.axhline(0.5, color=GREY)
    ax.legend()
    return inline_svg(figure, label, prefix)


def test_it_is_a_well_formed_element_without_a_word_of_the_outside():
    svg = drawn()
    root = ElementTree.fromstring(svg)
    assert root.tag == "svg" and root.get("role") == "img" and root.get("viewBox")
    assert "http" not in svg and "xmlns" not in svg and "<metadata" not in svg and "<style" not in svg
    assert not re.search(r"#[0-9a-fA-F]{6}\b(?<!#ffffff)", svg.replace("#cccccc", ""))  # the legend's frame
    assert "var(--blue)" in svg and "var(--muted)" in svg and "var(--font)" in svg


def test_text_stays_text_and_is_escaped():
    svg = drawn(label='"quoted" <i>\n\x1b')
    assert "花呗 &lt;b&gt;" in svg and "<i>" not in svg.split(">", 1)[0].replace("&lt;i&gt;", "")
    assert ElementTree.fromstring(svg).get("aria-label") == '"quoted" <i> \\x1b'


def test_ids_of_two_figures_never_meet_and_references_stay_inside():
    parts = [drawn("one"), drawn("two")]
    ids = [set(re.findall(r'\bid="([^"]+)"', svg)) for svg in parts]
    assert ids[0] and not ids[0] & ids[1]
    for svg, own in zip(parts, ids):
        references = set(re.findall(r'href="#([^"]+)"', svg)) | set(re.findall(r"url\(#([^)]+)\)", svg))
        assert references and references <= own
    assert drawn("one") == parts[0]
