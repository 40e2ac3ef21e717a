"""The decisions that were stored with models, as functions of scores: what search, mine and dedupe judge by."""

import os
from pathlib import Path

import numpy as np

from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import load_decision
from pair_pkg.pairs.metrics import BINARY
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.search.answers import Judge


def cosine_judge(model_dir: str | os.PathLike) -> Judge | None:
    """A bi-encoder's own decision on cosines, or None where none was fitted."""
    decision = load_decision(model_dir) if Path(model_dir).is_dir() else None
    if decision is None or decision.kind != BINARY:
        return None

    def judge(cosines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        probabilities = decision.probability(cosines)
        return probabilities, decision.decide(probabilities)

    return judge


def cosine_threshold(model_dir: str | os.PathLike) -> float | None:
    """The cosine from which on a bi-encoder's decision says yes, or None where none was fitted."""
    decision = load_decision(model_dir) if Path(model_dir).is_dir() else None
    return decision.score_threshold if decision is not None and decision.kind == BINARY else None


class PairJudge:
    """A cross-encoder's calibrated probabilities and its yes or no, of binary labels."""

    def __init__(self, model_dir: str, flag: str):
        """Raises ``InputError`` for a model of another kind."""
        scorer = load_scorer(model_dir)
        if scorer.decision is None or scorer.decision.kind != BINARY:
            what = "holds no decision on yes and no"
            raise InputError(f"{flag} {model_dir}: {what}; give a cross-encoder of binary labels")
        self._score, self._decision, self.threshold = scorer.score, scorer.decision, scorer.decision.threshold

    def __call__(self, sentence1: list[str], sentence2: list[str]) -> tuple[np.ndarray, np.ndarray]:
        probabilities = self._decision.probability(self._score(sentence1, sentence2))
        return probabilities, self._decision.decide(probabilities)
