"""Which order training sees, and what both orders together say."""

import numpy as np
import pytest
import torch

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.decision import Decision
from pair_pkg.pairs.symmetry import asymmetry, fold_orders, is_swapped

BINARY = LabelScheme("binary", ["no", "yes"])
LEFT = ["what helps a cold", "how long is a cold contagious in small children", "a", "winter", "a cold"]
RIGHT = ["a cold", "is a cold contagious", "how long is a small cold contagious for children and adults", "cold", "a"]
TOKENIZER = train_tokenizer([*LEFT, *RIGHT] * 3, 200)


def pairs(swapped=False, labels=True):
    columns = (RIGHT, LEFT) if swapped else (LEFT, RIGHT)
    return Pairs(*columns, np.array([0, 1, 0, 1, 1]) if labels else None, [f"pairs:{row}" for row in range(5)])


def ids_of(batch):
    ends = np.cumsum(batch["layout"].lengths)[:-1]
    return [part.tolist() for part in np.split(batch["input_ids"].numpy(), ends)]


def test_half_of_the_pairs_begin_swapped_and_every_epoch_turns_them():
    rows = np.arange(20_000)
    first = is_swapped(3, 0, rows)
    assert abs(first.mean() - 0.5) < 0.015
    assert np.array_equal(is_swapped(3, 1, rows), ~first) and np.array_equal(is_swapped(3, 2, rows), first)
    assert 0.48 < (is_swapped(4, 0, rows) == first).mean() < 0.52  # another seed, another draw
    assert np.array_equal(is_swapped(3, 0, rows[::-1])[::-1], first)  # a function of the row, not of its place


@pytest.mark.parametrize("max_seq_length", [7, 40])
def test_evaluation_rows_are_the_pairs_and_then_the_swapped_pairs(max_seq_length):
    settings = {"flat": True, "with_rows": True}
    both = PairRows(pairs(), BINARY, TOKENIZER, max_seq_length, both_orders=True, **settings)
    assert len(both) == 10 and len(both.row_tokens()) == 10
    for first, swapped in ((0, False), (5, True)):
        batch = both.build_batch([Item(first + row, FROZEN) for row in range(5)])
        alone = PairRows(pairs(swapped), BINARY, TOKENIZER, max_seq_length, **settings)
        expected = alone.build_batch([Item(row, FROZEN) for row in range(5)])
        assert ids_of(batch) == ids_of(expected) and torch.equal(batch["token_type_ids"], expected["token_type_ids"])
        assert (batch["rows"] - first).tolist() == expected["rows"].tolist()
        assert torch.equal(batch["labels"], expected["labels"])
    assert both.num_truncated == PairRows(pairs(), BINARY, TOKENIZER, max_seq_length, flat=True).num_truncated


def test_training_reads_both_orders_and_the_same_again_after_a_break():
    def epoch(number):
        rows = PairRows(pairs(), BINARY, TOKENIZER, 40, flat=True, swap_seed=1)
        batches = [rows.build_batch([Item(row, number)]) for row in range(5)]
        return [(tuple(ids_of(batch)[0]), batch["labels"].item()) for batch in batches]

    forward, backward = (
        PairRows(pairs(swapped), BINARY, TOKENIZER, 40, flat=True).build_batch([Item(row, 0) for row in range(5)])
        for swapped in (False, True)
    )
    seen = epoch(0) + epoch(1)
    assert sorted(ids for ids, _ in seen) == sorted(map(tuple, ids_of(forward) + ids_of(backward)))
    assert epoch(2) == epoch(0) != epoch(1)
    assert [label for _, label in epoch(0)] == [0, 1, 0, 1, 1]


def test_columns_are_averaged_and_what_is_known_is_kept():
    columns = {"row": np.arange(4), "label": np.array([1, 0, 1, 0]), "score": np.array([1.0, 2.0, 3.0, 6.0])}
    folded = fold_orders(columns)
    assert folded["row"].tolist() == [0, 1] and folded["label"].tolist() == [1, 0]
    assert folded["score"].tolist() == [2.0, 4.0]


def test_asymmetry_by_hand():
    binary = Decision("binary", temperature=1.0, threshold=0.5)
    margins = np.array([[np.log(3), 0.1, -2.0], [np.log(1 / 3), 0.1, -2.0]])
    found = asymmetry(binary, margins)
    assert found["mean_difference"] == pytest.approx(0.5 / 3) and found["max_difference"] == pytest.approx(0.5)
    assert (found["flipped"], found["flipped_fraction"]) == (1, pytest.approx(1 / 3))
    classes = Decision("classes", temperature=1.0)
    logits = np.log(np.array([[[0.5, 0.3, 0.2]], [[0.2, 0.3, 0.5]]]))
    found = asymmetry(classes, logits)
    assert found["max_difference"] == pytest.approx(0.3) and found["flipped"] == 1
    scores = asymmetry(None, np.array([[1.0, 2.0], [1.5, 2.0]]))
    assert scores == {"mean_difference": 0.25, "max_difference": 0.5}
