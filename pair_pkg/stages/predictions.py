"""Scored pairs as a file that people, spreadsheets and the pipeline read: one row a pair, in the order of the input."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pair_pkg.columns import LABEL, SENTENCE1, SENTENCE2
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import connected_components
from pair_pkg.data.tables import read_table
from pair_pkg.records import read_record

PREDICTION, SCORE = "prediction", "score"
TEST_NAME = "test_predictions.csv"
PREDICTIONS_NAME = "predictions.csv"


@dataclass(frozen=True)
class Predictions:
    """The scored test pairs of one run: N pairs, C classes."""

    kind: str  # binary, classes or scores
    sentence1: list[str]
    sentence2: list[str]
    labels: np.ndarray  # (N,) class ids, or scores
    scores: np.ndarray  # (N,) probability of the positive class, or score; (N, C) for classes
    decided: np.ndarray  # (N,) class ids as the run decided, or scores

    def correct(self) -> np.ndarray:
        """Which pairs were decided rightly: (N,) bool; for classes only."""
        return self.decided == self.labels

    def groups(self) -> np.ndarray:
        """The component of each pair: pairs that share a text are not independent. (N,)"""
        return connected_components(self.sentence1, self.sentence2)


def decide(kind: str, scores: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """Class ids from scores as ``Predictions`` holds them: (N,); scores stay what they are."""
    if kind == "binary":
        return (scores >= threshold).astype(np.int64)
    return scores.argmax(-1) if kind == "classes" else scores


def write_predictions(
    path: str | os.PathLike, pairs: Pairs, scheme: LabelScheme, scores: np.ndarray, threshold: float = 0.5
) -> None:
    """Write sentences, label (where known), score or one score a class, and the decision, all digits kept."""
    decided = decide(scheme.kind, scores, threshold)
    table = scores.reshape(len(pairs), -1)
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        known = [LABEL] if pairs.labels is not None else []
        writer.writerow([SENTENCE1, SENTENCE2, *known, *_score_columns(scheme), PREDICTION])
        for row in range(len(pairs)):
            label = [_word(scheme, pairs.labels[row])] if known else []
            numbers = [repr(float(value)) for value in table[row]]
            writer.writerow([pairs.sentence1[row], pairs.sentence2[row], *label, *numbers, _word(scheme, decided[row])])


def read_predictions(run_dir: Path) -> Predictions:
    """The test predictions that a finished run of stage 2 left in its folder."""
    scheme = LabelScheme.from_json(read_record(run_dir)["labels"])
    rows = [row.values for row in read_table(run_dir / TEST_NAME, header=True)]
    scores = np.array([[float(row[column]) for column in _score_columns(scheme)] for row in rows])
    return Predictions(
        kind=scheme.kind,
        sentence1=[row[SENTENCE1] for row in rows],
        sentence2=[row[SENTENCE2] for row in rows],
        labels=_numbers(scheme, [row[LABEL] for row in rows]),
        scores=scores if scheme.kind == "classes" else scores[:, 0],
        decided=_numbers(scheme, [row[PREDICTION] for row in rows]),
    )


def _score_columns(scheme: LabelScheme) -> list[str]:
    return [f"{SCORE}_{name}" for name in scheme.names] if scheme.kind == "classes" else [SCORE]


def _word(scheme: LabelScheme, value: float) -> str:
    return repr(float(value)) if scheme.kind == "scores" else scheme.names[int(value)]


def _numbers(scheme: LabelScheme, words: Sequence[str]) -> np.ndarray:
    return np.array([float(word) if scheme.kind == "scores" else scheme.names.index(word) for word in words])
