"""What a trained model is worth: its decision from the validation pairs, the test pairs, and pairs without labels."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.batches import PairBatches
from pair_pkg.pairs.calibration import NUM_BINS, calibration_metrics
from pair_pkg.pairs.decision import Decision, bare_probability, fit_decision, load_decision
from pair_pkg.pairs.imbalance import margin_shift
from pair_pkg.pairs.loss import predictions
from pair_pkg.pairs.metrics import BINARY
from pair_pkg.records import read_record
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.pair_model import PairModel
from pair_pkg.stages.pair_setup import PairSetup
from pair_pkg.training.trainer import StageTrainer


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs of one split with the model's bare scores: (N,), or logits (N, C) of classes."""

    name: str
    pairs: Pairs
    scores: np.ndarray
    orders: np.ndarray | None = None  # (2, N), or (2, N, C): of (A, B) and of (B, A), whose mean is ``scores``


def score_pairs_with(trainer: StageTrainer, name: str, pairs: Pairs, rows: PairBatches) -> ScoredPairs:
    """The scores of some pairs, whose batches are ``rows``; every process takes its share and gets them all.

    In float32 whatever the training multiplied in: the decision is for the weights as they will be loaded.
    """
    scores = predictions(trainer.score_dataset(trainer.get_eval_dataloader(rows), full_precision=True))
    if not rows.both_orders:
        return ScoredPairs(name, pairs, scores)
    orders = scores.reshape(2, len(pairs), *scores.shape[1:])
    return ScoredPairs(name, pairs, orders.mean(0), orders)


def stored_decision(flags: PairFlags, setup: PairSetup) -> Decision | None:
    """The decision that the checkpoint brings along, where it is a finished run on the same labels, scored alike."""
    name = flags.model.model_name_or_path
    record = read_record(name) if Path(name).is_dir() else None
    same = record is not None and all(
        record.get(key) == value
        for key, value in (("architecture", setup.architecture), ("labels", setup.scheme.to_json()))
    )
    same = same and record["settings"].get("symmetric") == setup.settings.get("symmetric")
    return load_decision(name) if same else None


def decide_by_validation(setup: PairSetup, pair_model: PairModel, validation: ScoredPairs) -> Decision | None:
    """The decision that serves the validation pairs best, as the flags want it; scores have none."""
    return fit_decision(
        setup.scheme.kind,
        validation.scores,
        validation.pairs.labels,
        are_cosines=pair_model.are_cosines,
        with_center=bool(setup.settings.get("class_weights")),
        decide_by=setup.settings.get("decide_by"),
        wanted_precision=setup.settings.get("wanted_precision"),
    )


def imbalance_record(setup: PairSetup) -> dict[str, Any]:
    """What weighed the pairs in training, for the reader of their probabilities; nothing where all counted alike."""
    weights, gamma = (setup.settings.get(name) for name in ("class_weights", "focal_gamma"))
    if not (weights or gamma):
        return {}
    shift = margin_shift(weights) if weights and setup.scheme.kind == BINARY else None
    return {"imbalance": {"class_weights": weights, "focal_gamma": gamma, "margin_shift": shift}}


def evaluate_calibration(decision: Decision, are_cosines: bool, scored: list[ScoredPairs]) -> dict[str, Any]:
    """By split: how well the probabilities fit the labels, before (``bare_probability``) and after calibration."""
    report: dict[str, Any] = {"ece_bins": NUM_BINS}
    for part in scored:
        bare = bare_probability(decision.kind, part.scores, are_cosines)
        report[part.name] = {
            "before": calibration_metrics(bare, part.pairs.labels),
            "after": calibration_metrics(decision.probability(part.scores), part.pairs.labels),
        }
    return report
