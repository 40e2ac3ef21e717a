"""A figure as inline SVG in the colours of its page: it follows the page's theme and refers to nothing outside."""

import io
import re
import warnings
from xml.etree import ElementTree

from markupsafe import Markup
from matplotlib import rc_context
from matplotlib.figure import Figure

from pair_pkg.errors import one_line
from pair_pkg.report.plots import BLUE, GREEN, GREY, VERMILLION

# What is drawn in a colour on the left takes that of the page on the right.
PAGE_COLOURS = {
    BLUE: "var(--blue)",
    VERMILLION: "var(--vermillion)",
    GREEN: "var(--green)",
    GREY: "var(--muted)",
    "#000000": "var(--ink)",
    "#b0b0b0": "var(--line)",  # matplotlib's grid
}
_COLOUR = re.compile("|".join(map(re.escape, PAGE_COLOURS)), re.IGNORECASE)
_BY_LOWER = {colour.lower(): own for colour, own in PAGE_COLOURS.items()}
_FONT = re.compile(r"(font-family:|font: (?:\d+ )?[\d.]+px) [^;]+")  # by the version of matplotlib
_REFERENCE = re.compile(r"^#|(?<=url\()#")


def inline_svg(figure: Figure, label: str, prefix: str) -> Markup:
    """A figure as an ``<svg>`` element; ``label`` says in words what it shows, ``prefix`` keeps its ids apart.

    Text stays text, in the page's font. The element has no size of its own: the page gives it one.
    """
    buffer = io.StringIO()
    unsigned = {"Date": None, "Creator": None, "Format": None, "Type": None}
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the reader's browser has its own fonts
        figure.savefig(buffer, format="svg", transparent=True, metadata=unsigned)
    root = ElementTree.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if _bare(child.tag) in ("metadata", "style"):  # the page's own style holds the one rule that is in it
                parent.remove(child)
    for element in root.iter():
        element.tag = _bare(element.tag)
        element.attrib = {_bare(name): _of_page(_bare(name), text, prefix) for name, text in element.attrib.items()}
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.attrib |= {"role": "img", "aria-label": one_line(label)}
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - serialized, so escaped, just above


def _bare(name: str) -> str:
    """A name without its namespace, which HTML does not need."""
    return name.rpartition("}")[2]


def _of_page(name: str, text: str, prefix: str) -> str:
    """An attribute's value with the page's colours and font, and ids that are this figure's."""
    if name == "id":
        return f"{prefix}-{text}"
    if name == "style":
        text = _FONT.sub(r"\1 var(--font)", text)
    text = _COLOUR.sub(lambda match: _BY_LOWER[match.group().lower()], text)
    return _REFERENCE.sub(f"#{prefix}-", text)
