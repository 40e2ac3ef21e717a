"""Windows and rows: every token once, no row over its capacity, few rows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_pkg.data.rows import Rows, cut_windows, pack_blocks, rows_line_by_line, rows_packed, split_documents

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=60)
lengths_and_capacity = st.integers(1, 64).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=120), st.just(capacity))
)


def first_fit_decreasing(lengths, capacity):
    """Number of blocks of the textbook's algorithm."""
    free = []
    for length in sorted(lengths, reverse=True):
        block = next((block for block, space in enumerate(free) if space >= length), None)
        if block is None:
            free.append(capacity - length)
        else:
            free[block] -= length
    return len(free)


@given(sizes, st.integers(1, 17), st.randoms())
def test_windows_cover_each_chosen_document_once(sizes, max_tokens, random):
    offsets = np.cumsum([0, *sizes])
    documents = np.array(sorted(random.sample(range(len(sizes)), random.randint(1, len(sizes)))))
    starts, lengths = cut_windows(offsets, documents, max_tokens)
    covered = [token for start, length in zip(starts, lengths) for token in range(start, start + length)]
    assert covered == [token for document in documents for token in range(offsets[document], offsets[document + 1])]
    assert all(0 < length <= max_tokens for length in lengths)
    assert len(lengths) == sum(-(-sizes[document] // max_tokens) for document in documents)
    inner_ends = set(offsets.tolist())
    assert all(start + length in inner_ends or length == max_tokens for start, length in zip(starts, lengths))


@settings(max_examples=300)
@given(lengths_and_capacity)
def test_packing_loses_nothing_and_is_tight(case):
    lengths, capacity = np.array(case[0], dtype=np.int64), case[1]
    order, boundaries = pack_blocks(lengths, capacity)
    blocks = np.split(order, boundaries[1:-1]) if len(boundaries) > 1 else []
    assert sorted(order.tolist()) == list(range(len(lengths)))
    assert all(0 < lengths[block].sum() <= capacity for block in blocks)
    assert len(blocks) <= first_fit_decreasing(lengths.tolist(), capacity) + 1


@pytest.mark.parametrize(
    ("lengths", "capacity"),
    [([7, 1, 5, 3, 8, 5, 2, 9], 10), ([11, 9, 4, 3, 3], 15)],  # the second one needs the tightest space, not any
)
def test_packing_finds_a_perfect_fit(lengths, capacity):
    lengths = np.array(lengths)
    order, boundaries = pack_blocks(lengths, capacity)
    assert {int(lengths[block].sum()) for block in np.split(order, boundaries[1:-1])} == {capacity}


def test_an_item_over_the_capacity_is_a_defect():
    with pytest.raises(AssertionError, match="does not fit"):
        pack_blocks(np.array([3, 11]), 10)


def test_special_tokens_take_their_place_in_a_row():
    starts, lengths = np.array([0, 4, 8]), np.array([4, 4, 2])
    rows = rows_packed(starts, lengths, num_special=2, capacity=10)
    assert len(rows) == 2 and rows.num_tokens == 10  # two windows and two pairs of special tokens fill a row
    assert sorted(rows.row_tokens().tolist()) == [4, 6]
    assert sorted(zip(rows.starts.tolist(), rows.lengths.tolist())) == [(0, 4), (4, 4), (8, 2)]


def test_line_by_line_is_one_window_a_row():
    rows = rows_line_by_line(np.array([0, 4, 9]), np.array([4, 5, 1]))
    assert rows.row_tokens().tolist() == [4, 5, 1] and len(rows) == 3


def test_the_first_rows():
    rows = Rows(np.array([0, 3, 5]), np.array([3, 2, 4]), np.array([0, 2, 3]))
    assert rows.row_tokens().tolist() == [5, 4]
    one, all_of_them = rows.sample(1, seed=0), rows.sample(99, seed=0)
    assert len(one) == 1 and one.row_tokens().tolist() == [one.num_tokens] and one.num_tokens in rows.row_tokens()
    assert all_of_them.row_tokens().tolist() == rows.row_tokens().tolist()
    assert {rows.sample(1, seed).num_tokens for seed in range(20)} == set(rows.row_tokens().tolist())


@given(st.integers(2, 300), st.floats(0.001, 0.999), st.integers(0, 2**31))
def test_a_split_is_disjoint_whole_and_the_same_again(num_documents, fraction, seed):
    train, validation = split_documents(num_documents, fraction, seed)
    assert sorted([*train, *validation]) == list(range(num_documents))
    assert len(train) and len(validation) and abs(len(validation) - num_documents * fraction) <= 1
    assert train.tolist() == sorted(train) and validation.tolist() == sorted(validation)
    again = split_documents(num_documents, fraction, seed)
    assert np.array_equal(again[0], train) and np.array_equal(again[1], validation)


def test_another_seed_draws_other_documents():
    draws = {tuple(split_documents(1000, 0.05, seed)[1]) for seed in range(5)}
    assert len(draws) == 5
    assert all(min(draw) < 500 < max(draw) for draw in draws)  # not the first of the file
