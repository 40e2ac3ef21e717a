"""The page of ``serve``, by gradio: two sentences and what a model says of them, one sentence and its neighbours.

The page asks nobody outside: no analytics, no font from elsewhere. Texts reach it as text, never as HTML.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# read when gradio is imported, and by the Hub's client
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import gradio as gr  # noqa: E402

from pair_pkg.errors import InputError  # noqa: E402
from pair_pkg.search.answers import Answer  # noqa: E402
from pair_pkg.stages.search import hit_cells  # noqa: E402

MAX_CHARACTERS = 20_000  # of a text: far more than a model reads
LARGEST_UPLOAD = "1kb"  # the page takes no files, and its server none either
FONTS = ("system-ui", "sans-serif")
THEME = gr.themes.Default(font=list(FONTS), font_mono=["ui-monospace", "monospace"])
# drawn half transparent under black letters, in both themes: pale, so that these can be read on the dark one too
COLOURS = {"sentence 1": "#a8d0ff", "sentence 2": "#ffc9a0", "special": "#d9d9d9"}

WIDTHS = {"rank": 7, "cosine": 10, "probability": 13, "same": 8, "id": 12}  # percent; the text takes what is left

Tokens = list[tuple[str, str]]  # a token and whose it is: a key of COLOURS


@dataclass(frozen=True)
class Judged:
    """What the page shows of a pair."""

    verdict: str  # the label, or the score where labels are scores
    probabilities: dict[str, float]  # of each label; empty for scores
    details: str  # a line
    tokens: Tokens


JudgePair = Callable[[str, str], Judged]
FindNeighbours = Callable[[str], Answer]


def build_page(title: str, about: str, judge: JudgePair, find: FindNeighbours | None) -> gr.Blocks:
    """The page of a model; without ``find`` it has no neighbours. ``about`` is a line of plain text."""
    with gr.Blocks(title=title, analytics_enabled=False) as page:
        gr.Textbox(value=about, label=title, interactive=False, lines=1)
        if find is None:
            _compare(judge)
        else:
            with gr.Tab("Two sentences"):
                _compare(judge)
            with gr.Tab("Neighbours"):
                _neighbours(find)
    return page


@contextmanager
def opened(page: gr.Blocks, host: str, port: int) -> Iterator[str]:
    """Serve a page in this block; gives its address. Raises ``InputError`` where the port is not to be had."""
    page.queue(default_concurrency_limit=1)
    try:
        _, url, _ = page.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
            ssr_mode=False, mcp_server=False, pwa=False, enable_monitoring=False, run_history=False,
            max_file_size=LARGEST_UPLOAD, footer_links=["api"], theme=THEME,
        )  # fmt: skip
    except OSError as error:
        raise InputError(f"--host {host}, --port {port}: {error}; give another port, such as {port + 1}") from error
    try:
        yield url
    finally:
        page.close(verbose=False)


def _compare(judge: JudgePair) -> None:
    with gr.Row():
        boxes = [_text_box(f"Sentence {number}") for number in (1, 2)]
    button = gr.Button("Compare", variant="primary")
    verdict = gr.Textbox(label="Verdict", interactive=False)
    probability = gr.Label(label="Probability of each label", show_heading=False)  # its heading is no decision
    details = gr.Textbox(label="How it was decided", interactive=False, lines=1)
    tokens = gr.HighlightedText(label="Tokens, as the model reads them", color_map=COLOURS, show_legend=True)

    def compare(sentence1: str, sentence2: str) -> tuple:
        judged = judge(*(_checked(text) for text in (sentence1, sentence2)))
        return judged.verdict, judged.probabilities or None, judged.details, judged.tokens

    events = [button.click, *(box.submit for box in boxes)]
    gr.on(events, compare, boxes, [verdict, probability, details, tokens], api_name="compare", concurrency_id="model")


def _neighbours(find: FindNeighbours) -> None:
    box = _text_box("Sentence")
    button = gr.Button("Find", variant="primary")
    table = gr.Dataframe(
        label="Nearest texts of the index; where a model says whether they mean the same, the surest first",
        interactive=False,
        wrap=True,
        datatype="str",
    )

    def search(sentence: str) -> gr.Dataframe:
        header, rows = hit_cells(find(_checked(sentence)))
        return gr.Dataframe({"headers": header, "data": rows}, column_widths=[*_widths(header)])

    gr.on([button.click, box.submit], search, box, table, api_name="neighbours", concurrency_id="model")


def _widths(header: list[str]) -> list[str]:
    widths = [WIDTHS[name] for name in header[:-1]]
    return [f"{width}%" for width in (*widths, 100 - sum(widths))]


def _text_box(label: str) -> gr.Textbox:
    return gr.Textbox(label=label, lines=2, max_length=MAX_CHARACTERS, placeholder="Type a sentence")


def _checked(text: str) -> str:
    """A text that can be judged; the page shows the error of any other."""
    if not text.strip():
        raise gr.Error("Type a sentence in each box.", print_exception=False)
    if len(text) > MAX_CHARACTERS:
        raise gr.Error(f"At most {MAX_CHARACTERS:,} characters.", print_exception=False)
    return text
