"""``python -m pair_pkg mine --model DIR CORPUS... --output FILE``: pairs worth learning from or labelling.

With ``--pairs``: the labelled pairs, and hard negatives for the positive ones out of the corpus: a file that stage 2
trains on. Without: the nearest pairs of texts, for a person or a model to label.
"""

import argparse
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.columns import LABEL, SENTENCE1, SENTENCE2
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.search.mining import Encode, Mined, mine_negatives, mine_paraphrases
from pair_pkg.search.ready_encoder import warn_of_cut
from pair_pkg.search.verdicts import PairJudge
from pair_pkg.stages.row_files import refuse_input, refuse_unknown_rows, write_rows
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging
from pair_pkg.stages.text_input import (
    ReadyEncoder,
    add_encoder_flags,
    add_text_flags,
    load_encoder,
    plan_job,
    read_distinct,
    run_job,
    text_paths,
)

COSINE, SOURCE = "cosine", "source"  # not "score", which stage 2 reads as a label
LABELLED, MINED = "labelled", "mined"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Mine pairs into a file; returns the counts."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    output = Path(options.output)
    refuse_unknown_rows(output)
    if options.filter and not options.pairs:
        raise InputError("--filter: is for hard negatives; give --pairs too, or leave it out")
    if options.num_negatives < 1 or options.max_pairs < 1 or options.top_k < 1 or options.range_min < 0:
        raise InputError("--num_negatives, --max_pairs and --top_k: give at least 1, --range_min at least 0")
    if not (-1 <= options.min_cosine <= 1 and -math.inf < options.relative_margin < 1):
        raise InputError(
            "--min_cosine, --relative_margin: give a cosine from -1 to 1, and a share below 1, such as 0.05"
        )
    paths = text_paths(options.texts)
    refuse_input(output, [*paths, *(options.pairs or [])])
    labelled = _labelled(options.pairs) if options.pairs else None
    output.parent.mkdir(parents=True, exist_ok=True)
    ready = load_encoder(options)
    if labelled is None:
        return _mine_paraphrases(options, ready, paths, output)
    return _mine_negatives(options, ready, paths, output, *labelled)


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg mine", description="Mine hard negatives, or candidates for paraphrases.")
    add_text_flags(parser)
    add_encoder_flags(parser)
    parser.add_argument("--output", required=True, help="pairs file to write: .csv or .jsonl")
    parser.add_argument("--pairs", nargs="+", help="binary labelled pairs, whose positive ones get hard negatives")
    parser.add_argument("--num_negatives", type=int, default=3, help="hard negatives of a text (default: 3)")
    parser.add_argument(
        "--relative_margin",
        type=float,
        default=0.05,
        help="how much less than its positive's cosine a negative's must be, as a share of it: nearer texts are often "
        "positives that nobody labelled (default: 0.05, NV-Retriever, Moreira et al., 2024)",
    )
    parser.add_argument("--range_min", type=int, default=0, help="nearest texts to skip, likely positives (default: 0)")
    parser.add_argument(
        "--filter",
        metavar="DIR",
        help="cross-encoder by whose probability margins count; what it calls the same is out",
    )
    parser.add_argument("--top_k", type=int, default=20, help="paraphrases: neighbours of a text (default: 20)")
    parser.add_argument("--max_pairs", type=int, default=10_000, help="paraphrases: pairs to write (default: 10000)")
    parser.add_argument(
        "--min_cosine",
        type=float,
        default=0.5,
        help="paraphrases: least cosine, few are any below (default: 0.5)",
    )
    return parser


def _labelled(paths: list[str]) -> tuple[Pairs, LabelScheme]:
    pairs, scheme, _ = load_pairs(paths, labelled=True)
    if scheme.kind != "binary":
        raise InputError(f"{paths[0]}: labels are {scheme.kind}; hard negatives need binary ones, such as 0 and 1")
    return pairs, scheme


def _mine_negatives(
    options: argparse.Namespace, ready: ReadyEncoder, paths: list[Path], output: Path, pairs: Pairs, scheme: LabelScheme
) -> dict[str, Any]:
    judge = PairJudge(resolve_package(options.filter), "--filter") if options.filter else None
    audit = EncodingAudit()
    mined = mine_negatives(
        pairs,
        positive=1,
        corpus=[document.text for document in read_distinct(options, paths)],
        encode=_remembering(partial(ready.encode, audit=audit)),
        num_negatives=options.num_negatives,
        relative_margin=options.relative_margin,
        range_min=options.range_min,
        rescore=None if judge is None else (lambda left, right: judge(left, right)[0]),
        max_score=None if judge is None else judge.threshold,
    )
    warn_of_cut(audit, ready.encoder)
    names = scheme.names
    rows = [
        {SENTENCE1: first, SENTENCE2: second, COSINE: None, LABEL: names[int(label)], SOURCE: LABELLED}
        for first, second, label in zip(pairs.sentence1, pairs.sentence2, pairs.labels)
    ]
    rows += [{**_columns(pair), LABEL: names[0], SOURCE: MINED} for pair in mined]
    write_rows(output, rows, [SENTENCE1, SENTENCE2, COSINE, LABEL, SOURCE])
    anchors = len({pair.sentence1 for pair in mined})
    announce(
        f"{output}: {len(pairs):,} labelled pairs and {len(mined):,} hard negatives of {anchors:,} texts",
        "  mined pairs tie many texts together: give stage 2 this --train_file with --validation_file and --test_file",
    )
    return {"labelled": len(pairs), "mined": len(mined), "anchors": anchors}


def _mine_paraphrases(
    options: argparse.Namespace, ready: ReadyEncoder, paths: list[Path], output: Path
) -> dict[str, Any]:
    documents = read_distinct(options, paths)
    if len(documents) < 2:
        raise InputError(f"{paths[0]}: one distinct text makes no pair; give more texts")
    texts = [document.text for document in documents]
    job = plan_job(ready, lambda: documents, output.with_name(f".{output.name}.vectors.npy"))
    vectors = run_job(ready, job, lambda: documents)
    mined = mine_paraphrases(
        texts, vectors, top_k=options.top_k, max_pairs=options.max_pairs, min_cosine=options.min_cosine
    )
    job.finish(None)
    write_rows(output, [_columns(pair) for pair in mined], [SENTENCE1, SENTENCE2, COSINE])
    spread = f", cosines {mined[-1].cosine:.3f} to {mined[0].cosine:.3f}" if mined else ""
    announce(f"{output}: {len(mined):,} candidates of {len(texts):,} distinct texts{spread}")
    return {"candidates": len(mined), "texts": len(texts)}


def _columns(pair: Mined) -> dict[str, Any]:
    return {SENTENCE1: pair.sentence1, SENTENCE2: pair.sentence2, COSINE: round(pair.cosine, 6)}


def _remembering(encode: Encode) -> Encode:
    """The same, each text encoded once over all calls."""
    known: dict[str, np.ndarray] = {}

    def encode_new(texts: list[str]) -> np.ndarray:
        new = [text for text in dict.fromkeys(texts) if text not in known]
        if new:
            known.update(zip(new, encode(new)))
        return np.stack([known[text] for text in texts])

    return encode_new
