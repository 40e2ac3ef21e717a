"""Where a model errs: the test pairs by what can be seen of them, and the worst of them."""

# N pairs, C classes

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, compute_pair_metrics
from pair_pkg.pairs.negation import negates
from pair_pkg.pairs.words import word_overlaps

SMALL_SLICE = 30  # pairs; below, the 95 % interval of an accuracy of 80 % reaches 14 points to either side
MAX_SOURCES = 10
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Slice:
    """Some of N pairs, ``rows`` (N,) bool, that are alike in one respect."""

    family: str  # characters, word overlap, negation, numbers, source or label
    name: str
    rows: np.ndarray


def pair_slices(pairs: Pairs, scheme: LabelScheme) -> list[Slice]:
    """The slices of labelled pairs: each family holds every pair once; a slice without pairs is left out.

    Thirds are by the number of characters of both sentences, by the overlap of their words, and for scores by the
    label. A negation is a word of ``negation``'s lists; a number is written in digits.
    """
    left, right = pairs.sentence1, pairs.sentence2
    lengths = np.array([len(one) + len(other) for one, other in zip(left, right)])
    slices = [
        *_thirds("characters", lengths, "{:.0f}"),
        *_thirds("word overlap", word_overlaps(left, right), "{:.2f}"),
        *_named("negation", _agreement(left, right, negates, ("neither side", "one side only", "both sides"))),
        *_named("numbers", list(map(_compare_numbers, left, right))),
    ]
    if pairs.sources and len(set(pairs.sources)) > 1:
        slices += _named("source", _frequent(pairs.sources))
    if scheme.kind == SCORES:
        return [*slices, *_thirds("label", pairs.labels, "{:g}")]
    return [*slices, *_named("label", [scheme.names[label] for label in pairs.labels])]


def slice_metrics(
    kind: str, slices: Sequence[Slice], predictions: np.ndarray, labels: np.ndarray, threshold: float | None
) -> list[dict[str, Any]]:
    """What the model does in each slice, ready for JSON: ``family``, ``slice``, ``pairs``, ``small`` and the metrics.

    Binary: ``accuracy``, ``f1`` (without a threshold None), ``mean_probability`` beside ``positive_share``. Classes:
    ``accuracy``, ``macro_f1``, ``mean_probability`` of what was decided. Scores: ``spearman``,
    ``mean_squared_error``, ``mean_score`` beside ``mean_label``. A metric that the slice does not define is None; F1
    is told where several labels stand, for with one it is no F1 of a task.
    """
    return [
        {
            "family": part.family,
            "slice": part.name,
            "pairs": int(part.rows.sum()),
            "small": bool(part.rows.sum() < SMALL_SLICE),
            **_metrics(kind, predictions[part.rows], labels[part.rows], threshold),
        }
        for part in slices
    ]


def worst_rows(
    kind: str, predictions: np.ndarray, labels: np.ndarray, threshold: float | None, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """The rows of the worst predictions, worst first, and how wrong they are: (R,) each, R up to ``limit``.

    For labels only wrong decisions count, by the probability that was withheld from the true label, and none is wrong
    without a threshold; for scores the absolute error.
    """
    if kind == SCORES:
        error = np.abs(predictions - labels)
        wrong = np.arange(len(labels))
    elif kind == CLASSES:
        error = 1 - predictions[np.arange(len(labels)), labels]
        wrong = np.flatnonzero(predictions.argmax(1) != labels)
    else:
        error = np.abs(predictions - labels)
        undecided = np.zeros(len(labels), dtype=bool)
        wrong = np.flatnonzero(undecided if threshold is None else (predictions >= threshold) != (labels == 1))
    rows = np.array(sorted(wrong, key=lambda row: -error[row])[:limit], dtype=np.int64)
    return rows, error[rows]


def _metrics(kind: str, predictions: np.ndarray, labels: np.ndarray, threshold: float | None) -> dict[str, Any]:
    found = compute_pair_metrics(kind, predictions, labels, threshold)
    one_label = len(np.unique(labels)) < 2
    if kind == BINARY:
        means = {"mean_probability": float(predictions.mean()), "positive_share": float(labels.mean())}
        return {"accuracy": found.get("accuracy"), "f1": None if one_label else found["f1"], **means}
    if kind == CLASSES:
        mean = float(predictions.max(1).mean())
        return {
            "accuracy": found["accuracy"], "macro_f1": None if one_label else found["macro_f1"],
            "mean_probability": mean,
        }  # fmt: skip
    means = {"mean_score": float(predictions.mean()), "mean_label": float(labels.mean())}
    return {"spearman": found["spearman"], "mean_squared_error": found["mean_squared_error"], **means}


def _thirds(family: str, values: np.ndarray, form: str) -> list[Slice]:
    """Three slices by the values' terciles; equal values stay together, so thirds may be uneven."""
    low, high = np.quantile(values, [1 / 3, 2 / 3], method="inverted_cdf")
    thirds = {
        "up to {high}": values <= low,
        "{low} to {high}": (values > low) & (values <= high),
        "{low} or more": values > high,
    }
    slices = []
    for name, rows in thirds.items():
        if rows.any():
            least, most = (form.format(value) for value in (values[rows].min(), values[rows].max()))
            slices.append(Slice(family, name.format(low=least, high=most), rows))
    return slices


def _named(family: str, names: Sequence[str]) -> list[Slice]:
    array = np.array(names, dtype=object)
    return [Slice(family, name, array == name) for name in sorted(set(names))]


def _agreement(
    left: Sequence[str], right: Sequence[str], has: Callable[[str], bool], names: tuple[str, str, str]
) -> list[str]:
    """For each pair the name for no, one or two sides that have something."""
    return [names[has(one) + has(other)] for one, other in zip(left, right)]


def _compare_numbers(one: str, other: str) -> str:
    """Which of the slices of numbers a pair is in.

    >>> _compare_numbers("1,000 yuan", "１０００.0元"), _compare_numbers("3 days", "4 days"), _compare_numbers("3", "x")
    ('same numbers', 'numbers differ', 'numbers differ')
    """
    numbers, others = _numbers(one), _numbers(other)
    if not (numbers or others):
        return "no numbers"
    return "same numbers" if numbers == others else "numbers differ"


def _numbers(text: str) -> set[float | str]:
    found = _NUMBER.findall(unicodedata.normalize("NFKC", text))
    return {_number(word) for word in found}


def _number(word: str) -> float | str:
    grouped = re.fullmatch(r"\d{1,3}(?:,\d{3})+(?:\.\d+)?", word)
    plain = word.replace(",", "") if grouped else word
    return float(plain) if re.fullmatch(r"\d+(?:\.\d+)?", plain) else plain  # 1.2.3 and 1,5 stay as they are


def _frequent(sources: Sequence[str]) -> list[str]:
    kept = {source for source, _ in Counter(sources).most_common(MAX_SOURCES)}
    return [source if source in kept else "other sources" for source in sources]
