"""Trivial baselines: what they predict by hand."""

import csv
from pathlib import Path

import numpy as np
import pytest

from pair_pkg.pairs.baselines import Similarity, baseline_predictions
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES, compute_pair_metrics
from pair_pkg.pairs.words import word_overlaps

MQP = Path(__file__).parents[2] / "../shared/data/mqp"
OVERLAP = {"word_overlap": Similarity(np.array([1, 1 / 3, 0, 1 / 3]), np.array([1, 1, 0, 0]), np.array([1, 1 / 4, 0]))}


def test_binary_majority_follows_the_training_labels():
    assert baseline_predictions(BINARY, np.array([1, 1, 0]), 4, 2, {})["majority"].predictions.tolist() == [2 / 3] * 4


def test_a_similarity_is_cut_where_the_training_pairs_say():
    found = baseline_predictions(BINARY, np.array([1, 1, 0, 0]), 3, 2, OVERLAP)["word_overlap"]
    assert found.threshold == pytest.approx(1 / 6)  # as good as 2/3 on the training pairs, and lower
    assert found.predictions.tolist() == [1, 1 / 4, 0]


def test_a_similarity_is_cut_for_what_the_model_is_cut_for():
    """Three in eight are positive: the most accurate cut says yes to one pair, that of the best F1 to five."""
    similarity = Similarity(np.arange(8) / 8, np.array([0, 0, 0, 1, 0, 1, 0, 0]), np.arange(8) / 8)
    cuts = {
        name: baseline_predictions(BINARY, similarity.train_labels, 8, 2, {"word_overlap": similarity}, **wanted)
        for name, wanted in {"accuracy": {}, "f1": {"decide_by": "f1"}}.items()
    }
    assert {name: found["word_overlap"].threshold for name, found in cuts.items()} == {
        "accuracy": similarity.train[-1] + 2 - 1, "f1": 5 / 16
    }  # fmt: skip


def test_class_baseline_is_the_majority_only():
    found = baseline_predictions(CLASSES, np.array([2, 2, 2, 0, 1]), 4, 4, OVERLAP)
    assert set(found) == {"majority"} and found["majority"].predictions[0].tolist() == [0.2, 0.2, 0.6, 0]
    assert compute_pair_metrics(CLASSES, found["majority"].predictions, [2, 0, 1, 2])["correct"] == 2


def test_score_baselines_fit_mean_and_line_on_the_training_pairs():
    labels = np.array([5.0, 3.0, 1.0])  # score 1 + 4 overlap
    overlap = Similarity(np.array([1, 0.5, 0]), labels, np.array([1, 0.5, 0, 2]))
    found = baseline_predictions(SCORES, labels, 4, 1, {"word_overlap": overlap})
    assert found["word_overlap"].predictions == pytest.approx([5, 3, 1, 9])
    assert found["majority"].predictions == pytest.approx([3, 3, 3, 3])


def test_score_line_is_flat_where_the_similarity_says_nothing():
    similarity = Similarity(np.array([0.5, 0.5]), np.array([1.0, 3.0]), np.array([0.1, 0.9]))
    found = baseline_predictions(SCORES, similarity.train_labels, 2, 1, {"word_overlap": similarity})
    assert found["word_overlap"].predictions.tolist() == [2, 2]


def test_real_medical_pairs_are_harder_than_word_overlap():
    if not MQP.is_dir():
        pytest.skip("the medical question pairs are not beside the repository")
    (*train_texts, train_labels), (*test_texts, labels) = _read_mqp("train.csv"), _read_mqp("dev.csv")
    overlap = Similarity(word_overlaps(*train_texts), train_labels, word_overlaps(*test_texts))
    found = baseline_predictions(BINARY, train_labels, len(labels), 2, {"word_overlap": overlap})
    accuracy = {name: ((part.predictions >= part.threshold) == labels).mean() for name, part in found.items()}
    assert 0.4 < accuracy["majority"] < 0.6 and accuracy["word_overlap"] < 0.75


def _read_mqp(name):
    with open(MQP / name, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file)][1:]
    return [row[-3] for row in rows], [row[-2] for row in rows], np.array([int(row[-1]) for row in rows])
