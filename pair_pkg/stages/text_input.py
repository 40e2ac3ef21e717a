"""What the commands on texts share: flags for the texts and the encoder, and both made ready."""

import argparse
import logging
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path

import numpy as np

from pair_pkg.data.corpus import CORPUS_SUFFIXES, DOCUMENT_PER, Document, read_documents
from pair_pkg.data.files import expand_paths
from pair_pkg.errors import InputError
from pair_pkg.modeling.precision import COMPUTE_DTYPES
from pair_pkg.processes import Processes
from pair_pkg.search import ready_encoder
from pair_pkg.search.ready_encoder import BATCH_TOKENS, ReadyEncoder, warn_of_cut
from pair_pkg.search.vector_job import VectorJob, plan_rows
from pair_pkg.stages.terminal import progress

logger = logging.getLogger("pair_pkg")

Documents = Callable[[], Iterable[Document]]  # read anew at each call


def add_text_flags(parser: argparse.ArgumentParser, with_ids: bool = False, nargs: str = "+") -> None:
    """The flags of ``read_texts``."""
    parser.add_argument("texts", nargs=nargs, help="files, folders or globs: txt, csv, tsv, json, jsonl, parquet, gz")
    parser.add_argument("--text_column", help="column of the text; unset: text, content, document, ...")
    if with_ids:
        parser.add_argument("--id_column", help="column of the texts' ids; unset: the numbers of the rows, from 0")
    parser.add_argument("--encoding", help="encoding of the files; unset: detected")
    parser.add_argument(
        "--document_per",
        choices=DOCUMENT_PER,
        default="line",
        help="in txt files a text is a line (default), or ends at a blank line; auto looks at the file",
    )


def add_encoder_flags(parser: argparse.ArgumentParser, model_required: bool = True) -> None:
    """The flags of ``load_encoder``."""
    parser.add_argument(
        "--model", required=model_required, help="bi-encoder: a folder, package:NAME/FOLDER, or a Hub name"
    )
    parser.add_argument(
        "--dtype",
        choices=list(COMPUTE_DTYPES),
        default="float32",
        help="type to multiply in; float32 (default) gives the same vectors on every machine to 1e-5, the half types "
        "are about twice as fast where the hardware multiplies in them; int8 is for processors without them",
    )
    parser.add_argument(
        "--batch_tokens",
        type=int,
        default=BATCH_TOKENS,
        help=f"tokens of a batch (default: {BATCH_TOKENS}, which fits any machine)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:1, mps; unset: the accelerator, where there is one")


def read_texts(options: argparse.Namespace, paths: list[Path]) -> Iterator[Document]:
    """The texts of files as the flags say, in their order, empty ones too."""
    return read_documents(
        paths,
        text_column=options.text_column,
        id_column=getattr(options, "id_column", None),
        encoding=options.encoding,
        document_per=options.document_per,
    )


def text_paths(patterns: list[str]) -> list[Path]:
    """The files behind what a user names, in the order of the names, each once. Raises ``InputError``."""
    return list(dict.fromkeys(chain.from_iterable(expand_paths([pattern], CORPUS_SUFFIXES) for pattern in patterns)))


def read_filled(documents: Iterable[Document], dropped: list[str]) -> Iterator[Document]:
    """The texts that are not empty; the places of the others go to ``dropped``."""
    return (document for document in documents if is_filled(document, dropped))


def is_filled(document: Document, dropped: list[str]) -> bool:
    """Whether a text is not empty; the place of an empty one goes to ``dropped``."""
    filled = bool(document.text.strip())
    if not filled:
        dropped.append(document.place)
    return filled


def read_distinct(options: argparse.Namespace, paths: list[Path]) -> list[Document]:
    """The first document of each distinct text; empty ones are left out and told. Raises ``InputError`` for none."""
    dropped: list[str] = []
    first: dict[str, Document] = {}
    for document in read_filled(read_texts(options, paths), dropped):
        first.setdefault(document.text, document)
    warn_of_dropped(dropped)
    if not first:
        raise InputError(f"{paths[0]}: no text is left; check the file and --text_column")
    return list(first.values())


def warn_of_dropped(dropped: list[str]) -> None:
    """Say which empty texts were left out."""
    if dropped:
        logger.warning("%d empty texts are left out, the first at %s", len(dropped), dropped[0])


def load_encoder(options: argparse.Namespace, unit_rows: bool = True) -> ReadyEncoder:
    """The encoder that the flags name; with ``unit_rows`` its vectors are normalized, whatever its own way."""
    return ready_encoder.load_encoder(
        options.model,
        dtype=options.dtype,
        device=options.device,
        batch_tokens=options.batch_tokens,
        unit_rows=unit_rows,
    )


def plan_job(ready: ReadyEncoder, documents: Documents, path: Path) -> VectorJob:
    """Read the texts once, and plan their vectors at ``path``; a job that was killed there is taken up."""
    return VectorJob(path, plan_rows(documents()), ready.encoder, ready.identity())


def run_share(ready: ReadyEncoder, job: VectorJob, documents: Documents, processes: Processes) -> None:
    """Encode this process's share of what is missing; ``run_job`` puts the shares together, in one process."""
    settings = {"batch_tokens": ready.batch_tokens, "dtype": ready.dtype}
    if not processes.is_main:
        job.run_share(documents(), processes, **settings)
        return
    with progress(job.texts_to_do(processes), f"embedding, the first of {processes.count} shares") as advance:
        job.run_share(documents(), processes, **settings, on_texts=advance)


def run_job(ready: ReadyEncoder, job: VectorJob, documents: Documents) -> np.ndarray:
    """Read the texts again and encode what is missing; returns the rows (R, D), on disk."""
    with progress(job.texts_to_do(), "embedding") as advance:
        vectors = job.run(documents(), batch_tokens=ready.batch_tokens, dtype=ready.dtype, on_texts=advance)
    warn_of_cut(job.audit, ready.encoder)
    return vectors
