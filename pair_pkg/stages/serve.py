"""``python -m pair_pkg serve --model DIR [--index DIR]``: a page to try a finished model, on this machine or a Space.

python -m pair_pkg serve --model runs/pairs
python -m pair_pkg serve --model runs/pairs --index index --write_space space
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.columns import CROSS_ENCODER
from pair_pkg.errors import InputError
from pair_pkg.interrupts import Interrupted
from pair_pkg.modeling.loading import load_tokenizer, resolve_package
from pair_pkg.pairs.metrics import BINARY
from pair_pkg.pairs.scorer import Scorer, load_scorer
from pair_pkg.records import read_record
from pair_pkg.search.answers import Answer
from pair_pkg.search.index_folder import read_manifest
from pair_pkg.search.searcher import TOP_K, load_searcher
from pair_pkg.stages.score import describe_verdict
from pair_pkg.stages.space import write_space
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging

if TYPE_CHECKING:
    from pair_pkg.stages.serve_page import Judged, Tokens

DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 7860  # gradio's own, and that of a Space
TITLE = "pair_pkg"


def main(argv: Sequence[str] | None = None) -> str:
    """Serve until a signal or Ctrl-C, or write a Space; returns the page's address, or the Space's folder."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    if options.top_k < 1:
        raise InputError(f"--top_k {options.top_k}: give at least 1")
    if not 0 < options.port < 2**16:
        raise InputError(f"--port {options.port} is out of range; give 1 to 65535, such as {DEFAULT_PORT}")
    if options.encoder and not options.index:
        raise InputError("--encoder is the bi-encoder of an index; give --index with it")
    gradio_page = _import_page()
    model_dir = resolve_package(options.model)
    scorer = load_scorer(model_dir)
    encoder = _encoder_of_index(options.index, options.encoder, model_dir) if options.index else None
    if options.write_space:
        return str(write_space(Path(options.write_space), model_dir, options.index, encoder, options.top_k))
    find = _finding(options.index, encoder, options.top_k, scorer, model_dir) if options.index else None
    page = gradio_page.build_page(TITLE, _about(model_dir, options.index), judging(scorer, model_dir), find)
    with gradio_page.opened(page, options.host, options.port) as url:
        announce(f"{url} (Ctrl-C ends it)")
        _wait()
    return url


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg serve", description="A page to try a finished model, for a browser.")
    parser.add_argument("--model", required=True, help="folder that run_pair_cls.py wrote")
    parser.add_argument("--index", help="folder of an index, for the neighbours of a sentence (default: none)")
    parser.add_argument(
        "--encoder",
        help="the bi-encoder that the index was built with; unset: --model where that is one, else as the index says",
    )
    parser.add_argument("--top_k", type=int, default=TOP_K, help=f"neighbours to show (default: {TOP_K})")
    parser.add_argument(
        "--host", default=DEFAULT_HOST, help="address to serve at; 0.0.0.0 lets other machines in (default: this one's)"
    )
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help=f"port to serve at (default: {DEFAULT_PORT})")
    parser.add_argument(
        "--write_space", metavar="FOLDER", help="write all that a Hub Space needs there, and serve nothing"
    )
    return parser


def judging(scorer: Scorer, model_dir: str) -> Callable[[str, str], "Judged"]:
    """What the page says of a pair, as ``predict_one`` does, with the tokens that the model reads."""
    record = read_record(model_dir)
    member_dir = str(Path(model_dir, record["members"][0])) if "members" in record else model_dir
    record = read_record(member_dir)
    tokenizer, together = load_tokenizer(member_dir), record["architecture"] == CROSS_ENCODER

    def judge(sentence1: str, sentence2: str) -> "Judged":
        verdict = scorer.predict_one(sentence1, sentence2)
        tokens = token_parts(tokenizer, sentence1, sentence2, record["max_seq_length"], together=together)
        return _import_page().Judged(
            verdict=f"{verdict.score:.4g}" if verdict.verdict is None else verdict.verdict,
            probabilities=_probabilities(scorer, verdict.score),
            details=f"{describe_verdict(verdict)}; {len(tokens)} tokens",
            tokens=tokens,
        )

    return judge


def token_parts(
    tokenizer: PreTrainedTokenizerFast, sentence1: str, sentence2: str, max_seq_length: int, *, together: bool
) -> "Tokens":
    """The tokens of a pair in the order in which a model reads them, each with the name of what it is of."""
    rows = [(sentence1, sentence2)] if together else [(sentence1,), (sentence2,)]
    parts = []
    for number, row in enumerate(rows):
        encoding = tokenizer(*row, truncation="longest_first", max_length=max_seq_length)
        for token, sequence in zip(encoding.tokens(), encoding.sequence_ids(0)):
            parts.append((token, "special" if sequence is None else f"sentence {number + sequence + 1}"))
    return parts


def _probabilities(scorer: Scorer, score: float | list[float]) -> dict[str, float]:
    """Of each label by its name; empty for scores, which have none."""
    if scorer.decision is None:
        return {}
    found = scorer.decision.probability(np.array([score]))[0]
    values = [1 - found, found] if scorer.scheme.kind == BINARY else found
    return {name: float(value) for name, value in zip(scorer.scheme.names, values)}


def _finding(index_dir: str, encoder: str, top_k: int, scorer: Scorer, model_dir: str) -> Callable[[str], Answer]:
    """The neighbours of a sentence; a model of binary labels says of each whether it means the same."""

    def judge_pairs(left: list[str], right: list[str]) -> tuple[np.ndarray, np.ndarray]:
        found = scorer.predict(left, right)
        return found.probabilities, np.array(found.verdicts) == scorer.scheme.names[1]

    searcher = load_searcher(index_dir, model=encoder)
    by_cosine = Path(encoder).resolve() == Path(model_dir).resolve()
    if scorer.decision is not None and scorer.scheme.kind == BINARY and not by_cosine:
        searcher = dataclasses.replace(searcher, judge=None, judge_pairs=judge_pairs)
    return lambda sentence: searcher.search([sentence], top_k=top_k, rerank_top_k=top_k)[0]


def _encoder_of_index(index_dir: str, encoder: str | None, model_dir: str) -> str:
    """The bi-encoder of the index: the one that was named, the model if it is one, or the one that the index names."""
    record = read_record(model_dir) if Path(model_dir).is_dir() else None
    is_bi_encoder = record is not None and record.get("architecture") not in (None, CROSS_ENCODER)
    named = encoder or (model_dir if is_bi_encoder else read_manifest(Path(index_dir))["model"].get("name"))
    return resolve_package(named)


def _about(model_dir: str, index_dir: str | None) -> str:
    record = read_record(model_dir)
    what = "an ensemble of models" if "members" in record else f"a {record['architecture'].replace('_', '-')}"
    texts = f"; an index of {read_manifest(Path(index_dir))['rows']:,} texts" if index_dir else ""
    return f"{Path(model_dir).resolve().name}: {what}{texts}"


def _import_page() -> ModuleType:
    try:
        from pair_pkg.stages import serve_page
    except ImportError as error:
        raise InputError(f"serve needs gradio ({error}); install it with: pip install 'pair-pkg[serve]'") from error
    return serve_page


def _wait() -> None:
    """Until a signal, which is how a server ends."""
    try:
        threading.Event().wait()
    except (Interrupted, KeyboardInterrupt):
        announce("closed")
