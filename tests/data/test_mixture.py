"""Rows of several corpora: none copied, the right share, other rows in the next epoch, each row its own tokens."""

import numpy as np
import pytest

from pair_pkg.data.batches import Item
from pair_pkg.data.mixture import MixedRows, Part, mix, quota_of
from pair_pkg.data.rows import cut_windows, rows_line_by_line
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.masking import Masking


def corpus(first_id, num_documents, size=4):
    ids = np.arange(first_id, first_id + num_documents * size, dtype=np.uint16)
    offsets = np.arange(num_documents + 1) * size
    store = TokenStore(ids, np.ones(len(ids), bool), offsets, {"tokens": len(ids)})
    return store, rows_line_by_line(*cut_windows(offsets, np.arange(num_documents), size))


@pytest.fixture
def mixed():
    """Six rows of the domain (ids from 100), two a turn of five (from 200), three a turn of two (from 300)."""
    store, rows = corpus(100, 6)
    return mix(store, rows, [Part(*corpus(200, 5), quota=2), Part(*corpus(300, 2), quota=3)], seed=1)


def first_ids(store, rows, epoch):
    numbers = np.array([rows.row_at(number, epoch) for number in range(len(rows))])
    return store.ids[rows.starts[rows.row_offsets[numbers]]].tolist()


def test_an_epoch_has_all_own_rows_and_the_quotas(mixed):
    found = first_ids(*mixed, epoch=0)
    assert len(found) == 11 and found[:6] == [100, 104, 108, 112, 116, 120]
    assert all(200 <= value < 220 for value in found[6:8]) and all(300 <= value < 308 for value in found[8:])


def test_epochs_take_the_pools_rows_in_turn(mixed):
    taken = [value for epoch in range(5) for value in first_ids(*mixed, epoch=epoch)[6:8]]
    assert sorted(taken[:5]) == [200, 204, 208, 212, 216] and taken[5:] == taken[:5]
    more = [value for epoch in range(2) for value in first_ids(*mixed, epoch=epoch)[8:]]
    assert sorted(more) == [300] * 3 + [304] * 3


def test_a_batch_holds_the_tokens_of_the_rows_it_names(mixed):
    store, rows = mixed
    masking = Masking(1, 3, np.arange(5, 99), masked_fraction=0.0, random_fraction=0.0)
    batch = MaskedRows(store, rows, masking, ([1], [2]), 0, flat=False).build_batch([Item(n, 3) for n in range(11)])
    assert batch["input_ids"][:, 1].tolist() == first_ids(store, rows, epoch=3)
    assert (batch["input_ids"][:, 2] == batch["input_ids"][:, 1] + 1).all()


def test_without_others_nothing_is_wrapped():
    store, rows = corpus(100, 3)
    assert mix(store, rows, [], seed=1) == (store, rows)


def test_the_order_of_a_pool_is_the_seeds():
    store, rows = corpus(100, 3)
    orders = [first_ids(*mix(store, rows, [Part(*corpus(200, 50), 50)], seed), 0) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5])
def test_the_share_is_of_all_rows(share):
    assert quota_of(share, 1000) / (1000 + quota_of(share, 1000)) == pytest.approx(share, abs=0.001)


def test_a_mixture_ends():
    with pytest.raises(IndexError):
        MixedRows(np.zeros(1), np.ones(1), np.array([0, 1]), num_own=1).row_at(1, 0)
