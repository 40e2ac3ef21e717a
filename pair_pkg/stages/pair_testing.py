"""Scoring pairs with a trained model: the test pairs beside trivial baselines, and pairs without labels."""

from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.baselines import baseline_metrics
from pair_pkg.pairs.loss import predictions
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.stages.pair_model import PairModel
from pair_pkg.stages.pairs_data import PairSplits
from pair_pkg.stages.predictions import TEST_NAME, write_predictions
from pair_pkg.training.trainer import StageTrainer


def test_model(
    pair_model: PairModel, trainer: StageTrainer, data: PairSplits, threshold: float | None
) -> dict[str, Any]:
    """Score the test pairs, or the validation pairs where there is no test, beside trivial baselines."""
    name = TEST if TEST in data.splits else VALIDATION
    pairs, kind = data.splits[name], data.scheme.kind
    scores = write_scores(pair_model, trainer, pairs, data.scheme, threshold, TEST_NAME)
    train = data.splits[TRAIN]
    baselines = baseline_metrics(
        kind,
        (train.sentence1, train.sentence2, train.labels),
        (pairs.sentence1, pairs.sentence2, pairs.labels),
    )
    metrics = compute_pair_metrics(kind, scores, pairs.labels, threshold)
    return {"test_split": name, "test": metrics, "baselines": baselines}


def write_scores(
    pair_model: PairModel,
    trainer: StageTrainer,
    pairs: Pairs,
    scheme: LabelScheme,
    threshold: float | None,
    file_name: str,
) -> np.ndarray:
    """Score pairs with the trained model and write them, on the main process; returns the scores."""
    loader = trainer.get_eval_dataloader(pair_model.build_rows(pairs, False))
    scores = predictions(trainer.score_dataset(loader))
    if trainer.args.should_save:
        write_predictions(Path(trainer.args.output_dir, file_name), pairs, scheme, scores, threshold)
    return scores
