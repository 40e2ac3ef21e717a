"""``python -m pair_pkg embed --model DIR TEXTS... --output FILE``: a vector for each text, in their order.

torchrun --standalone --nproc_per_node 2 -m pair_pkg embed --model DIR TEXTS... --output FILE
"""

import argparse
import dataclasses
import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.data.corpus import Document
from pair_pkg.errors import InputError
from pair_pkg.processes import Processes, joined_launch
from pair_pkg.records import read_json, write_json
from pair_pkg.search.vector_files import vector_suffix, write_jsonl, write_parquet
from pair_pkg.search.vector_job import VectorJob
from pair_pkg.stages.layers_output import open_layers
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging
from pair_pkg.stages.text_input import (
    ReadyEncoder,
    add_encoder_flags,
    add_text_flags,
    load_encoder,
    plan_job,
    read_texts,
    run_job,
    run_share,
    text_paths,
)

logger = logging.getLogger("pair_pkg")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Embed texts into a file, and write what was done beside it (``FILE.json``), which is returned.

    Of several processes each encodes a share, and the first writes; the others return nothing.
    """
    set_up_logging()
    options = build_parser().parse_args(argv)
    output = Path(options.output)
    vector_suffix(output)
    paths = text_paths(options.texts)
    output.parent.mkdir(parents=True, exist_ok=True)
    with joined_launch() as processes:
        if not processes.is_main:
            logger.setLevel(logging.ERROR)
        ready = load_encoder(options, unit_rows=options.normalize)
        wanted = {"hidden_states": options.output_hidden_states, "attentions": options.output_attentions}
        layers = open_layers(ready.name, **wanted)
        texts = layers.refuse_many(document.text for document in read_texts(options, paths)) if layers else []
        record = _embed(options, ready, paths, output, processes)
        if layers and processes.is_main:
            record["layers"] = layers.write(output.with_suffix(".layers.npz"), texts)
    return record


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg embed", description="Write the vectors of texts, a row a text.")
    add_text_flags(parser, with_ids=True)
    add_encoder_flags(parser)
    parser.add_argument("--output", required=True, help="file to write: .npy, .jsonl (a list a line) or .parquet")
    parser.add_argument("--normalize", action="store_true", help="rows of length 1, where the model's own are not")
    parser.add_argument("--overwrite", action="store_true", help="replace a file of other vectors")
    parser.add_argument("--output_hidden_states", action="store_true", help="write them too, for a few texts (npz)")
    parser.add_argument("--output_attentions", action="store_true", help="the same, and the first text's as a picture")
    return parser


def record_path(output: Path) -> Path:
    """Where ``embed`` says what a file of vectors holds."""
    return output.with_name(f"{output.name}.json")


def _embed(
    options: argparse.Namespace, ready: ReadyEncoder, paths: list[Path], output: Path, processes: Processes
) -> dict[str, Any]:
    begin = time.perf_counter()

    def documents() -> Iterator[Document]:
        return read_texts(options, paths)

    job = plan_job(ready, documents, output)
    if job.plan.num_empty == job.shape[0]:
        raise InputError(f"{paths[0]}: no text is left of {job.shape[0]:,}; check the file and --text_column")
    if output.exists() and not options.overwrite:
        finished = read_json(record_path(output)) if record_path(output).is_file() else {}
        if finished.get("identity") != job.identity:
            raise InputError(f"{output}: exists, and holds other vectors; name another file, or give --overwrite")
        if processes.is_main:
            announce(f"{output}: these vectors are there already; nothing was computed")
        return finished
    if job.plan.num_empty:
        logger.warning(
            "%d texts are empty, the first at %s; their rows are the vector of an empty text",
            job.plan.num_empty, job.plan.first_empty,
        )  # fmt: skip
    if processes.count > 1:
        run_share(ready, job, documents, processes)
        if not processes.is_main:
            return {}
    vectors = run_job(ready, job, documents)
    _write(options, paths, job, vectors, output)
    seconds = time.perf_counter() - begin
    record = {
        "model": ready.name,
        "identity": job.identity,
        "rows": job.shape[0],
        "width": job.shape[1],
        **dataclasses.asdict(job.audit),
        "empty": job.plan.num_empty,
        "seconds": round(seconds, 2),
    }
    write_json(record_path(output), record)
    announce(_summary(record, output))
    return record


def _write(options: argparse.Namespace, paths: list[Path], job: VectorJob, vectors: np.ndarray, output: Path) -> None:
    suffix = vector_suffix(output)
    if suffix == ".npy":
        job.finish(output)
        return
    if suffix == ".jsonl":
        write_jsonl(output, vectors)
    else:
        columns = {"text": lambda: (document.text for document in read_texts(options, paths))}
        if options.id_column:
            columns = {"id": lambda: (document.id for document in read_texts(options, paths)), **columns}
        write_parquet(output, vectors, columns)
    job.finish(None)


def _summary(record: dict[str, Any], output: Path) -> str:
    rate = record["texts"] / record["seconds"] if record["seconds"] else 0
    return (
        f"{output}: {record['rows']:,} rows of {record['width']} float32 numbers, {record['texts']:,} distinct texts "
        f"of {record['tokens']:,} tokens encoded, {rate:,.0f} texts/s with loading and reading"
    )
