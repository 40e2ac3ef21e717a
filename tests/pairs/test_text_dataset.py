"""A batch holds each distinct text once, and its pairs find their own."""

import numpy as np
import pytest

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.pairs.text_dataset import PairTexts

LEFT = ["a cold", "winter", "what cures a cold", "a cold", "home"]
RIGHT = ["cure a cold", "a cold", "Winter ", "cure a cold", "home"]
TOKENIZER = train_tokenizer([*LEFT, *RIGHT] * 3, 100)
SCORES = LabelScheme("scores", [], 0.0, 5.0)


def dataset(max_seq_length=16, labels=(0.0, 5.0, 2.5, 5.0, 0.0), **settings):
    labels = None if labels is None else np.float32(labels)
    return PairTexts(Pairs(LEFT, RIGHT, labels, LEFT), SCORES, TOKENIZER, max_seq_length, **{"flat": True, **settings})


def items(*rows, is_filler=False):
    return [Item(row, FROZEN, is_filler) for row in rows]


def texts_of(batch):
    return [
        TOKENIZER.decode(ids, skip_special_tokens=True) for ids in batch["input_ids"].split(batch["layout"].lengths)
    ]


def test_a_flat_batch_holds_distinct_texts_longest_first():
    batch = dataset().build_batch(items(0, 3, 1, 4))
    texts = texts_of(batch)
    assert sorted(texts) == ["a cold", "cure a cold", "home", "winter"]
    assert batch["layout"].lengths == sorted(batch["layout"].lengths, reverse=True)
    assert [texts[place] for place in batch["sentence1"]] == ["a cold", "a cold", "winter", "home"]
    assert [texts[place] for place in batch["sentence2"]] == ["cure a cold", "cure a cold", "a cold", "home"]
    assert batch["labels"].tolist() == [0, 1, 1, 0]
    assert set(batch) == {
        "input_ids", "position_ids", "token_type_ids", "layout", "sentence1", "sentence2", "labels"
    }  # fmt: skip


def test_a_padded_batch_holds_the_same_texts():
    flat, padded = dataset().build_batch(items(2, 4)), dataset(flat=False).build_batch(items(2, 4))
    assert padded["input_ids"][padded["attention_mask"].bool()].tolist() == flat["input_ids"].tolist()
    assert padded["sentence1"].tolist() == flat["sentence1"].tolist()


def test_evaluation_names_the_rows_and_needs_no_labels():
    batch = dataset(labels=None, with_rows=True).build_batch(items(4, 2))
    assert batch["rows"].tolist() == [4, 2]
    assert "labels" not in batch


@pytest.mark.parametrize("flat", [True, False])
def test_a_filler_brings_texts_and_no_pair(flat):
    batch = dataset(flat=flat, with_groups=True).build_batch(items(1, is_filler=True))
    assert batch["input_ids"].numel() > 0
    assert all(batch[name].shape == (0,) for name in ("sentence1", "sentence2", "labels", "groups"))


def test_groups_are_pairs_that_texts_connect_over_the_whole_set():
    groups = dataset(with_groups=True).build_batch(items(0, 1, 2, 3, 4))["groups"].tolist()
    assert len(set(groups[:4])) == 1  # "Winter " is "winter": one text under another spelling
    assert groups[4] != groups[0]


def test_row_tokens_and_truncation():
    rows = dataset(max_seq_length=4)
    whole = np.array([len(TOKENIZER(left)["input_ids"]) for left in LEFT])
    assert rows.row_tokens()[4] == 2 * whole[4]
    assert rows.num_truncated == 2  # "what cures a cold" and "cure a cold"
    assert rows.row_tokens().max() == 8
