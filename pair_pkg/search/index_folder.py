"""An index on disk: a FAISS file, ids and texts, and the manifest that is verified before any of them is read.

Every change writes a new generation of files beside the old one and then renames ``manifest.json``, which names them:
a reader, and a killed process, see the old index or the new one, never half of each.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from pair_pkg.errors import InputError, one_line
from pair_pkg.records import file_sha256, library_versions, read_json, write_json
from pair_pkg.search.faiss_index import load_index, save_index, search_rows
from pair_pkg.search.text_store import Record, TextStore

MANIFEST = "manifest.json"
LOCK = ".lock"
FORMAT_VERSION = 1
FILES = {"index": "index.faiss", "texts": "texts.jsonl", "offsets": "offsets.npy"}
GENERATION_FILE = re.compile(r"g\d{6}\.(index\.faiss|texts\.jsonl|offsets\.npy)")
REQUIRED = {
    "format_version": int, "generation": int, "model": dict, "width": int, "index_type": str, "rows": int,
    "ids": str, "next_row_number": int, "recall": dict, "files": dict,
}  # fmt: skip


@dataclass(frozen=True)
class SearchIndex:
    """An opened index of R rows."""

    folder: Path
    manifest: dict[str, Any]
    index: faiss.Index
    store: TextStore
    removed: np.ndarray | None  # (R,) bool, None where no row was

    def search(self, queries: np.ndarray, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """Cosines (Q, K) and rows (Q, K) of the nearest texts to unit vectors (Q, D); -1 where there are no more."""
        try:
            return search_rows(self.index, queries, top_k, self.removed)
        except (RuntimeError, MemoryError) as error:  # it was made to do harm, and its manifest with it
            reason = one_line(str(error))[:200]
            raise InputError(f"{self.folder}: FAISS cannot search it ({reason}); build the index again") from error

    def records(self, rows: np.ndarray) -> list[Record]:
        """Ids and texts of rows that a search found."""
        return self.store.read(int(row) for row in rows if row >= 0)


def open_index(folder: str | os.PathLike, *, to_change: bool = False) -> SearchIndex:
    """Verify every file against the manifest, then read. Raises ``InputError`` for anything that does not fit."""
    folder = Path(folder)
    manifest = read_manifest(folder)
    paths = verify_files(folder, manifest)
    store = TextStore(paths["texts"], paths["offsets"])
    index = load_index(paths["index"], to_change=to_change)
    found = {"width": index.d, "rows": index.ntotal}
    for name, value in found.items():
        if manifest[name] != value:
            raise InputError(f"{folder}: the manifest says {name} {manifest[name]}, the index {value}; build it again")
    if len(store) != index.ntotal:
        raise InputError(f"{folder}: {len(store)} texts and {index.ntotal} vectors; build the index again")
    removed = store.removed
    return SearchIndex(folder, manifest, index, store, removed if removed.any() else None)


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of an index. Raises ``InputError`` where there is none, or one that is not ours."""
    path = folder / MANIFEST
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; build an index there with `python -m pair_pkg index`")
    if not path.is_file():
        raise InputError(
            f"{folder}: holds no {MANIFEST}, so no finished index; build it with `python -m pair_pkg index`"
        )
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions (chmod +r)")
    manifest = read_json(path)
    whole = isinstance(manifest, dict) and all(isinstance(manifest.get(name), kind) for name, kind in REQUIRED.items())
    if not whole or set(manifest["files"]) != set(FILES):
        raise InputError(f"{path}: is no manifest of an index; build the index again")
    if manifest["format_version"] != FORMAT_VERSION:
        version = manifest["format_version"]
        raise InputError(f"{path}: format {version}, this release reads {FORMAT_VERSION}; build the index again")
    return manifest


def verify_files(folder: Path, manifest: dict[str, Any]) -> dict[str, Path]:
    """The paths of an index's files, each of the size and sha256 that the manifest gives. Raises ``InputError``."""
    paths = {}
    for part, entry in manifest["files"].items():
        name = entry.get("name") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not GENERATION_FILE.fullmatch(name):
            raise InputError(f"{folder / MANIFEST}: {name!r} is no file of an index; build the index again")
        path = paths[part] = folder / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; restore it, or build the index again")
        if not os.access(path, os.R_OK):
            raise InputError(f"{path}: may not be read; change its permissions (chmod +r)")
        size = path.stat().st_size
        if size != entry.get("bytes"):
            cure = "restore it from a copy, or build the index again"
            raise InputError(f"{path}: has {size} bytes, the manifest says {entry.get('bytes')}; {cure}")
        if file_sha256(path) != entry.get("sha256"):
            raise InputError(f"{path}: was changed (its sha256 is not the manifest's); restore it, or build it again")
    return paths


def refuse_other_model(manifest: dict[str, Any], folder: str | os.PathLike, name: str, fingerprint: str) -> None:
    """Raise ``InputError`` where an index was not built with this model: its cosines would mean nothing."""
    built = manifest["model"]
    if built.get("fingerprint") != fingerprint:
        raise InputError(
            f"{folder}: built with {built.get('name')} (fingerprint {built.get('fingerprint')}), asked with {name} "
            f"({fingerprint}); give that model, or build the index again with this one"
        )


def copy_index(folder: Path, target: Path, model_name: str, fingerprint: str) -> None:
    """Copy an index into the new ``target``, telling it another name and fingerprint of the model that built it.

    Raises ``InputError`` for an index that is not whole.
    """
    manifest = read_manifest(folder)
    paths = verify_files(folder, manifest)
    target.mkdir()
    for path in paths.values():
        shutil.copyfile(path, target / path.name)
    model = {**manifest["model"], "name": model_name, "model": fingerprint, "fingerprint": fingerprint}
    write_json(target / MANIFEST, {**manifest, "model": model})


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Hold an index's lock while it is changed. Raises ``InputError`` where another process does."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"{folder}: another process is changing this index; wait until it is done") from error
        yield


def next_paths(folder: Path) -> tuple[int, dict[str, Path]]:
    """The number of the next generation and the paths of its files."""
    numbers = [int(path.name[1:7]) for path in folder.iterdir() if GENERATION_FILE.fullmatch(path.name)]
    generation = max(numbers, default=0) + 1
    return generation, {part: folder / f"g{generation:06}.{name}" for part, name in FILES.items()}


def commit(
    folder: Path, generation: int, paths: dict[str, Path], index: faiss.Index, facts: dict[str, Any]
) -> dict[str, Any]:
    """Write the index beside its texts, hash all files, rename the manifest, drop the old generation's files."""
    save_index(index, paths["index"])
    files = {}
    for part, path in paths.items():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
        files[part] = {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    written_at = datetime.now(timezone.utc).isoformat(timespec="seconds")
    versions = {**library_versions(), "faiss": faiss.__version__}
    manifest = {
        "format_version": FORMAT_VERSION, "generation": generation, **facts, "files": files,
        "written_at": written_at, "versions": versions,
    }  # fmt: skip
    write_json(folder / MANIFEST, manifest)
    current = {path.name for path in paths.values()}
    for path in folder.iterdir():
        if GENERATION_FILE.fullmatch(path.name) and path.name not in current:
            path.unlink()
    return manifest
