"""``python -m pair_pkg search --index DIR "text" ...``: the nearest texts, from words, a file or a prompt."""

import argparse
import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pair_pkg.data.corpus import read_documents
from pair_pkg.errors import InputError, one_line
from pair_pkg.report.tables import display_width, format_table
from pair_pkg.search.answers import Answer
from pair_pkg.search.searcher import RERANK_TOP_K, TOP_K, load_searcher
from pair_pkg.search.vector_files import write_beside
from pair_pkg.stages.row_files import refuse_input
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging
from pair_pkg.stages.text_input import add_encoder_flags, read_filled, text_paths, warn_of_dropped

PROMPT = "query> "
NARROWEST_TEXT = 20  # columns that a text is shown in at least

AnswerAll = Callable[[list[str]], list[Answer]]


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Answer the queries; returns the answers as ``--json`` prints them."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    if options.top_k < 1 or options.rerank_top_k < 1:
        raise InputError("--top_k and --rerank_top_k: give at least 1")
    if options.texts and options.queries:
        raise InputError("--queries: give the queries as words or as a file, not both")
    output = Path(options.output) if options.output else None
    if output and output.suffix != ".jsonl":
        raise InputError(f"{output}: answers are written as JSON lines; name it .jsonl")
    if output and options.queries:
        refuse_input(output, text_paths(options.queries))
    prompted = not options.texts and not options.queries and sys.stdin.isatty()
    if output and prompted:
        raise InputError(f"{output}: no queries to answer there; give them as words or with --queries")
    answer_all = _answering(options)
    if prompted:
        return _converse(options, answer_all)
    queries = list(_queries(options))
    if not queries:
        raise InputError("no query is left; give words, a file with --queries, or lines on the standard input")
    answers = answer_all(queries)
    if output:
        write_beside(output, lambda temporary: temporary.write_text("".join(map(_json_line, answers)), "utf-8"))
        announce(f"{output}: {len(answers):,} answers")
    else:
        _show(options, answers)
    return [dataclasses.asdict(answer) for answer in answers]


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg search", description="Find the nearest texts of an index.")
    parser.add_argument("texts", nargs="*", help="queries; without any, and without --queries, a prompt asks for them")
    parser.add_argument("--index", required=True, help="folder of the index")
    add_encoder_flags(parser, model_required=False)
    parser.add_argument("--queries", nargs="+", help="files of queries: txt, csv, tsv, json, jsonl, parquet")
    parser.add_argument("--text_column", help="column of the queries; unset: text, content, document, ...")
    parser.add_argument("--encoding", help="encoding of the files of queries; unset: detected")
    parser.add_argument("--top_k", type=int, default=TOP_K, help=f"texts to show for a query (default: {TOP_K})")
    parser.add_argument("--rerank", metavar="DIR", help="cross-encoder that ranks the nearest texts anew")
    parser.add_argument(
        "--rerank_top_k",
        type=int,
        default=RERANK_TOP_K,
        help=f"nearest texts that it is shown, at least --top_k (default: {RERANK_TOP_K})",
    )
    parser.add_argument("--json", action="store_true", help="print JSON lines, one a query")
    parser.add_argument("--output", help="write JSON lines to this file")
    return parser


def _answering(options: argparse.Namespace) -> AnswerAll:
    """Load all that answers need, once; the model is the one that the index was built with, if none is named."""
    searcher = load_searcher(
        options.index,
        model=options.model,
        reranker=options.rerank,
        dtype=options.dtype,
        device=options.device,
        batch_tokens=options.batch_tokens,
    )
    return partial(searcher.search, top_k=options.top_k, rerank_top_k=options.rerank_top_k)


def _queries(options: argparse.Namespace) -> Iterator[str]:
    """The queries of the command line, of its files, or the lines of the standard input."""
    if options.texts:
        yield from options.texts
    elif options.queries:
        dropped: list[str] = []
        documents = read_documents(
            text_paths(options.queries), text_column=options.text_column, encoding=options.encoding, document_per="line"
        )
        yield from (document.text for document in read_filled(documents, dropped))
        warn_of_dropped(dropped)
    else:
        yield from (line.strip() for line in sys.stdin if line.strip())


def _converse(options: argparse.Namespace, answer_all: AnswerAll) -> list[dict[str, Any]]:
    """Ask for queries until the end of input (Ctrl-D)."""
    import readline  # noqa: F401  # arrow keys and a history for input()

    announce("a query a line; Ctrl-D ends")
    answers: list[dict[str, Any]] = []
    while True:
        try:
            query = input(PROMPT).strip()
        except EOFError:
            announce("")
            return answers
        if not query:
            announce("the query is empty; type some words, or Ctrl-D to end")
            continue
        found = answer_all([query])
        _show(options, found)
        answers += [dataclasses.asdict(answer) for answer in found]


def _show(options: argparse.Namespace, answers: Sequence[Answer]) -> None:
    for answer in answers:
        if options.json:
            announce(_json_line(answer).rstrip("\n"))
        else:
            announce(answer_table(answer, shutil.get_terminal_size().columns), "")


def answer_table(answer: Answer, columns: int) -> str:
    """A query and its hits for a terminal of so many columns; control characters are shown as escapes."""
    if not answer.hits:
        return f"{shown(answer.query, columns)}\n(nothing found)"
    header, rows = hit_cells(answer)
    widths = [max(display_width(str(row[place])) for row in [header, *rows]) for place in range(len(header) - 1)]
    room = max(NARROWEST_TEXT, columns - sum(widths) - 2 * len(widths))
    rows = [[*row[:-1], shown(row[-1], room)] for row in rows]
    table = format_table(header, rows, "rr" + ("rl" if "same" in header else "") + "ll")
    return f"{shown(answer.query, columns)}\n{table}"


def shown(text: str, columns: int) -> str:
    """A text in one line of at most so many columns, without control characters.

    >>> shown("a\\nb\\x1b[31m", 20), shown("手机手机手机", 8)
    ('a b\\\\x1b[31m', '手机手…')
    """
    line = one_line(text)
    if display_width(line) <= columns:
        return line
    kept, width = [], 1  # of the dots
    for char in line:
        width += display_width(char)
        if width > columns:
            break
        kept.append(char)
    return "".join(kept) + "…"


def hit_cells(answer: Answer) -> tuple[list[str], list[list[str]]]:
    """The header and a row for each hit: rank, cosine, what a decision says of it, id and text."""
    judged = any(hit.same is not None for hit in answer.hits)
    header = ["rank", "cosine", *(["probability", "same"] if judged else []), "id", "text"]
    rows = []
    for rank, hit in enumerate(answer.hits, start=1):
        verdict = [f"{hit.probability:.3f}", "yes" if hit.same else "no"] if judged else []
        rows.append([str(rank), f"{hit.cosine:.4f}", *verdict, hit.id, hit.text])
    return header, rows


def _json_line(answer: Answer) -> str:
    """One answer; ASCII only, so that no text can steer a terminal."""
    return json.dumps(dataclasses.asdict(answer)) + "\n"
