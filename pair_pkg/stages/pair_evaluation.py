"""The test figures of a run: beside baselines, with intervals, by slices; and its worst pairs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.columns import LABEL, SENTENCE1, SENTENCE2
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.baselines import Predicted, Similarity, baseline_predictions
from pair_pkg.pairs.decision import Decision
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, compute_pair_metrics
from pair_pkg.pairs.slices import pair_slices, slice_metrics, worst_rows
from pair_pkg.pairs.words import word_overlaps
from pair_pkg.report.spreadsheet import write_sheet
from pair_pkg.report.statistics import bootstrap_metrics
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.frozen_encoder import frozen_similarity
from pair_pkg.stages.pair_setup import PairSetup
from pair_pkg.stages.pair_testing import ScoredPairs
from pair_pkg.stages.pairs_data import components
from pair_pkg.stages.predictions import PREDICTION

MODEL = "model"
RESAMPLES = 2_000
BOOTSTRAP_SEED = 0
CONFIDENCE = 0.95
WORST_NAME = "worst_pairs.csv"
NUM_WORST = 50


def measure_similarities(flags: PairFlags, setup: PairSetup, train: Pairs, test: Pairs) -> dict[str, Similarity]:
    """What the baselines know of the pairs: the overlap of words, and the untrained encoder's cosine.

    Of several processes each encodes a share; what takes one only, the main one has.
    """
    args, similarities = flags.training, {}
    if setup.scheme.kind == CLASSES:
        return {}
    if args.processes.is_main:
        overlaps = [word_overlaps(pairs.sentence1, pairs.sentence2) for pairs in (train, test)]
        similarities["word_overlap"] = Similarity(overlaps[0], train.labels, overlaps[1])
    if flags.evaluation.frozen_baseline:
        cosines = frozen_similarity(flags.model, setup, train, test, args.device, args.processes)
        similarities["frozen_encoder"] = cosines
    return similarities


def evaluate_test(
    scheme: LabelScheme,
    decision: Decision | None,
    train: Pairs,
    test: ScoredPairs,
    similarities: Mapping[str, Similarity],
) -> dict[str, Any]:
    """Metrics of the test pairs at the fitted threshold, beside trivial baselines; all with intervals; and by slices.

    Ready for JSON: ``test`` and ``baselines`` hold the metrics, ``intervals`` the bounds of the model's and of each
    baseline's, ``slices`` what ``slice_metrics`` tells.
    """
    labels = test.pairs.labels
    judged = _judged(decision, test.scores)
    wanted = {} if decision is None or decision.decide_by is None else _wanted(decision)
    trivial = baseline_predictions(scheme.kind, train.labels, len(labels), scheme.num_classes, similarities, **wanted)
    predictors = {MODEL: judged, **trivial}
    figures = {name: compute_pair_metrics(scheme.kind, *_arguments(part, labels)) for name, part in predictors.items()}
    cuts = {name: {"threshold": trivial[name].threshold} for name in similarities if scheme.kind == BINARY}
    slices = slice_metrics(scheme.kind, pair_slices(test.pairs, scheme), judged.predictions, labels, judged.threshold)
    return {
        "test_split": test.name,
        "test": figures[MODEL],
        "baselines": {name: figures[name] | cuts.get(name, {}) for name in trivial},
        "intervals": _intervals(scheme.kind, test.pairs, predictors),
        "slices": slices,
    }


def _wanted(decision: Decision) -> dict[str, Any]:
    """What the baselines' thresholds are fitted for: the same as the model's."""
    return {"decide_by": decision.decide_by, "wanted_precision": decision.wanted_precision}


def pair_metrics(kind: str, decision: Decision | None, scored: ScoredPairs) -> dict[str, Any]:
    """The metrics of scored pairs at the decision's threshold, and nothing beside them."""
    return compute_pair_metrics(kind, *_arguments(_judged(decision, scored.scores), scored.pairs.labels))


def write_worst(folder: str | Path, scheme: LabelScheme, decision: Decision | None, test: ScoredPairs) -> None:
    """The pairs that the model got most wrong, for a spreadsheet, with the slices that each is in."""
    judged, pairs = _judged(decision, test.scores), test.pairs
    rows, errors = worst_rows(scheme.kind, judged.predictions, pairs.labels, judged.threshold, NUM_WORST)
    slices = pair_slices(pairs, scheme)
    said = "score" if scheme.kind == SCORES else "probability"
    header = ["rank", SENTENCE1, SENTENCE2, LABEL, PREDICTION, said, "error", "place", "slices"]
    table = []
    for rank, (row, error) in enumerate(zip(rows, errors), start=1):
        label, verdict, number = _said(scheme, pairs.labels[row], judged.predictions[row], judged.threshold)
        inside = "; ".join(f"{part.family}: {part.name}" for part in slices if part.rows[row])
        texts = pairs.sentence1[row], pairs.sentence2[row]
        table.append([rank, *texts, label, verdict, number, round(float(error), 6), pairs.places[row], inside])
    write_sheet(Path(folder, WORST_NAME), header, table)


def _judged(decision: Decision | None, scores: np.ndarray) -> Predicted:
    """What metrics take: calibrated probabilities and their threshold, or bare scores and none."""
    return Predicted(scores, None) if decision is None else Predicted(decision.probability(scores), decision.threshold)


def _arguments(predictor: Predicted, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, float | None]:
    return predictor.predictions, labels, predictor.threshold


def _intervals(kind: str, pairs: Pairs, predictors: Mapping[str, Predicted]) -> dict[str, Any]:
    groups = components(pairs)
    bounds = {}
    for name, predictor in predictors.items():
        intervals = bootstrap_metrics(
            kind,
            pairs.labels,
            predictor.predictions,
            threshold=predictor.threshold,
            groups=groups,
            num_resamples=RESAMPLES,
            seed=BOOTSTRAP_SEED,
            confidence=CONFIDENCE,
        )
        bounds[name] = {metric: [interval.low, interval.high] for metric, interval in intervals.items()}
    return {
        "confidence": CONFIDENCE,
        "method": "percentile bootstrap over groups of pairs that share a text",
        "num_resamples": RESAMPLES,
        "num_groups": int(groups.max()) + 1,
        "bounds": bounds,
    }


def _said(
    scheme: LabelScheme, label: float, prediction: np.ndarray, threshold: float | None
) -> tuple[str | float, str | float, float]:
    """A pair's label, what the model decided, and the probability of the positive label, or of what was decided."""
    if scheme.kind == SCORES:
        return round(float(label), 6), round(float(prediction), 6), round(float(prediction), 6)
    if scheme.kind == CLASSES:
        decided = int(prediction.argmax())
        return scheme.names[int(label)], scheme.names[decided], round(float(prediction[decided]), 6)
    return scheme.names[int(label)], scheme.names[int(prediction >= threshold)], round(float(prediction), 6)
