"""``python -m pair_pkg dedupe --model DIR TEXTS... --output FILE``: texts of one meaning as clusters.

A text belongs to the cluster of a representative that it is near to, never only to a neighbour of a neighbour: see
``search/clusters.py``.
"""

import argparse
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.data.corpus import Document
from pair_pkg.errors import InputError
from pair_pkg.report.tables import format_table
from pair_pkg.search.clusters import find_neighbours, star_clusters
from pair_pkg.search.verdicts import cosine_threshold
from pair_pkg.stages.row_files import refuse_input, refuse_unknown_rows, write_rows
from pair_pkg.stages.search import shown
from pair_pkg.stages.terminal import CommandParser, announce, progress, set_up_logging
from pair_pkg.stages.text_input import (
    add_encoder_flags,
    add_text_flags,
    is_filled,
    load_encoder,
    plan_job,
    read_filled,
    read_texts,
    run_job,
    text_paths,
    warn_of_dropped,
)

logger = logging.getLogger("pair_pkg")

COLUMNS = ["cluster", "id", "is_representative", "cosine", "cluster_size", "text"]
SHOWN_CLUSTERS, SHOWN_COLUMNS = 5, 80


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Cluster texts into a file; returns the counts."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    output = Path(options.output)
    refuse_unknown_rows(output)
    if options.threshold is not None and not -1 < options.threshold <= 1:
        raise InputError(f"--threshold {options.threshold}: give a cosine above -1 and up to 1, such as 0.9")
    paths = text_paths(options.texts)
    refuse_input(output, paths)
    dropped: list[str] = []
    numbers = [row for row, document in enumerate(read_texts(options, paths)) if is_filled(document, dropped)]
    warn_of_dropped(dropped)
    if not numbers:
        raise InputError(f"{paths[0]}: no text is left; check the file and --text_column")
    ready = load_encoder(options)
    threshold = _threshold(options, ready.name)
    output.parent.mkdir(parents=True, exist_ok=True)

    def documents() -> Iterator[Document]:
        return read_filled(read_texts(options, paths), [])

    job = plan_job(ready, documents, output.with_name(f".{output.name}.vectors.npy"))
    vectors = run_job(ready, job, documents)
    distinct, of_row = np.unique(job.plan.first_rows, return_inverse=True)
    with progress(len(distinct), "comparing") as advance:
        neighbours = find_neighbours(vectors[distinct], threshold, advance)
    representative = distinct[star_clusters(neighbours)[of_row]]  # (R,) rows
    cosines = _cosines(vectors, representative)
    write_rows(output, _rows(documents(), numbers, representative, cosines), COLUMNS)
    job.finish(None)
    return _announce(output, documents(), representative, threshold)


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg dedupe", description="Cluster texts by meaning.")
    add_text_flags(parser, with_ids=True)
    add_encoder_flags(parser)
    parser.add_argument("--output", required=True, help="file to write, a row a text: .csv or .jsonl")
    parser.add_argument(
        "--threshold", type=float, help="cosine from which on texts mean the same; unset: the model's own decision"
    )
    return parser


def _threshold(options: argparse.Namespace, model_dir: str) -> float:
    if options.threshold is not None:
        return options.threshold
    stored = cosine_threshold(model_dir)
    if stored is None or not -1 < stored <= 1:
        raise InputError(f"{model_dir}: holds no decision on cosines; give --threshold, such as 0.9")
    logger.info("threshold: the model's own decision says the same from a cosine of %.4f on", stored)
    return stored


def _cosines(vectors: np.ndarray, representative: np.ndarray) -> np.ndarray:
    """The cosine of each row to its representative, block by block: (R,)."""
    cosines = np.empty(len(vectors), dtype=np.float32)
    for start in range(0, len(vectors), 65_536):
        part = slice(start, start + 65_536)
        cosines[part] = np.einsum("rd,rd->r", vectors[part], vectors[representative[part]])
    return cosines


def _rows(
    documents: Iterator[Document], numbers: list[int], representative: np.ndarray, cosines: np.ndarray
) -> Iterator[dict[str, Any]]:
    sizes = np.bincount(representative, minlength=len(representative))
    clusters = _cluster_numbers(representative, sizes)
    for row, document in enumerate(documents):
        chief = int(representative[row])
        yield {
            "cluster": int(clusters[chief]),
            "id": document.id or str(numbers[row]),
            "is_representative": int(chief == row),
            "cosine": round(float(cosines[row]), 6),
            "cluster_size": int(sizes[chief]),
            "text": document.text,
        }


def _cluster_numbers(representative: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Clusters numbered from 0 by falling size, those of one size by their representative's row."""
    chiefs = np.unique(representative)
    numbers = np.full(len(representative), -1)
    numbers[chiefs[np.argsort(-sizes[chiefs], kind="stable")]] = np.arange(len(chiefs))
    return numbers


def _announce(
    output: Path, documents: Iterator[Document], representative: np.ndarray, threshold: float
) -> dict[str, Any]:
    sizes = np.bincount(representative, minlength=len(representative))
    chiefs = np.argsort(-sizes, kind="stable")[:SHOWN_CLUSTERS]
    wanted = {int(chief) for chief in chiefs if sizes[chief] > 1}
    texts = {row: document.text for row, document in enumerate(documents) if row in wanted}
    counts = {
        "texts": len(representative),
        "clusters": int((sizes > 0).sum()),
        "duplicates": int((sizes[sizes > 1] - 1).sum()),
        "largest": int(sizes.max()),
        "threshold": threshold,
    }
    announce(
        f"{output}: {counts['texts']:,} texts in {counts['clusters']:,} clusters at a cosine of {threshold:.4f}; "
        f"{counts['duplicates']:,} say what their representative says"
    )
    if wanted:
        rows = [
            [int(sizes[row]), shown(texts[row], SHOWN_COLUMNS)] for row in sorted(wanted, key=lambda row: -sizes[row])
        ]
        announce("", "the largest clusters:", format_table(["texts", "representative"], rows, "rl"))
    return counts
