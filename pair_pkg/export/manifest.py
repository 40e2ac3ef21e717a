"""``export.json``: what an export is, means and was measured to do; and its files, checked before they are read."""

import dataclasses
import importlib.metadata
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from torch import nn

from pair_pkg.columns import BI_ENCODER, CROSS_ENCODER
from pair_pkg.data.tokens import tokenizer_fingerprint
from pair_pkg.errors import InputError
from pair_pkg.export.formats import FORMATS, why_not_loaded
from pair_pkg.export.gate import Run
from pair_pkg.export.graph import BiEncoderGraph
from pair_pkg.export.rows import pad_rows, warn_of_cut
from pair_pkg.export.source import Finished
from pair_pkg.modeling.embedding import Padding
from pair_pkg.records import file_sha256, fingerprint, fingerprint_model, library_versions, read_json

MANIFEST_NAME, README_NAME, TOKENIZER_NAME = "export.json", "README.md", "tokenizer.json"
BATCH = 32
REQUIRED = {
    "format": str, "architecture": str, "max_seq_length": int, "padding": dict, "inputs": list, "outputs": list,
    "labels": dict | None, "decision": dict | None, "files": dict,
}  # fmt: skip
REQUIRED_BY_ARCHITECTURE = {
    CROSS_ENCODER: {"num_outputs": int, "labels": dict},
    BI_ENCODER: {"pooling": str, "normalized": bool},
}
REQUIRED_OF_PADDING = {"token_id": int, "token_type_id": int | None}
REQUIRED_OF_LABELS = {"kind": str, "names": list, "low": int | float, "high": int | float}
REQUIRED_OF_FILE = {"bytes": int, "sha256": str}


@dataclass(frozen=True)
class Export:
    """An export that was loaded: its manifest, its tokenizer, and its graph as a function of arrays."""

    manifest: dict[str, Any]
    tokenizer: Tokenizer
    run: Run

    def encode(self, rows: list[str] | list[tuple[str, str]]) -> list[tuple[list[int], list[int]]]:
        """Token ids and types of texts (bi-encoder) or pairs; how many were cut to what the graph takes is told."""
        encodings = self.tokenizer.encode_batch(rows)
        warn_of_cut(encodings, self.manifest["architecture"], self.manifest["max_seq_length"])
        return [
            ([i for i, real in zip(encoding.ids, encoding.attention_mask) if real],
             [t for t, real in zip(encoding.type_ids, encoding.attention_mask) if real])
            for encoding in encodings
        ]  # fmt: skip

    def compute(self, encoded: list[tuple[list[int], list[int]]]) -> np.ndarray:
        """What the graph makes of rows: probabilities (R,) or (R, C), scores (R,), or vectors (R, D)."""
        padding = Padding(self.manifest["padding"]["token_id"], self.manifest["padding"]["token_type_id"], left=False)
        with_types = len(self.manifest["inputs"]) == 3
        parts = [encoded[start : start + BATCH] for start in range(0, len(encoded), BATCH)]
        return np.concatenate([self.run(*pad_rows(part, padding, with_types)) for part in parts])


def describe(finished: Finished, format_name: str) -> dict[str, Any]:
    """What ``export.json`` says of a model, whatever is built of it."""
    decision = finished.decision and dataclasses.asdict(finished.decision)
    pad_types = finished.tokenizer.pad_token_type_id if len(finished.input_names) == 3 else None
    values = {
        "format": format_name,
        "architecture": finished.architecture,
        "model_type": finished.graph.model.config.model_type,
        "labels": finished.scheme and finished.scheme.to_json(),
        "decision": decision,
        "decision_applies_to": _decision_place(finished),
        "symmetric": finished.symmetric,
        "max_seq_length": finished.max_seq_length,
        "padding": {
            "side": "right",
            "token": finished.tokenizer.pad_token,
            "token_id": finished.tokenizer.pad_token_id,
            "token_type_id": pad_types,
        },
        "text_normalization": json.loads(finished.tokenizer.backend_tokenizer.to_str())["normalizer"],
        "inputs": [{"name": name, "dtype": "int64", "shape": ["batch", "length"]} for name in finished.input_names],
        "outputs": [{"name": finished.output_name, "dtype": "float32", "shape": _output_shape(finished)}],
        "fingerprints": {
            "model": fingerprint_model(finished.model_dir),
            "decision": decision and fingerprint(decision),
            "tokenizer": tokenizer_fingerprint(finished.tokenizer),
        },
        "versions": {**library_versions(), **_versions(FORMATS[format_name].needs)},
    }
    if finished.architecture == CROSS_ENCODER:
        values["num_outputs"] = finished.graph.model.config.num_labels  # of the checkpoint, before they are read
    else:
        values |= {"pooling": finished.graph.pooling, "normalized": finished.graph.normalized}
    return values


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Size and sha256 of every file of a folder, by its path in it."""
    return {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (MANIFEST_NAME, README_NAME)
    }


def load_export(export_dir: str | Path) -> Export:
    """An export, once its files are those that ``export.json`` describes. Raises ``InputError``."""
    folder = Path(export_dir)
    manifest = read_manifest(folder)
    _verify_files(folder, manifest)
    tokenizer = _load_tokenizer(folder / TOKENIZER_NAME)
    tokenizer.enable_truncation(manifest["max_seq_length"])
    reason = why_not_loaded(manifest["format"])
    if reason:
        raise InputError(f"{folder}: {reason}")
    return Export(manifest, tokenizer, FORMATS[manifest["format"]].load(folder, manifest))


def read_manifest(folder: Path) -> dict[str, Any]:
    """What ``export.json`` says. Raises ``InputError`` where there is none, or one that describes no export of ours."""
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise InputError(f"{folder}: holds no {MANIFEST_NAME}; give a folder that python -m pair_pkg export wrote")
    _refuse_unreadable(path)
    manifest = read_json(path)
    if not _is_whole(manifest):
        raise InputError(f"{path}: describes no export of this version; export the model again")
    return manifest


def _is_whole(manifest: Any) -> bool:
    """Whether all is there that loading reads, of its type."""
    if not _has(manifest, REQUIRED) or manifest["format"] not in FORMATS:
        return False
    files, architecture = manifest["files"], manifest["architecture"]
    return (
        architecture in REQUIRED_BY_ARCHITECTURE
        and _has(manifest, REQUIRED_BY_ARCHITECTURE[architecture])
        and (manifest["labels"] is None or _has(manifest["labels"], REQUIRED_OF_LABELS))
        and manifest["max_seq_length"] > 0
        and _has(manifest["padding"], REQUIRED_OF_PADDING)
        and {TOKENIZER_NAME, FORMATS[manifest["format"]].file or TOKENIZER_NAME} <= files.keys()
        and all(_has(entry, REQUIRED_OF_FILE) for entry in files.values())
    )


def _has(values: Any, kinds: dict[str, Any]) -> bool:
    """Whether these are keys and values, with all these keys, their values of these types."""
    return isinstance(values, dict) and all(
        name in values and isinstance(values[name], kind) for name, kind in kinds.items()
    )


def _verify_files(folder: Path, manifest: dict[str, Any]) -> None:
    """Raise ``InputError`` for a file that is not there, may not be read, or is another than was exported."""
    for name, described in manifest["files"].items():
        path = folder / name
        if not path.is_file():
            raise InputError(f"{path}: is missing; copy the whole folder, or export the model again")
        _refuse_unreadable(path)
        if path.stat().st_size != described["bytes"] or file_sha256(path) != described["sha256"]:
            raise InputError(f"{path}: is not the file that was exported (sha256 differs); copy it again")


def _refuse_unreadable(path: Path) -> None:
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions (chmod +r)")


def _load_tokenizer(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises no narrower one
        raise InputError(f"{path}: holds no tokenizer ({str(error)[:200]}); export the model again") from error


def _decision_place(finished: Finished) -> str | None:
    """Where the decision's temperature and center are applied."""
    if finished.decision is None:
        return None
    return "cosine of two outputs" if finished.architecture == BI_ENCODER else "inside"


def _output_shape(finished: Finished) -> list[str | int]:
    if isinstance(finished.graph, BiEncoderGraph):
        head = next((m for m in finished.graph.head.modules() if isinstance(m, nn.Linear)), None)
        return ["batch", head.out_features if head else finished.graph.model.config.hidden_size]
    return ["batch"] if finished.output_name != "probabilities" else ["batch", finished.scheme.num_classes]


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    return {package: importlib.metadata.version(package) for package in packages}
