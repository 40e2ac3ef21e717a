"""Batches of masked rows: a known answer, one row one mask, flat as padded."""

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pair_pkg.data.batches import FROZEN, EvaluationSampler, Item, TrainSampler
from pair_pkg.data.rows import Rows, cut_windows, rows_line_by_line, rows_packed
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.preview import preview_rows

PAD, CLS, SEP, MASK = 0, 1, 2, 3
FIRST = 10  # the id of the corpus's first token; each token has an id of its own, so a label says its place


def store_of(sizes):
    ids = np.arange(FIRST, FIRST + sum(sizes))
    return TokenStore(ids, np.ones(len(ids), bool), np.cumsum([0, *sizes]), {})


def masked_rows(sizes, packed=True, flat=True, with_rows=True, max_seq_length=32, seed=1):
    store = store_of(sizes)
    starts, lengths = cut_windows(store.offsets, np.arange(len(sizes)), max_seq_length - 2)
    rows = rows_packed(starts, lengths, 2, max_seq_length) if packed else rows_line_by_line(starts, lengths)
    masking = Masking(seed, MASK, store.ids)
    return MaskedRows(store, rows, masking, ([CLS], [SEP]), PAD, flat=flat, with_rows=with_rows)


SIZES = np.random.default_rng(5).integers(1, 70, size=60).tolist()


class EverySecond:
    """In place of Masking: predicts the tokens at even places of the corpus, all shown as the mask token."""

    needs_words = False

    def rates(self, progress):
        return None

    def predicted(self, positions, row_of_token, epoch, rates=None):
        return positions % 2 == 0

    def shown(self, ids, positions, epoch):
        return np.full_like(ids, MASK)


def small(flat):
    """Documents of 2, 3 and 4 tokens, the last two in one row."""
    rows = Rows(np.array([0, 2, 5]), np.array([2, 3, 4]), np.array([0, 1, 3]))
    return MaskedRows(store_of([2, 3, 4]), rows, EverySecond(), ([CLS], [SEP]), PAD, flat=flat, with_rows=True)


def test_known_answer_flat():
    """Ids 10 11 | 12 13 14 | 15 16 17 18; rows (0,) and (1, 2); segments longest first."""
    batch = small(flat=True).build_batch([Item(0, 0), Item(1, 0)])
    assert batch["input_ids"].tolist() == [1, 15, 3, 17, 3, 2, 1, 3, 13, 3, 2, 1, 3, 11, 2]
    assert batch["position_ids"].tolist() == [0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4, 0, 1, 2, 3]
    assert batch["layout"].lengths == [6, 5, 4]
    assert batch["predicted"].tolist() == [2, 4, 7, 9, 12]
    assert batch["labels"].tolist() == [16, 18, 12, 14, 10]
    assert batch["rows"].tolist() == [0, 1]
    assert batch["row_of_label"].tolist() == [1, 1, 1, 1, 0]


def test_known_answer_padded():
    batch = small(flat=False).build_batch([Item(0, 0), Item(1, 0)])
    assert batch["input_ids"].tolist() == [[1, 15, 3, 17, 3, 2], [1, 3, 13, 3, 2, 0], [1, 3, 11, 2, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1] * 6, [1] * 5 + [0], [1] * 4 + [0] * 2]
    assert batch["predicted"].tolist() == [2, 4, 7, 9, 13]
    assert batch["labels"].tolist() == [16, 18, 12, 14, 10]
    assert batch["row_of_label"].tolist() == [1, 1, 1, 1, 0]


def test_a_filler_predicts_nothing_and_shows_the_text():
    batch = small(flat=True).build_batch([Item(1, 0, is_filler=True)])
    assert batch["input_ids"].tolist() == [1, 15, 16, 17, 18, 2, 1, 12, 13, 14, 2]
    assert len(batch["labels"]) == len(batch["predicted"]) == 0


def test_training_batches_carry_no_rows():
    assert set(masked_rows(SIZES, with_rows=False).build_batch([Item(0, 0)])) == {
        "input_ids", "position_ids", "layout", "predicted", "labels",
    }  # fmt: skip


def masks_of(batch):
    """{row: {label: what is shown}} of a batch; a label is a place in the corpus."""
    shown = batch["input_ids"].flatten()[batch["predicted"]]
    masks = {}
    for row, label, token in zip(batch["row_of_label"], batch["labels"].tolist(), shown.tolist()):
        masks.setdefault(int(batch["rows"][row]), {})[label] = token
    return masks


def epoch_masks(dataset, batch_size, order=None, epoch=0):
    rows = range(len(dataset)) if order is None else order
    masks = {}
    for start in range(0, len(rows), batch_size):
        masks |= masks_of(dataset.build_batch([Item(row, epoch) for row in rows[start : start + batch_size]]))
    return masks


@pytest.mark.parametrize("packed", [True, False])
def test_a_row_has_one_mask_in_every_batch_order_and_layout(packed):
    flat, padded = masked_rows(SIZES, packed), masked_rows(SIZES, packed, flat=False)
    alone = epoch_masks(flat, 1)
    assert sorted(alone) == list(range(len(flat)))
    shuffled = np.random.default_rng(0).permutation(len(flat)).tolist()
    assert epoch_masks(flat, 7) == epoch_masks(flat, 100) == epoch_masks(flat, 5, shuffled) == alone
    assert epoch_masks(padded, 6, shuffled) == alone
    assert epoch_masks(flat, 7, epoch=1) != alone != epoch_masks(masked_rows(SIZES, packed, seed=2), 7)


def loaded_masks(dataset, sampler, num_workers):
    loader = DataLoader(dataset, batch_sampler=sampler, collate_fn=dataset.build_batch, num_workers=num_workers)
    return [masks_of(batch) for batch in loader]


def test_workers_change_nothing_and_epochs_do():
    dataset = masked_rows(SIZES)
    sampler = TrainSampler(len(dataset), 8, seed=0)
    first = loaded_masks(dataset, sampler, 0)
    assert loaded_masks(dataset, sampler, 2) == first
    sampler.set_epoch(1)
    second = loaded_masks(dataset, sampler, 2)
    by_row = [{row: mask for batch in epoch for row, mask in batch.items()} for epoch in (first, second)]
    assert all(by_row[0][row] != by_row[1][row] for row in by_row[0] if len(by_row[0][row]) > 2)


def test_evaluation_masks_are_frozen():
    dataset = masked_rows(SIZES)
    passes = []
    for batch_size in (4, 4, 9):
        sampler = EvaluationSampler(dataset.row_tokens(), batch_size)
        passes.append({row: mask for batch in loaded_masks(dataset, sampler, 0) for row, mask in batch.items()})
    assert passes[0] == passes[1] == passes[2] == epoch_masks(dataset, 3, epoch=FROZEN)


@pytest.mark.parametrize("packed", [True, False])
def test_flat_and_padded_agree_token_by_token(packed):
    items = [Item(row, 0) for row in range(9)]
    flat, padded = (masked_rows(SIZES, packed, flat=kind).build_batch(items) for kind in (True, False))
    real = padded["attention_mask"].bool()
    assert padded["input_ids"][real].tolist() == flat["input_ids"].tolist()
    assert (padded["input_ids"][~real] == PAD).all()
    assert padded["attention_mask"].sum(1).tolist() == flat["layout"].lengths
    for name in ("labels", "rows", "row_of_label"):
        assert torch.equal(flat[name], padded[name])
    places = torch.zeros(real.shape, dtype=torch.long).masked_scatter(real, torch.arange(len(flat["input_ids"])))
    assert torch.equal(places.flatten()[padded["predicted"]], flat["predicted"])


@pytest.mark.parametrize("packed", [True, False])
def test_every_window_stands_whole_between_its_special_tokens_and_those_are_never_predicted(packed):
    dataset = masked_rows(SIZES, packed)
    for epoch in range(3):
        batch = dataset.build_batch([Item(row, epoch) for row in range(len(dataset))])
        original = batch["input_ids"].clone()
        original[batch["predicted"]] = batch["labels"]
        segments = original.split(batch["layout"].lengths)
        assert all(segment[0] == CLS and segment[-1] == SEP for segment in segments)
        inner = sorted(segment[1:-1].tolist() for segment in segments)
        assert [token for segment in inner for token in segment] == dataset.store.ids.tolist()
        assert batch["labels"].min() >= FIRST
        assert torch.equal(batch["predicted"], batch["predicted"].unique())
        assert batch["layout"].lengths == sorted(batch["layout"].lengths, reverse=True)


def test_affixes_of_any_length():
    rows = Rows(np.array([0]), np.array([2]), np.array([0, 1]))
    for affixes, ids in ((([], []), [10, 11]), (([CLS, 4], [SEP]), [1, 4, 10, 11, 2])):
        dataset = MaskedRows(store_of([2]), rows, EverySecond(), affixes, PAD, flat=True)
        batch = dataset.build_batch([Item(0, 0)])
        batch["input_ids"][batch["predicted"]] = batch["labels"]
        assert batch["input_ids"].tolist() == ids


def test_drawn_rows_are_counted_alone():
    dataset = masked_rows(SIZES)
    whole = dataset.row_tokens()
    dataset.rows = dataset.rows.sample(3, seed=0)
    drawn = np.sort(np.random.default_rng(0).permutation(len(whole))[:3])
    assert dataset.row_tokens().tolist() == whole[drawn].tolist()


def test_preview_shows_what_stands_there_and_what_is_wanted(tiny_tokenizer):
    ids = np.array(tiny_tokenizer("the old pump leaks", add_special_tokens=False)["input_ids"])
    store = TokenStore(ids, np.ones(len(ids), bool), np.array([0, len(ids)]), {})
    rows = Rows(np.array([0]), np.array([len(ids)]), np.array([0, 1]))
    masking = Masking(1, tiny_tokenizer.mask_token_id, ids, probability=0.1, masked_fraction=1.0, random_fraction=0.0)
    affixes = [tiny_tokenizer.cls_token_id], [tiny_tokenizer.sep_token_id]
    dataset = MaskedRows(store, rows, masking, affixes, tiny_tokenizer.pad_token_id, flat=True)
    (line,) = preview_rows(dataset, tiny_tokenizer, [Item(0, 0)])
    words = line.replace("[MASK] -> ", "[MASK]->").split()
    (wanted,) = (word for word in words if word.startswith("{"))
    place = words.index(wanted) - 1
    pieces = tiny_tokenizer.tokenize("the old pump leaks")
    assert wanted == f"{{[MASK]->{pieces[place]}}}"
    assert words == ["[CLS]", *pieces[:place], wanted, *pieces[place + 1 :], "[SEP]"]


def test_a_token_that_is_never_predicted_is_shown_as_it_is():
    dataset = small(flat=True)
    dataset.unpredicted = 16
    batch = dataset.build_batch([Item(1, 0)])
    assert 16 not in batch["labels"] and 16 in batch["input_ids"] and len(batch["labels"]) == 3
