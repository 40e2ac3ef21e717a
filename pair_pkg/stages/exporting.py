"""``python -m pair_pkg export``: a finished model in the formats of other programs, each proven equal to float32."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.columns import CROSS_ENCODER
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.errors import ExportFailure, InputError
from pair_pkg.export.build import Measured, Proof, build_proof, check_target, export_model, least_bytes
from pair_pkg.export.formats import FORMATS, check_formats
from pair_pkg.export.gate import DEFAULT_TOLERANCE
from pair_pkg.export.manifest import Export, load_export
from pair_pkg.export.rows import ProofRows, build_proof_rows
from pair_pkg.export.source import Finished, load_finished
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.report.tables import format_table
from pair_pkg.stages.predictions import TEST_NAME
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging
from pair_pkg.training.room import check_room

logger = logging.getLogger("pair_pkg")

MAX_PAIRS = 5000  # of the user's, evenly spaced: every format scores them all
GAIN = 1.05  # a half-precision export that is not this many times faster than float32 is said to gain nothing


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Export a model, or look into an export; returns what each format measured, or what was read."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    if options.load:
        return read_export(options.load, options.ids, options.output)
    if not options.model or not options.to:
        raise InputError("export: give --model DIR and --to FORMAT ..., or --load EXPORT; --help lists the formats")
    if options.ids:
        raise InputError("--ids: the ids are made by an export's own tokenizer; give the export as --load")
    return export_formats(
        options.model, options.to, output_dir=options.output, validation=options.validation, tolerance=options.tolerance
    )


def export_formats(
    model_dir: str | os.PathLike,
    formats: Sequence[str],
    *,
    output_dir: str | os.PathLike | None = None,
    validation: str | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
) -> dict[str, Measured]:
    """Export a fine-tuned model, each format proven against float32 before it is kept; what each measured, by name.

    ``formats`` are names of ``python -m pair_pkg export --help``, such as ["onnx", "int8"], each a folder in
    ``output_dir`` (unset: export in the model's folder). ``validation`` is a file of labelled pairs for the proof
    (unset: the run's test pairs); half precision and int8 may lose ``tolerance`` points of the metric. Of each:
    ``bytes``, ``latency`` in milliseconds by batch size, ``rows_per_second`` and the ``comparison``. Raises
    ``InputError``, ``DiskFull`` where the disk cannot hold them, and ``ExportFailure`` at the end where a format
    failed its proof; nothing of that one is left.
    """
    if not tolerance >= 0:
        raise InputError(f"--tolerance {tolerance}: give points of the metric, 0 or more")
    names, name_or_path = check_formats(formats), resolve_package(os.fspath(model_dir))
    folder = Path(output_dir or Path(name_or_path, "export"))
    for name in names:
        check_target(folder, name)
    finished = load_finished(name_or_path)
    needed = least_bytes(finished, names)
    check_room(folder, needed, f"{', '.join(names)}; free some space, or give another --output")
    return export_all(finished, names, folder, proof_rows(finished, validation), tolerance)


def export_all(
    finished: Finished, names: list[str], output_dir: Path, rows: ProofRows, tolerance: float
) -> dict[str, Measured]:
    """Every format in turn, then one table. Raises ``ExportFailure`` at the end, where one or more failed."""
    proof = build_proof(finished, rows)
    measured: dict[str, Measured] = {}
    failures: list[str] = []
    for name in names:
        announce(f"{name}: {FORMATS[name].summary} ...")
        try:
            measured[name] = export_model(finished, name, output_dir, proof, tolerance)
        except ExportFailure as failure:
            failures.append(str(failure))
    if measured:
        announce("", _table(measured, proof), "", *_notes(measured, proof))
        announce(f"written to {output_dir}: {', '.join(measured)}")
    if failures:
        raise ExportFailure("; ".join(failures))
    return measured


def proof_rows(finished: Finished, validation: str | None) -> ProofRows:
    """The rows that exports are proven on: the user's pairs, or those that the run was tested on, and made ones."""
    own = Path(finished.model_dir, TEST_NAME)
    path = validation or (str(own) if own.is_file() else None)
    if path is None:
        logger.info("no labelled pairs: formats are compared on made texts; give --validation for the task's metric")
        return build_proof_rows(finished)
    pairs, scheme, _ = load_pairs([path], labelled=True, scheme=finished.scheme)
    if len(pairs) > MAX_PAIRS:
        logger.info("%s: %d of %d pairs are taken, evenly spaced", path, MAX_PAIRS, len(pairs))
        pairs = pairs.subset(np.linspace(0, len(pairs) - 1, MAX_PAIRS).astype(int))
    logger.info("proven on the %d pairs of %s, and on made texts", len(pairs), path)
    return build_proof_rows(finished, list(zip(pairs.sentence1, pairs.sentence2)), pairs.labels, scheme.kind)


def read_export(export_dir: str, ids_file: str | None, output: str | None) -> dict[str, Any]:
    """Check an export's files and say what it is; with ``ids_file``, write its pairs as ids and what comes of them."""
    export = load_export(export_dir)
    manifest = export.manifest
    announce(
        f"{export_dir}: {manifest['format']}, a {manifest['architecture'].replace('_', '-')}; "
        f"all {len(manifest['files'])} files are those that were exported"
    )
    if ids_file is None:
        return manifest
    if output is None:
        raise InputError("--ids: give the file to write as --output")
    pairs, *_ = load_pairs([ids_file], labelled=False)
    rows = _rows_of(export, pairs)
    encoded = export.encode(rows)
    values = export.compute(encoded)
    with_types = len(manifest["inputs"]) == 3
    padding = manifest["padding"]
    lines = [f"# pad_token_id={padding['token_id']} pad_token_type_id={padding['token_type_id'] or 0}"]
    for (ids, types), outputs in zip(encoded, values):
        columns = (ids, types if with_types else [], np.atleast_1d(outputs).tolist())
        lines.append("\t".join(" ".join(map(repr, numbers)) for numbers in columns))
    Path(output).write_text("\n".join(lines) + "\n", encoding="utf-8")
    announce(f"written to {output}: {len(encoded):,} rows: token ids, token types, outputs; tabs between")
    return {"rows": len(encoded)}


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(
        prog="pair_pkg export",
        description="Export a finished model, each format proven against PyTorch in float32.",
        epilog="formats:\n" + "\n".join(f"  {name:<22}{wanted.summary}" for name, wanted in FORMATS.items()),
    )
    parser.add_argument("--model", help="folder of a fine-tuned cross-encoder or bi-encoder")
    parser.add_argument("--to", nargs="+", metavar="FORMAT", help="one or more formats, or all that can be built here")
    parser.add_argument("--output", help="folder that gets one folder a format (default: MODEL/export)")
    parser.add_argument(
        "--validation", help=f"labelled pairs of the proof (default: {TEST_NAME} of the run where there is one)"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        default=DEFAULT_TOLERANCE,
        help=f"points of the metric that half precision and int8 may lose (default: {DEFAULT_TOLERANCE})",
    )
    parser.add_argument("--load", metavar="EXPORT", help="an export: check its files and say what it is")
    parser.add_argument("--ids", help="with --load: pairs to write as token ids, types and outputs, to --output")
    return parser


def _table(measured: dict[str, Measured], proof: Proof) -> str:
    header = [
        "format",
        "MB",
        "batch 1 ms",
        "float32",
        "batch 32 ms",
        "float32",
        "rows/s",
        "metric",
        "lost",
        "off by",
    ]
    rows = []
    for name, one in measured.items():
        compared = one.comparison
        rows.append(
            [
                name,
                f"{one.bytes / 1e6:.1f}",
                *(f"{ms:.1f}" for size in one.latency.values() for ms in (size.export_ms, size.float32_ms)),
                f"{one.rows_per_second:.0f}",
                compared.metric + (" undefined" if compared.loss is None else f" {100 * compared.metric_export:.1f}"),
                "" if compared.loss is None else f"{compared.loss:+.2f}",
                f"{compared.largest_difference:.1e}",
            ]
        )
    return format_table(header, rows, "lrrrrrrlrr")


def _notes(measured: dict[str, Measured], proof: Proof) -> list[str]:
    first = next(iter(measured.values()))
    labelled = first.comparison.labelled_pairs
    speed = len(proof.rows.encoded) / proof.scored.seconds
    notes = [
        f"{first.comparison.pairs:,} pairs ({labelled:,} labelled), float32: {first.comparison.metric} "
        f"{100 * first.comparison.metric_float32:.1f}, {speed:.0f} rows/s; latency of rows of 64 tokens or the longest"
    ]
    for name, one in measured.items():
        latency, half = one.latency[32], FORMATS[name].half
        if half and latency.export_ms * GAIN > latency.float32_ms:
            logger.warning(
                "%s: %s gains no speed on this machine (%.0f ms against %.0f ms in float32 at batch 32); "
                "take it for its size, or for hardware that multiplies in it",
                name,
                half,
                latency.export_ms,
                latency.float32_ms,
            )
    return notes


def _rows_of(export: Export, pairs: Pairs) -> list[Any]:
    if export.manifest["architecture"] == CROSS_ENCODER:
        return list(zip(pairs.sentence1, pairs.sentence2))
    return pairs.texts()
