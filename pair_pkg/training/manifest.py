"""What makes a checkpoint whole: ``manifest.json``, written last, with the size and the sha256 of every other file."""

import shutil
from pathlib import Path
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.records import file_sha256, fingerprint, flush, library_versions, read_json, write_json

MANIFEST_NAME = "manifest.json"
STAGING_NAME = ".saving"  # a checkpoint that is being written; what lies there is not whole
KEYS = {"step", "identity", "can_be_continued", "scheduled", "at_epoch_end", "not_logged", "versions", "files"}
REMOVED_NAME = ".removed"  # a checkpoint that is being deleted


def seal_checkpoint(written: Path, place: Path, facts: dict[str, Any]) -> None:
    """Write the manifest of a written checkpoint, put everything on the disk, and rename it to ``place`` at once.

    A checkpoint that stands there (a damaged one, that of an interruption) is replaced.
    """
    document = {**facts, "versions": library_versions(), "files": _describe_files(written)}
    write_json(written / MANIFEST_NAME, {"seal": fingerprint(document), **document})
    for folder in {written, *(path.parent for path in written.rglob("*"))}:
        flush(folder)
    remove_checkpoint(place)
    written.rename(place)
    flush(place.parent)


def remove_checkpoint(checkpoint: Path) -> None:
    """Delete a checkpoint that may be there; where this is cut off, no half of it is left under its name."""
    removed = checkpoint.with_name(REMOVED_NAME)
    shutil.rmtree(removed, ignore_errors=True)
    if checkpoint.is_dir():
        checkpoint.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)


def read_manifest(checkpoint: Path) -> dict[str, Any] | None:
    """The manifest of a checkpoint, or None where it has none that is as it was written."""
    path = checkpoint / MANIFEST_NAME
    try:
        document = read_json(path) if path.is_file() else None
    except (InputError, OSError):
        return None
    if not isinstance(document, dict):
        return None
    seal = document.pop("seal", None)
    if seal != fingerprint(document) or not document.keys() >= KEYS:
        return None
    files = document["files"]
    whole = isinstance(files, dict) and all(isinstance(described, dict) for described in files.values())
    return document if whole and isinstance(document["identity"] or {}, dict) else None


def find_damage(checkpoint: Path) -> str | None:
    """What is wrong with the files of a checkpoint, in words, or None; every byte is read."""
    if not checkpoint.is_dir():
        return "there is no such folder"
    if not (checkpoint / MANIFEST_NAME).is_file():
        return f"{MANIFEST_NAME} is missing, it was not saved to its end"
    manifest = read_manifest(checkpoint)
    if manifest is None:
        return f"{MANIFEST_NAME} is damaged"
    if checkpoint.name != f"checkpoint-{manifest['step']}":
        return f"it holds step {manifest['step']}"
    files = _files(checkpoint)
    surplus = sorted(files.keys() - manifest["files"].keys())
    if surplus:
        return f"{surplus[0]} is no file of it"
    for name, described in manifest["files"].items():
        path = files.get(name)
        if path is None or not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != described.get("bytes"):
            return f"{name} has {path.stat().st_size:,} bytes in place of {described.get('bytes')}"
        if file_sha256(path) != described.get("sha256"):
            return f"{name} is not what was saved (sha256 differs)"
    return None


def _describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    described = {}
    for name, path in _files(folder).items():
        flush(path)
        described[name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    return described


def _files(folder: Path) -> dict[str, Path]:
    """Every file below a folder but the manifest, by its path in it; hidden ones are no part of a checkpoint."""
    paths = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if not path.is_dir()}
    return {name: path for name, path in paths.items() if name != MANIFEST_NAME and not path.name.startswith(".")}
