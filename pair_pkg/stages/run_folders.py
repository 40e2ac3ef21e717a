"""Finished runs as they lie in their folders, for whoever tells of them: nothing is trained, nothing parsed from a log.

What an older run did not write is None or empty here, and is left out of what is told.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from pair_pkg.columns import LABEL
from pair_pkg.data.tables import read_table
from pair_pkg.errors import InputError
from pair_pkg.records import read_json, read_record
from pair_pkg.stages.pair_evaluation import WORST_NAME
from pair_pkg.stages.predictions import PREDICTION, TEST_NAME, Predictions, read_predictions
from pair_pkg.training.run import HISTORY_NAME

BASE, ADAPTED = "base", "adapted"
ADAPTED_DIR = "mlm"  # of stage 1, in a pipeline's folder
RESULTS_NAME = "results.json"


@dataclass(frozen=True)
class RunFolder:
    """The run of one stage."""

    key: str  # a short word that is this run's only, among those told of together
    name: str
    record: dict[str, Any]
    history: list[dict[str, Any]]
    predictions: Predictions | None
    worst: list[dict[str, str]]

    @property
    def metrics(self) -> dict[str, Any]:
        """What the run measured; empty while it is not finished."""
        return self.record.get("metrics", {})

    @property
    def decided_by(self) -> str | None:
        """What the threshold of stage 2 was fitted for; None where there is none."""
        return self.metrics.get("decision", {}).get("decide_by")

    @property
    def stage(self) -> str:
        """mlm or pairs."""
        return self.record.get("stage", "")


@dataclass(frozen=True)
class PipelineFolder:
    """Both stages and their answer."""

    key: str
    name: str
    results: dict[str, Any]
    parts: dict[str, RunFolder]  # adapted model (stage 1), base and adapted (stage 2), as far as they are there


def read_run(folder: str | os.PathLike) -> RunFolder | PipelineFolder:
    """What a run left in its folder, or a pipeline in its own; nothing is loaded on a device.

    Of a run: ``stage`` ("mlm" or "pairs"), ``metrics`` and the whole ``record`` (run.json: settings, lineage, cost,
    versions), ``history`` (what was logged, a mapping each) and ``predictions`` (the scored test pairs, or None).
    Of a pipeline: ``results`` with ``answer``, ``sentence`` and ``comparison``, and its runs as ``parts``. Raises
    ``InputError`` for a folder that is neither, and for damaged files.
    """
    return read_folders([os.fspath(folder)])[0]


def read_folders(folders: Sequence[str]) -> list[RunFolder | PipelineFolder]:
    """Every folder as a run or a pipeline. Raises ``InputError`` for one that is neither."""
    names = [str(Path(folder)) for folder in folders]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled:
        raise InputError(f"{doubled}: is given twice; name each folder once")
    return [_read_folder(Path(name), f"r{number}") for number, name in enumerate(names, start=1)]


def _read_folder(folder: Path, key: str) -> RunFolder | PipelineFolder:
    results_path = folder / RESULTS_NAME
    if results_path.is_file():
        results = read_json(results_path)
        if not isinstance(results, dict) or "comparison" not in results:
            raise InputError(f"{results_path}: is no answer of the pipeline; give a folder that holds one, or run.json")
        parts = {ADAPTED_DIR: "stage 1", BASE: "stage 2 from base", ADAPTED: "stage 2 from adapted"}
        runs = {part: _read_run(folder / part, f"{key}-{part}", name) for part, name in parts.items()}
        return PipelineFolder(key, str(folder), results, {part: run for part, run in runs.items() if run})
    run = _read_run(folder, key, str(folder))
    if run is None:
        what = "holds no run.json" if folder.is_dir() else "no such folder"
        raise InputError(f"{folder}: {what}; give the --output_dir of a run, or the output_dir of a pipeline")
    return run


def _read_run(folder: Path, key: str, name: str) -> RunFolder | None:
    record = read_record(folder)
    if record is None:
        return None
    history_path, worst_path = folder / HISTORY_NAME, folder / WORST_NAME
    return RunFolder(
        key=key,
        name=name,
        record=record,
        history=read_json(history_path) if history_path.is_file() else [],
        predictions=read_predictions(folder) if "labels" in record and _has_predictions(folder / TEST_NAME) else None,
        worst=_read_rows(worst_path) if worst_path.is_file() else [],
    )


def _read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of a csv file, whose cells are all text."""
    return [cast(dict[str, str], row.values) for row in read_table(path, header=True)]


def _has_predictions(path: Path) -> bool:
    """Whether the file of scored test pairs is there, with the columns that it has today."""
    return path.is_file() and {LABEL, PREDICTION} <= set(read_table(path, encoding="utf-8", header=True).columns)
