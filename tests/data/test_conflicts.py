"""Pairs with two labels: every row of them, whatever the order, case and split."""

import numpy as np

from pair_pkg.data.conflicts import list_conflicts
from pair_pkg.data.pairs import Pairs


def build(*rows):
    left, right, labels = zip(*rows)
    return Pairs(list(left), list(right), np.array(labels), [f"f:{n}" for n in range(len(rows))])


def test_swapped_and_normalized_pairs_conflict_and_equal_ones_are_listed_with_them():
    train = build(("a", "b", 0), ("c", "d", 1), ("B ", "Ａ", 1), ("a", "b", 0), ("e", "f", 0), ("e", "f", 0))
    assert list_conflicts({"train": train}) == [[("train", 0), ("train", 2), ("train", 3)]]


def test_conflicts_across_splits_are_found():
    splits = {"train": build(("a", "b", 0), ("x", "y", 1)), "test": build(("y", "x", 0), ("b", "a", 0))}
    assert list_conflicts(splits) == [[("train", 1), ("test", 0)]]


def test_different_scores_conflict():
    assert len(list_conflicts({"train": build(("a", "b", 3.8), ("a", "b", 4.0), ("c", "d", 1.0))})) == 1
