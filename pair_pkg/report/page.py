"""One self-contained HTML page: its parts as values, and the template that makes a document of them.

No script, no request to anywhere: a content security policy in the page itself forbids both.
"""

from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pair_pkg.errors import one_line
from pair_pkg.report.tables import Cells

TEMPLATE_NAME = "page.html"


@dataclass(frozen=True)
class Text:
    """A paragraph."""

    sentence: str
    kind: str = field(default="text", init=False)


@dataclass(frozen=True)
class Table:
    """A table with its caption, and what its marks mean.

    ``long`` is for columns of texts, which wrap; ``folded`` shows the caption until a reader opens it.
    """

    caption: str
    cells: Cells
    note: str = ""
    long: bool = False
    folded: bool = False
    kind: str = field(default="table", init=False)


@dataclass(frozen=True)
class Chart:
    """An ``<svg>`` element, and what to see in it."""

    svg: Markup
    caption: str


@dataclass(frozen=True)
class Charts:
    """Charts side by side where the window is wide enough."""

    charts: list[Chart]
    kind: str = field(default="charts", init=False)


Block = Text | Table | Charts


@dataclass(frozen=True)
class Section:
    """A heading, what stands under it, and sections of the next level."""

    title: str
    blocks: list[Block] = field(default_factory=list)
    sections: list["Section"] = field(default_factory=list)


@dataclass(frozen=True)
class Tile:
    """One number of the answer."""

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class Answer:
    """What a run says, in a sentence and a few numbers; ``tone`` is good, bad or plain."""

    name: str
    sentence: str
    tiles: list[Tile]
    tone: str = "plain"


@dataclass(frozen=True)
class Page:
    """A whole page: the answers first."""

    title: str
    subtitle: str
    answers: list[Answer]
    sections: list[Section]


def render_page(page: Page) -> str:
    """The page as one HTML document. Every text is escaped, and control characters are shown as escapes."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"line": one_line, "prose": _prose}
    return environment.get_template(TEMPLATE_NAME).render(page=page)


def _prose(text: str) -> str:
    """A sentence whose percentages are not parted from their sign at the end of a line."""
    return one_line(text).replace(" %", "\N{NO-BREAK SPACE}%")
