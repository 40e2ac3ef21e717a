"""Scored pairs as a file that people, spreadsheets and the pipeline read: one row a pair, in the order of the input."""

import csv
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, cast

import numpy as np

from pair_pkg.columns import LABEL, SENTENCE1, SENTENCE2
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import connected_components
from pair_pkg.data.tables import read_table
from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import Decision
from pair_pkg.records import RECORD_NAME, read_record

PREDICTION, SCORE, RAW_SCORE = "prediction", "score", "raw_score"
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
    decided: np.ndarray  # (N,) class ids as the run decided (-1: it did not), or scores
    raw_scores: np.ndarray | None = None  # (N,) margins or cosines of binary labels

    def correct(self) -> np.ndarray:
        """Which pairs were decided rightly: (N,) bool; for classes only."""
        return self.decided == self.labels

    def groups(self) -> np.ndarray:
        """The component of each pair: pairs that share a text are not independent. (N,)"""
        return connected_components(self.sentence1, self.sentence2)


def write_predictions(
    path: str | os.PathLike, pairs: Pairs, scheme: LabelScheme, scores: np.ndarray, decision: Decision | None
) -> None:
    """Write scored pairs as a csv file; see ``write_rows``."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        write_rows(file, pairs, scheme, scores, decision)


def write_rows(file: TextIO, pairs: Pairs, scheme: LabelScheme, scores: np.ndarray, decision: Decision | None) -> None:
    """Write sentences, label (where known), score or one score a class, and the verdict, all digits kept.

    ``scores`` are the model's own: (N,), or logits (N, C) of classes. What is written as ``score`` is the calibrated
    probability where there is a decision, with the model's own score of binary labels as ``raw_score`` beside it, and
    without one the score itself, whose verdict is left empty unless the labels are scores.
    """
    columns = {SENTENCE1: pairs.sentence1, SENTENCE2: pairs.sentence2}
    if pairs.labels is not None:
        columns[LABEL] = [_word(scheme, label) for label in pairs.labels]
    judged = scores if decision is None else decision.probability(scores)
    columns |= dict(zip(_score_columns(scheme), map(_digits, judged.reshape(len(pairs), -1).T)))
    if scheme.kind == "binary":
        columns[RAW_SCORE] = _digits(scores)
    if decision is not None:
        columns[PREDICTION] = [_word(scheme, class_id) for class_id in decision.decide(judged)]
    else:
        columns[PREDICTION] = _digits(scores) if scheme.kind == "scores" else [""] * len(pairs)
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(zip(*columns.values()))


def read_predictions(run_dir: Path) -> Predictions:
    """The test predictions that a finished run of stage 2 left in its folder. Raises ``InputError`` where damaged."""
    scheme, path = LabelScheme.from_json(read_record(run_dir)["labels"]), run_dir / TEST_NAME
    rows = [cast(dict[str, str], row.values) for row in read_table(path, encoding="utf-8", header=True)]
    try:
        return _parse_predictions(scheme, rows)
    except (KeyError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error)[:80]}"
        raise InputError(f"{path}: holds no predictions of {RECORD_NAME}'s labels ({reason}); run again") from error


def _parse_predictions(scheme: LabelScheme, rows: list[dict[str, str]]) -> Predictions:
    scores = np.array([[float(row[column]) for column in _score_columns(scheme)] for row in rows])
    has_raw = bool(rows) and RAW_SCORE in rows[0]
    return Predictions(
        kind=scheme.kind,
        sentence1=[row[SENTENCE1] for row in rows],
        sentence2=[row[SENTENCE2] for row in rows],
        labels=_numbers(scheme, [row[LABEL] for row in rows]),
        scores=scores if scheme.kind == "classes" else scores[:, 0],
        decided=_numbers(scheme, [row[PREDICTION] for row in rows]),
        raw_scores=np.array([float(row[RAW_SCORE]) for row in rows]) if has_raw else None,
    )


def _score_columns(scheme: LabelScheme) -> list[str]:
    return [f"{SCORE}_{name}" for name in scheme.names] if scheme.kind == "classes" else [SCORE]


def _digits(values: np.ndarray) -> list[str]:
    return [repr(float(value)) for value in values]


def _word(scheme: LabelScheme, value: float) -> str:
    return repr(float(value)) if scheme.kind == "scores" else scheme.names[int(value)]


def _numbers(scheme: LabelScheme, words: Sequence[str]) -> np.ndarray:
    if scheme.kind == "scores":
        return np.array([float(word) for word in words])
    return np.array([scheme.names.index(word) if word else -1 for word in words])
