"""What a run leaves for the next stage: ``run.json``, written at once or not at all."""

import hashlib
import importlib.metadata
import json
import os
import re
import tempfile
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pair_pkg.errors import InputError

RECORD_NAME = "run.json"
LIBRARIES = (
    "torch",
    "transformers",
    "datasets",
    "accelerate",
    "evaluate",
    "tokenizers",
    "sentence-transformers",
    "numpy",
)
# What a record holds under these names, where it holds anything, is a mapping.
PARTS = ("identity", "labels", "metrics", "settings", "aids", "cost", "corpus", "pairs", "lineage", "versions")
SURROGATE_ESCAPE = re.compile(r"\\u[dD][89a-fA-F]")
WEIGHT_SUFFIXES = (".safetensors", ".bin", ".json", ".txt", ".model")


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Write ``value`` as JSON through a temporary file and a rename: a reader sees the old file or the new one.

    Raises ``ValueError`` where ``value`` holds NaN or infinity: an undefined number is written as null with a reason.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def flush(path: str | os.PathLike) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_json(path: str | os.PathLike, cure: str = "remove the file or restore it from a copy") -> Any:
    """Read a JSON file of a run or a checkpoint. Raises ``InputError`` with the cure where it is damaged.

    Half a surrogate pair, thousands of nested brackets and thousands of digits are damage too.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        value = json.loads(text)
        if SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not valid JSON ({str(error)[:200]}); {cure}") from error
    return value


def read_record(run_dir: str | os.PathLike) -> dict | None:
    """The record of a run's folder, or None where it has none. Raises ``InputError`` where it is damaged."""
    path = Path(run_dir) / RECORD_NAME
    if not path.is_file():
        return None
    record = read_json(path)
    if not isinstance(record, dict) or not all(isinstance(record.get(part) or {}, dict) for part in PARTS):
        raise InputError(f"{path}: is no record of a run; remove the file or restore it from a copy")
    return record


def write_record(run_dir: str | os.PathLike, record: dict) -> None:
    """Write a run's record, stamped with the time and the versions of the libraries."""
    stamp = {"written_at": datetime.now(timezone.utc).isoformat(timespec="seconds"), "versions": library_versions()}
    write_json(Path(run_dir) / RECORD_NAME, {**record, **stamp})


def library_versions() -> dict[str, str]:
    """Versions of the libraries that a result depends on; those not installed are left out."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


def fingerprint(value: Any) -> str:
    """A short sha256 of any JSON value, the same for equal values whatever the order of their keys.

    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:16]


def file_sha256(path: str | os.PathLike) -> str:
    """The sha256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint_files(paths: Iterable[str | os.PathLike]) -> str:
    """A short sha256 over the contents of files, in the order given; names and dates do not count."""
    digest = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        digest.update(b"\0end of file\0")
    return digest.hexdigest()[:16]


def fingerprint_model(model_dir: str | os.PathLike) -> str | None:
    """A short sha256 over a local checkpoint's weights, config and tokenizer; None for a name on the Hub."""
    folder = Path(model_dir)
    if not folder.is_dir():
        return None
    record_files = {RECORD_NAME, "trainer_state.json", "results.json", "log_history.json"}
    files = (path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.name not in record_files)
    return fingerprint_files(sorted(files))
