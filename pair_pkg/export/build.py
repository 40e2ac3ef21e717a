"""One format of a finished model: built aside, loaded back, proven against float32, and only then put in its place."""

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pair_pkg.errors import ExportFailure, InputError
from pair_pkg.export.formats import FORMATS, Format
from pair_pkg.export.gate import (
    Comparison,
    Run,
    Scored,
    compare,
    layer_drift,
    module_norms,
    moved_layers,
    run_of,
    score_rows,
    to_json,
)
from pair_pkg.export.manifest import MANIFEST_NAME, README_NAME, TOKENIZER_NAME, describe, describe_files, load_export
from pair_pkg.export.readme import readme_text
from pair_pkg.export.rows import ProofRows, standalone_tokenizer
from pair_pkg.export.source import Finished
from pair_pkg.export.speed import Latency, describe_machine, measure_latency
from pair_pkg.records import write_json

LEFT = "nothing was left behind"


@dataclass(frozen=True)
class Proof:
    """What every format of one model is held against."""

    rows: ProofRows
    run: Run  # the model in float32
    scored: Scored


@dataclass(frozen=True)
class Measured:
    """One format that passed."""

    format: str
    bytes: int
    latency: dict[int, Latency]
    rows_per_second: float
    comparison: Comparison


def build_proof(finished: Finished, rows: ProofRows) -> Proof:
    """Score the rows with the model itself."""
    run = run_of(finished.graph)
    return Proof(rows, run, score_rows(finished, rows, run))


def check_target(output_dir: Path, format_name: str) -> None:
    """Raise ``InputError`` where a format's folder is in use, or cannot be made."""
    target = output_dir / format_name
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise InputError(f"{target}: is not empty; remove it, or give another --output")
    nearest = next(path for path in (output_dir, *output_dir.resolve().parents) if path.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: is no folder that may be written; give another --output")


def least_bytes(finished: Finished, format_names: list[str]) -> int:
    """The bytes that the weights take at least in these formats: four for each, two in half precision, one in int8."""
    each = [4 if FORMATS[name].exact else 2 if FORMATS[name].half else 1 for name in format_names]
    return sum(each) * sum(weight.numel() for weight in finished.graph.parameters())


def export_model(finished: Finished, format_name: str, output_dir: Path, proof: Proof, tolerance: float) -> Measured:
    """Build ``output_dir/format_name``. Raises ``ExportFailure``, leaving nothing, where the proof fails."""
    check_target(output_dir, format_name)
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{format_name}.", dir=output_dir, ignore_cleanup_errors=True) as made:
        folder = Path(made) / format_name
        folder.mkdir()
        measured = _build_and_prove(finished, format_name, folder, proof, tolerance)
        target = output_dir / format_name
        if target.exists():
            target.rmdir()  # empty, as check_target saw
        os.replace(folder, target)
    return measured


def _build_and_prove(finished: Finished, format_name: str, folder: Path, proof: Proof, tolerance: float) -> Measured:
    wanted = FORMATS[format_name]
    inside = wanted.build(finished, folder)
    if not (folder / TOKENIZER_NAME).is_file():
        standalone_tokenizer(finished.tokenizer, finished.max_seq_length).save(str(folder / TOKENIZER_NAME))
    manifest = {**describe(finished, format_name), "files": describe_files(folder)}
    write_json(folder / MANIFEST_NAME, manifest)
    run = load_export(folder).run  # what a user will load
    scored = score_rows(finished, proof.rows, run)
    comparison = compare(finished, proof.rows, proof.scored, scored)
    failures = comparison.failures(wanted.exact, tolerance)
    drift = _drift(finished, wanted, folder, manifest, proof.rows, comparison.worst_row, inside)
    if failures:
        raise ExportFailure("; ".join([f"{format_name}: {failures[0]}", *failures[1:], *_moved(wanted, drift), LEFT]))
    latency = measure_latency(proof.rows, proof.run, run)
    measured = Measured(
        format_name,
        sum(described["bytes"] for described in manifest["files"].values()),
        latency,
        len(proof.rows.encoded) / scored.seconds,
        comparison,
    )
    write_json(folder / MANIFEST_NAME, {**manifest, **_figures(measured, proof, drift, tolerance, wanted)})
    (folder / README_NAME).write_text(readme_text(manifest), encoding="utf-8")
    return measured


def _drift(
    finished: Finished,
    wanted: Format,
    folder: Path,
    manifest: dict[str, Any],
    rows: ProofRows,
    row: int,
    inside: nn.Module | None,
) -> dict[str, float]:
    """How far each layer of an export lies from float32 on the row that differs most; machine code's before it was."""
    inputs = rows.collate(np.array([row]))
    tensors = tuple(map(torch.from_numpy, inputs))
    if wanted.norms is not None:
        norms = wanted.norms(folder, manifest, inputs)
    else:
        assert inside is not None, wanted
        norms = list(module_norms(inside, tensors).values())
    return layer_drift(module_norms(finished.graph, tensors), norms)


def _moved(wanted: Format, drift: dict[str, float]) -> list[str]:
    """Which layers moved, in words; nothing where the export does not show its own."""
    layers = moved_layers(drift)
    if layers:
        return [f"the layers that moved most: {layers}"]
    if wanted.compiles and drift and not any(drift.values()):
        return ["its layers are float32's before they are compiled, so the compiler moved it"]
    return []


def _figures(
    measured: Measured, proof: Proof, drift: dict[str, float], tolerance: float, wanted: Format
) -> dict[str, Any]:
    return {
        "proof": {
            **to_json(measured.comparison, drift),
            "allowed": {"difference": 1e-4} if wanted.exact else {"loss_points": tolerance},
        },
        "speed": {
            "machine": describe_machine(),
            "milliseconds": {str(size): dataclasses.asdict(latency) for size, latency in measured.latency.items()},
            "rows_per_second": measured.rows_per_second,
            "rows_per_second_float32": len(proof.rows.encoded) / proof.scored.seconds,
        },
        "bytes": measured.bytes,
    }
