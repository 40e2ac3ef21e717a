"""``python -m pair_pkg index --model DIR TEXTS... --output INDEX_DIR``: a FAISS index, and changes to one.

``--add`` adds texts, ``--remove`` takes some out by id, ``--rebuild`` builds it anew from the vectors that it holds.
"""

import argparse
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.data.corpus import Document, text_digest
from pair_pkg.errors import InputError
from pair_pkg.records import read_json
from pair_pkg.search.faiss_index import INDEX_TYPES
from pair_pkg.search.index_changes import add_to_index, create_index, rebuild_index, remove_from_index
from pair_pkg.search.index_folder import MANIFEST, SearchIndex, changing, open_index, read_manifest, refuse_other_model
from pair_pkg.search.text_index import ROW_NUMBERS, index_facts
from pair_pkg.search.text_store import Record
from pair_pkg.search.vector_files import check_unit_rows, open_vectors
from pair_pkg.stages.embed import record_path
from pair_pkg.stages.terminal import CommandParser, announce, progress, set_up_logging
from pair_pkg.stages.text_input import (
    ReadyEncoder,
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

SAMPLED_TEXTS = 8  # encoded again to see that given vectors are the model's
LOWEST_COSINE = 0.98  # of a given vector to the model's: bfloat16 and int8 stay above, another model far below


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Build or change an index; returns its manifest."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    _refuse_confusion(options)
    folder = Path(options.output)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the index")
    if not (options.add or options.remove or options.rebuild):
        manifest = _create(options, folder)
    else:
        read_manifest(folder)  # refuses what is no index before a lock is put there
        with changing(folder):
            manifest = (_add if options.add else _thin)(options, open_index(folder, to_change=True))
    announce(*describe(folder, manifest))
    return manifest


def describe(folder: Path, manifest: dict[str, Any]) -> list[str]:
    """An index in words."""
    megabytes = sum(entry["bytes"] for entry in manifest["files"].values()) / 1e6
    lines = [
        f"{folder}: {manifest['texts']:,} texts, {manifest['width']} wide, {megabytes:,.1f} MB, "
        f"{manifest['index_type']} ({manifest['why']})"
    ]
    if manifest["removed"]:
        lines.append(f"  {manifest['removed']:,} removed texts: gone from disk, their vectors skipped until --rebuild")
    for name, where in (("own_texts", "of its own texts"), ("held_out", "held-out queries")):
        measured = manifest["recall"].get(name)
        if measured and measured["recall"] is not None:
            k = manifest["recall"]["k"]
            lines.append(
                f"  recall@{k} against exact search: {measured['recall']:.4f} ({measured['queries']:,} {where})"
            )
    return lines


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg index", description="Build a FAISS index of texts, or change one.")
    add_text_flags(parser, with_ids=True, nargs="*")
    add_encoder_flags(parser, model_required=False)
    parser.add_argument("--output", required=True, help="folder of the index")
    parser.add_argument("--vectors", help="the texts' vectors from `embed`, in place of encoding them")
    parser.add_argument(
        "--index_type",
        choices=INDEX_TYPES,
        help="unset: flat below 200,000 texts; beyond, hnsw where it fits half of the free memory, else ivf_pq",
    )
    parser.add_argument("--recall_queries", nargs="+", help="files of held-out queries to measure recall on too")
    parser.add_argument("--add", action="store_true", help="add the texts to the index that is there")
    parser.add_argument("--remove", nargs="+", metavar="ID", help="take texts out of the index that is there")
    parser.add_argument("--rebuild", action="store_true", help="build the index anew from the vectors that it holds")
    parser.add_argument("--overwrite", action="store_true", help="replace the index that is there")
    return parser


def _refuse_confusion(options: argparse.Namespace) -> None:
    named = [flag for flag in ("add", "remove", "rebuild") if getattr(options, flag)]
    if len(named) > 1:
        raise InputError(f"--{named[0]} and --{named[1]}: one change at a time; call twice")
    if options.remove or options.rebuild:
        if options.texts:
            raise InputError(f"--{named[0]} takes no texts; leave out {options.texts[0]}")
        for flag in ("vectors", "id_column", "recall_queries", "overwrite", "index_type"):
            if getattr(options, flag) and (named[0], flag) != ("rebuild", "index_type"):
                raise InputError(f"--{flag}: says nothing to --{named[0]}; leave it out")
        return
    if not options.texts:
        raise InputError("no texts: name files, such as texts.csv")
    if not options.model:
        raise InputError("no model: give --model, the bi-encoder of the vectors")
    for flag in ("index_type", "recall_queries", "overwrite"):
        if options.add and getattr(options, flag):
            raise InputError(f"--{flag} is for a new index; leave it out with --add")


def _create(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    if (folder / MANIFEST).is_file() and not options.overwrite:
        raise InputError(f"{folder}: holds an index already; give --add to add to it, or --overwrite to replace it")
    ready = load_encoder(options)
    held_out = _held_out(options, ready)
    texts = _Texts(options, first_row=0, known_ids=set())
    given = texts.given_vectors(ready) if options.vectors else None
    facts = index_facts(ready, options.id_column or ROW_NUMBERS, texts.num_read)
    with changing(folder):
        vectors, finish = (given, lambda: None) if options.vectors else texts.embed(ready, folder)
        with progress(len(vectors), "building", "rows") as advance:
            manifest = create_index(
                folder, texts.records(), vectors, facts,
                index_type=options.index_type, held_out=held_out, on_rows=advance,
            )  # fmt: skip
        finish()
    return manifest


def _add(options: argparse.Namespace, opened: SearchIndex) -> dict[str, Any]:
    manifest = opened.manifest
    if (manifest["ids"] == ROW_NUMBERS) != (options.id_column is None):
        has = "numbers its texts" if manifest["ids"] == ROW_NUMBERS else f"takes ids from column {manifest['ids']!r}"
        cure = "leave out --id_column" if manifest["ids"] == ROW_NUMBERS else "give --id_column"
        raise InputError(f"{opened.folder}: this index {has}; {cure}")
    ready = load_encoder(options)
    refuse_other_model(manifest, opened.folder, ready.name, ready.fingerprint)
    known = set() if options.id_column is None else {record.id for record in opened.store if record is not None}
    first_row = manifest["next_row_number"]
    texts = _Texts(options, first_row, known)
    if options.vectors:
        vectors, finish = texts.given_vectors(ready), lambda: None
    else:
        vectors, finish = texts.embed(ready, opened.folder)
    with progress(len(vectors), "adding", "rows") as advance:
        manifest = add_to_index(opened, texts.records(), vectors, first_row + texts.num_read, on_rows=advance)
    finish()
    if options.id_column is None:
        announce(f"ids of the new texts: {first_row} to {manifest['next_row_number'] - 1}")
    return manifest


def _thin(options: argparse.Namespace, opened: SearchIndex) -> dict[str, Any]:
    with progress(opened.manifest["texts"], "building", "rows") as advance:
        if options.remove:
            return remove_from_index(opened, options.remove, on_rows=advance)
        return rebuild_index(opened, options.index_type, on_rows=advance)


def _held_out(options: argparse.Namespace, ready: ReadyEncoder) -> np.ndarray | None:
    if not options.recall_queries:
        return None
    documents = read_texts(
        argparse.Namespace(**{**vars(options), "id_column": None}), text_paths(options.recall_queries)
    )
    queries = [document.text for document in read_filled(documents, [])]
    if not queries:
        raise InputError(f"{options.recall_queries[0]}: no query is left; check the file and --text_column")
    return ready.encode(queries)


class _Texts:
    """The texts of the command line: read once here, where empty ones and double ids are seen, and again by users."""

    def __init__(self, options: argparse.Namespace, first_row: int, known_ids: set[str]):
        self.options, self.first_row = options, first_row
        self.paths = text_paths(options.texts)
        self.num_read = 0
        dropped: list[str] = []
        self.kept = np.fromiter(self._check(known_ids, dropped), dtype=np.int64)
        warn_of_dropped(dropped)
        if not len(self.kept):
            raise InputError(f"{self.paths[0]}: no text is left of {self.num_read}; check the file and --text_column")

    def documents(self) -> Iterator[Document]:
        return read_filled(read_texts(self.options, self.paths), [])

    def records(self) -> Iterator[Record]:
        """Ids and texts, as the index holds them."""
        for row, document in zip(self.kept.tolist(), self.documents(), strict=True):
            yield Record(document.id or str(self.first_row + row), document.text)

    def embed(self, ready: ReadyEncoder, folder: Path) -> tuple[np.ndarray, Callable[[], None]]:
        """Unit rows of the texts in the index's folder, and what to call when they are in the index."""
        job = plan_job(ready, self.documents, folder / "embedding.npy")
        vectors = run_job(ready, job, self.documents)
        return vectors, lambda: job.finish(None)

    def given_vectors(self, ready: ReadyEncoder) -> np.ndarray:
        """The rows of ``--vectors`` that the texts have. Raises ``InputError`` where they are not theirs."""
        path = Path(self.options.vectors)
        vectors = open_vectors(path)
        if len(vectors) != self.num_read:
            raise InputError(f"{path}: {len(vectors):,} vectors for {self.num_read:,} texts; give the texts' own file")
        self._refuse_foreign(path, vectors, ready)
        check_unit_rows(vectors, path)
        return vectors if len(self.kept) == len(vectors) else vectors[self.kept]

    def _check(self, known_ids: set[str], dropped: list[str]) -> Iterator[int]:
        for row, document in enumerate(read_texts(self.options, self.paths)):
            self.num_read = row + 1
            if not is_filled(document, dropped):
                continue
            text_digest(document.text, document.place)  # refuses half characters, with the place
            if document.id is not None:
                if document.id in known_ids:
                    raise InputError(f"{document.place}: the id {document.id!r} is taken; give each text its own")
                known_ids.add(document.id)
            yield row

    def _refuse_foreign(self, path: Path, vectors: np.ndarray, ready: ReadyEncoder) -> None:
        """Refuse vectors of another model, by what `embed` wrote beside them, and by encoding a few texts again."""
        record = read_json(record_path(path)) if record_path(path).is_file() else {}
        of = record.get("identity", {}).get("model", ready.fingerprint)
        if of != ready.fingerprint:
            raise InputError(
                f"{path}: made with another model ({of}) than {ready.name} ({ready.fingerprint}); give that"
            )
        wanted = set(np.linspace(0, len(self.kept) - 1, SAMPLED_TEXTS).astype(int).tolist())
        texts = {
            self.kept[number]: document.text for number, document in enumerate(self.documents()) if number in wanted
        }
        ours = ready.encode(list(texts.values()))
        if ours.shape[1] != vectors.shape[1]:
            raise InputError(f"{path}: {vectors.shape[1]} wide, the model's vectors are {ours.shape[1]}; give its own")
        theirs = np.array(vectors[list(texts)], dtype=np.float32)
        cosines = (ours * theirs).sum(1) / np.maximum(np.linalg.norm(theirs, axis=1), 1e-12)
        if np.isfinite(cosines).all() and cosines.min() < LOWEST_COSINE:
            row = list(texts)[int(cosines.argmin())]
            what = f"row {row} has a cosine of {cosines.min():.3f} to the model's vector of its text"
            raise InputError(f"{path}: {what}; give the vectors of this model and these texts")
