"""What a model must beat: the majority class and the overlap of words, fitted on the training pairs."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, compute_pair_metrics
from pair_pkg.pairs.thresholds import best_threshold

LabelledPairs = tuple[Sequence[str], Sequence[str], Sequence[float]]  # left texts, right texts, labels

# Scripts written without spaces: Han (with its extensions) and kana. Hangul puts spaces between words.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def baseline_metrics(kind: str, train: LabelledPairs, test: LabelledPairs) -> dict[str, dict]:
    """Score the trivial predictors on ``test`` by the metrics that score the models.

    "majority" predicts the share of each label in ``train`` (for scores: their mean), whatever the texts say.
    "word_overlap" (not for classes) predicts the Jaccard overlap of the words: binary pairs are cut at the threshold
    with the best accuracy on ``train``, which its metrics name; for scores the overlap is mapped linearly by least
    squares on ``train``.
    """
    baselines = {"majority": _majority_metrics(kind, np.asarray(train[2]), np.asarray(test[2]))}
    if kind == CLASSES:
        return baselines
    train_overlaps, test_overlaps = word_overlaps(train[0], train[1]), word_overlaps(test[0], test[1])
    if kind == BINARY:
        threshold = best_threshold(train_overlaps, np.asarray(train[2]))
        baselines["word_overlap"] = {
            **compute_pair_metrics(BINARY, test_overlaps, test[2], threshold),
            "threshold": threshold,
        }
    else:
        slope, intercept = _least_squares(train_overlaps, np.asarray(train[2], dtype=np.float64))
        baselines["word_overlap"] = compute_pair_metrics(SCORES, slope * test_overlaps + intercept, test[2])
    return baselines


def word_overlaps(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """The Jaccard overlap of the two word sets of each pair, (N,) in [0, 1]; 0 where neither text has a word.

    >>> word_overlaps(["How old is she?", "花呗怎么还款"], ["How OLD is he", "花呗还款"]).round(2).tolist()
    [0.6, 0.67]
    """
    overlaps = []
    for one, other in zip(left, right, strict=True):
        one_words, other_words = words(one), words(other)
        overlaps.append(len(one_words & other_words) / max(1, len(one_words | other_words)))
    return np.array(overlaps)


def words(text: str) -> set[str]:
    """The words of a text, without case and punctuation; a Chinese or Japanese character is a word of its own.

    >>> sorted(words("Is WiFi, 无线 the same?"))
    ['is', 'same', 'the', 'wifi', '无', '线']
    """
    return set(_WORD.findall(unicodedata.normalize("NFKC", text).casefold()))


def _majority_metrics(kind: str, train_labels: np.ndarray, test_labels: np.ndarray) -> dict:
    if kind != CLASSES:  # the mean of 0 and 1 is the share of label 1
        constant = np.full(len(test_labels), train_labels.mean())
        return compute_pair_metrics(kind, constant, test_labels)
    num_classes = int(max(train_labels.max(), test_labels.max())) + 1
    shares = np.bincount(train_labels, minlength=num_classes) / len(train_labels)
    return compute_pair_metrics(CLASSES, np.tile(shares, (len(test_labels), 1)), test_labels)


def _least_squares(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and intercept of the line through (x, y); flat where ``x`` is constant."""
    centred = x - x.mean()
    variance = centred @ centred
    slope = centred @ (y - y.mean()) / variance if variance else 0.0
    return slope, y.mean() - slope * x.mean()
