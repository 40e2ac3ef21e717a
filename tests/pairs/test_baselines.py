"""Trivial baselines: what they predict by hand, and that they never look at the test labels."""

import csv
from pathlib import Path

import pytest

from pair_pkg.pairs.baselines import baseline_metrics, word_overlaps, words
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES

MQP = Path(__file__).parents[2] / "../shared/data/mqp"
TRAIN = (["a b c", "a b", "x y", "p q"], ["a b c", "a c", "z", "q r"], [1, 1, 0, 0])  # overlaps 1, 1/3, 0, 1/3


def test_words_ignore_case_width_and_punctuation():
    assert words("Can I take Ibuprofen?") == words("ｃａｎ i TAKE ibuprofen")
    assert words("") == words("?! ***") == set()


def test_chinese_characters_and_kana_are_words_and_latin_runs_stay_whole():
    assert words("我的iPhone坏了") == {"我", "的", "iphone", "坏", "了"}
    assert words("すし𠀀") == {"す", "し", "𠀀"}


def test_word_overlap_is_symmetric_and_zero_without_words():
    left, right = ["a b c", "花呗", "?", ""], ["c d", "花", "!", "a"]
    assert word_overlaps(left, right).tolist() == [1 / 4, 1 / 2, 0, 0]
    assert word_overlaps(left, right).tolist() == word_overlaps(right, left).tolist()


def test_binary_majority_follows_the_training_labels_even_where_the_test_differs():
    train = (["a"] * 3, ["b"] * 3, [1, 1, 0])
    result = baseline_metrics(BINARY, train, (["a"] * 4, ["b"] * 4, [0, 0, 0, 1]))["majority"]
    assert (result["correct"], result["total"], result["roc_auc"]) == (1, 4, 0.5)
    assert "mcc" in result["undefined"]


def test_binary_word_overlap_uses_the_threshold_of_the_training_pairs():
    test = (["k l", "k l m", "k"], ["k l", "k n", "n"], [0, 0, 1])  # overlaps 1, 1/4, 0: all on the wrong side
    result = baseline_metrics(BINARY, TRAIN, test)["word_overlap"]
    assert result["threshold"] == pytest.approx(1 / 6)  # as good as 2/3 on the training pairs, and lower
    assert result["correct"] == 0 and result["roc_auc"] == 0


def test_class_baseline_is_the_majority_only():
    train = (["a"] * 5, ["b"] * 5, [2, 2, 2, 0, 1])
    result = baseline_metrics(CLASSES, train, (["a"] * 4, ["b"] * 4, [2, 0, 1, 2]))
    assert set(result) == {"majority"} and result["majority"]["correct"] == 2


def test_score_baselines_fit_mean_and_line_on_the_training_pairs():
    train = (["a b", "a b", "a b"], ["a b", "b", "c"], [5.0, 3.0, 1.0])  # overlap 1, 1/2, 0: score 1 + 4 overlap
    test = (["k l", "k l", "k"], ["k l", "l", "m"], [4.0, 3.0, 1.0])  # the line predicts 5, 3, 1
    result = baseline_metrics(SCORES, train, test)
    assert result["word_overlap"]["mean_squared_error"] == pytest.approx(1 / 3)
    assert result["majority"]["mean_squared_error"] == pytest.approx((1 + 0 + 4) / 3)
    assert result["majority"]["pearson"] is None


def test_score_line_is_flat_where_the_overlap_says_nothing():
    result = baseline_metrics(SCORES, (["a", "b"], ["x", "y"], [1.0, 3.0]), (["a", "b"], ["a", "x"], [2.0, 3.0]))
    assert result["word_overlap"]["mean_squared_error"] == pytest.approx(1 / 2)
    assert result["word_overlap"]["pearson"] is None


def test_real_medical_pairs_are_harder_than_word_overlap():
    if not MQP.is_dir():
        pytest.skip("the medical question pairs are not beside the repository")
    result = baseline_metrics(BINARY, _read_mqp("train.csv"), _read_mqp("dev.csv"))
    assert 0.4 < result["majority"]["accuracy"] < 0.6
    assert result["word_overlap"]["accuracy"] < 0.75


def _read_mqp(name):
    with open(MQP / name, encoding="utf-8", newline="") as file:
        rows = [row for row in csv.reader(file)][1:]
    return [row[-3] for row in rows], [row[-2] for row in rows], [int(row[-1]) for row in rows]
