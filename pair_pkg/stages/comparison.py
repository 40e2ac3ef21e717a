"""Two finished runs of stage 2, compared on the very same test pairs."""

import os

import numpy as np

from pair_pkg.errors import InputError
from pair_pkg.report.statistics import Difference, compare_metrics
from pair_pkg.stages.predictions import Predictions
from pair_pkg.stages.run_folders import RunFolder, read_run

RESAMPLES = 10_000
BOOTSTRAP_SEED = 0


def compare_runs(
    base_dir: str | os.PathLike,
    adapted_dir: str | os.PathLike,
    *,
    num_resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Every test metric of two runs, and the interval of its difference (adapted less base) by paired bootstrap.

    Each run decides by its own threshold. Pairs that share a text are drawn together; the interval knows of one
    training seed each, so it says how far other test pairs would move the difference, and nothing of other seeds.
    Metrics are shares from 0 to 1 or coefficients from -1 to 1. Raises ``InputError`` for a folder without test
    predictions, and for runs that were tested on other pairs.
    """
    base, adapted = (_finished(folder) for folder in (base_dir, adapted_dir))
    if not same_pairs(*(run.predictions for run in (base, adapted))):
        raise InputError(f"{base.name} and {adapted.name}: tested on different pairs; give runs of one test set")
    return compare_tested(base, adapted, num_resamples=num_resamples, seed=seed, confidence=confidence)


def compare_tested(
    base: RunFolder,
    adapted: RunFolder,
    *,
    num_resamples: int = RESAMPLES,
    seed: int = BOOTSTRAP_SEED,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """The same of runs that were read, which have predictions of the same pairs."""
    assert base.predictions is not None and adapted.predictions is not None
    return compare_metrics(
        base.predictions.kind,
        base.predictions.labels,
        base.predictions.scores[None],
        adapted.predictions.scores[None],
        base_threshold=_threshold(base),
        adapted_threshold=_threshold(adapted),
        groups=base.predictions.groups(),
        num_resamples=num_resamples,
        seed=seed,
        confidence=confidence,
    )


def same_pairs(first: Predictions | None, other: Predictions | None) -> bool:
    """Whether both are there, of the same texts in the same order with the same labels."""
    if first is None or other is None or first.kind != other.kind:
        return False
    texts = (first.sentence1, first.sentence2) == (other.sentence1, other.sentence2)
    return texts and np.array_equal(first.labels, other.labels)


def _finished(folder: str | os.PathLike) -> RunFolder:
    run = read_run(folder)
    if not isinstance(run, RunFolder) or run.predictions is None:
        raise InputError(f"{os.fspath(folder)}: holds no test predictions of a run of stage 2; give its --output_dir")
    return run


def _threshold(run: RunFolder) -> float:
    threshold = run.record.get("threshold")
    return 0.0 if threshold is None else threshold  # other kinds than binary use none
