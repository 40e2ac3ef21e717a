"""What the commands on texts share: flags for the texts and the encoder, and both made ready."""

import argparse
import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pair_pkg.data.corpus import CORPUS_SUFFIXES, DOCUMENT_PER, Document, read_documents
from pair_pkg.data.files import expand_paths
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit, SentenceEncoder, encode_texts, hold_in
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.modeling.precision import COMPUTE_DTYPES, compute_dtype
from pair_pkg.modeling.sentence_folder import fingerprint_encoder, load_sentence_encoder
from pair_pkg.search.vector_job import VectorJob, plan_rows
from pair_pkg.stages.terminal import progress

logger = logging.getLogger("pair_pkg")

Documents = Callable[[], Iterable[Document]]  # read anew at each call


@dataclass(frozen=True)
class ReadyEncoder:
    """An encoder on its device, and what its vectors depend on."""

    name: str
    fingerprint: str
    encoder: SentenceEncoder
    dtype: torch.dtype
    batch_tokens: int

    def identity(self) -> dict[str, Any]:
        """What the bytes of vectors depend on, beside the texts."""
        return {
            "model": self.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_tokens": self.batch_tokens,
            "max_seq_length": self.encoder.max_seq_length,
            "normalized": self.encoder.normalized,
        }

    def encode(self, texts: list[str]) -> np.ndarray:
        """Vectors of a few texts, (R, D) float32."""
        return encode_texts(self.encoder, texts, batch_tokens=self.batch_tokens, dtype=self.dtype)


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
        "--batch_tokens", type=int, default=8192, help="tokens of a batch (default: 8192, which fits any machine)"
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
    if options.batch_tokens < 1:
        raise InputError(f"--batch_tokens {options.batch_tokens}: give at least 1, such as 8192")
    name = resolve_package(options.model)
    device = _device(options.device)
    encoder = load_sentence_encoder(name)
    if unit_rows:
        encoder = dataclasses.replace(encoder, normalized=True)
    encoder.model.to(device)
    encoder.head.to(device)
    dtype = compute_dtype(options.dtype, device.type)
    return ReadyEncoder(name, fingerprint_encoder(name), hold_in(encoder, dtype), dtype, options.batch_tokens)


def plan_job(ready: ReadyEncoder, documents: Documents, path: Path) -> VectorJob:
    """Read the texts once, and plan their vectors at ``path``; a job that was killed there is taken up."""
    return VectorJob(path, plan_rows(documents()), ready.encoder, ready.identity())


def run_job(ready: ReadyEncoder, job: VectorJob, documents: Documents) -> np.ndarray:
    """Read the texts again and encode what is missing; returns the rows (R, D), on disk."""
    with progress(job.texts_to_do, "embedding") as advance:
        vectors = job.run(documents(), batch_tokens=ready.batch_tokens, dtype=ready.dtype, on_texts=advance)
    warn_of_cut(job.audit, ready.encoder)
    return vectors


def warn_of_cut(audit: EncodingAudit, encoder: SentenceEncoder) -> None:
    """Say how many texts were longer than the model reads."""
    if audit.truncated:
        logger.warning(
            "%d of %d distinct texts are longer than the model's %d tokens; their ends are not in the vectors",
            audit.truncated, audit.texts, encoder.max_seq_length,
        )  # fmt: skip


def _device(name: str | None) -> torch.device:
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not to be had here; give cpu, or leave it out") from error
