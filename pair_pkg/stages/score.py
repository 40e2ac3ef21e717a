"""``python -m pair_pkg score``: from a fine-tuned model to a calibrated probability and a verdict of each pair.

python -m pair_pkg score --model out/pair pairs.csv --output scored.csv
python -m pair_pkg score --model out/pair --sentences "How do I repay?" "What is the way to pay back?"
torchrun --standalone --nproc_per_node 2 -m pair_pkg score --model out/pair pairs.csv --output scored.csv
"""

import logging
import sys
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.errors import InputError, escape_control, one_line
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.pairs.metrics import compute_pair_metrics, format_accuracy
from pair_pkg.pairs.scorer import Scorer, Verdict, load_scorer
from pair_pkg.processes import Processes, joined_launch
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.stages.pair_report import SHOWN_METRICS
from pair_pkg.stages.predictions import write_predictions, write_rows
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging

logger = logging.getLogger("pair_pkg")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Score pairs; returns the verdict of ``--sentences``, or the number of pairs and, where labelled, the metrics.

    Of several processes each scores a share, and the first writes; the others return nothing.
    """
    set_up_logging()
    options = build_parser().parse_args(argv)
    if bool(options.pairs) == bool(options.sentences):
        raise InputError("pair_pkg score: give files of pairs, or two sentences as --sentences A B")
    if options.output and not options.output.lower().endswith(".csv"):
        raise InputError(f"--output {options.output}: scores are written as csv; let the name end in .csv")
    with joined_launch() as processes:
        if not processes.is_main:
            logger.setLevel(logging.ERROR)
        scorer = load_scorer(resolve_package(options.model), dtype=torch.bfloat16 if options.bf16 else torch.float32)
        if options.pairs:
            return _score_files(scorer, options, processes)
        verdict = scorer.predict_one(*options.sentences)
        if processes.is_main:
            announce(describe_verdict(verdict))
        return asdict(verdict)


def describe_verdict(verdict: Verdict) -> str:
    """One pair's verdict in a line.

    >>> describe_verdict(Verdict(0.912, "1", 2.31, 0.5))
    '1 (probability of a positive pair 0.912, positive from 0.500 on; raw score 2.31)'
    """
    if verdict.verdict is None:
        return f"score {verdict.score:.4g}"
    if verdict.threshold is None:
        return f"{verdict.verdict} (probability {verdict.probability:.3f})"
    return (
        f"{verdict.verdict} (probability of a positive pair {verdict.probability:.3f}, positive from "
        f"{verdict.threshold:.3f} on; raw score {verdict.score:.4g})"
    )


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg score", description="Score pairs with a fine-tuned model.")
    parser.add_argument("pairs", nargs="*", help="files of pairs: csv, tsv, json, jsonl or parquet, each also as gz")
    parser.add_argument("--model", required=True, help="folder that run_pair_cls.py wrote")
    parser.add_argument("--sentences", nargs=2, metavar=("A", "B"), help="one pair, in place of files")
    parser.add_argument("--output", help="csv file for the scores; left out, they are printed")
    parser.add_argument("--label_column", help="labels to measure with; left out: label, score, ... if there is one")
    parser.add_argument("--sentence1_column", help="left out: sentence1, question1, text_a, ...")
    parser.add_argument("--sentence2_column", help="left out: sentence2, question2, text_b, ...")
    parser.add_argument("--delimiter", help="one character; left out: by the file's suffix")
    parser.add_argument("--encoding", help="encoding of the files; left out: detected")
    parser.add_argument("--bf16", action="store_true", help="multiply in bfloat16: the third digit may change")
    return parser


def _score_files(scorer: Scorer, options: Namespace, processes: Processes) -> dict[str, Any]:
    pairs = _load(scorer, options)
    scores = scorer.score(pairs.sentence1, pairs.sentence2, processes=processes)
    if not processes.is_main:
        return {}
    if options.output:
        Path(options.output).parent.mkdir(parents=True, exist_ok=True)
        write_predictions(options.output, pairs, scorer.scheme, scores, scorer.decision)
        announce(f"written to {options.output}: {len(pairs):,} pairs, in the order of the input")
    else:
        shown = _without_controls(pairs) if sys.stdout.isatty() else pairs
        write_rows(sys.stdout, shown, scorer.scheme, scores, scorer.decision)
    found: dict[str, Any] = {"pairs": len(pairs)}
    if pairs.labels is not None:
        judged = scores if scorer.decision is None else scorer.decision.probability(scores)
        threshold = None if scorer.decision is None else scorer.decision.threshold
        found["metrics"] = compute_pair_metrics(scorer.scheme.kind, judged, pairs.labels, threshold)
        logger.info("%s", _metrics_line(found["metrics"]))
    return found


def _without_controls(pairs: Pairs) -> Pairs:
    """Pairs whose texts cannot steer a terminal."""
    sentence1, sentence2 = ([escape_control(text) for text in texts] for texts in (pairs.sentence1, pairs.sentence2))
    return replace(pairs, sentence1=sentence1, sentence2=sentence2)


def _load(scorer: Scorer, options: Namespace) -> Pairs:
    """The pairs with the labels that stand beside them; a column that holds no labels of this model is passed over."""
    reading = {
        name: getattr(options, name) for name in ("sentence1_column", "sentence2_column", "delimiter", "encoding")
    }
    try:
        return load_pairs(
            options.pairs,
            labelled=False,
            label_optional=True,
            label_column=options.label_column,
            scheme=scorer.scheme,
            **reading,
        )[0]
    except InputError as error:
        if options.label_column:
            raise
        pairs = load_pairs(options.pairs, labelled=False, **reading)[0]  # raises again where the pairs are at fault
        logger.warning("not measured, for the labels do not fit the model: %s", one_line(str(error)))
        return pairs


def _metrics_line(metrics: dict[str, Any]) -> str:
    """The metrics in a line: an accuracy that can be checked by hand, and the others."""
    counted = [f"accuracy {format_accuracy(metrics['correct'], metrics['total'])}"] if "correct" in metrics else []
    names = [name for name in SHOWN_METRICS[1:] if name in metrics]
    others = [f"{metric_title(name)} {format_value(name, metrics[name])}" for name in names]
    return ", ".join([*counted, *others])
