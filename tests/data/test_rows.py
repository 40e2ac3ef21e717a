"""Windows and rows: every token once, no row over its capacity, few rows."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pair_pkg.data import draws
from pair_pkg.data import rows as rows_module
from pair_pkg.data.row_files import ARRAYS, load_or_build_rows
from pair_pkg.data.rows import (
    Documents,
    Rows,
    cut_in_parts,
    cut_windows,
    join_rows,
    pack_blocks,
    rows_line_by_line,
    rows_packed,
    split_documents,
)

sizes = st.lists(st.integers(0, 40), min_size=1, max_size=60)
lengths_and_capacity = st.integers(1, 64).flatmap(
    lambda capacity: st.tuples(st.lists(st.integers(1, capacity), max_size=120), st.just(capacity))
)


def numbers(documents):
    return np.concatenate([*documents.parts()])


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
    train, validation = (numbers(side) for side in split_documents(num_documents, fraction, seed))
    assert sorted([*train, *validation]) == list(range(num_documents))
    assert len(train) and len(validation) and abs(len(validation) - num_documents * fraction) <= 1
    assert train.tolist() == sorted(train) and validation.tolist() == sorted(validation)
    sides = split_documents(num_documents, fraction, seed)
    assert [numbers(side).tolist() for side in sides] == [train.tolist(), validation.tolist()]


def test_another_seed_draws_other_documents():
    draws = {tuple(numbers(split_documents(1000, 0.05, seed)[1])) for seed in range(5)}
    assert len(draws) == 5
    assert all(min(draw) < 500 < max(draw) for draw in draws)  # not the first of the file


@pytest.fixture
def small_parts(monkeypatch):
    for module in (draws, rows_module):
        monkeypatch.setattr(module, "PART", 16)
    return 16


@given(st.integers(0, 90), st.floats(0.001, 0.999), st.integers(0, 2**31))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_split_in_parts_is_exact_and_takes_of_each(small_parts, num_documents, fraction, seed):
    train, validation = split_documents(num_documents + 2, fraction, seed)
    assert sorted([*numbers(train), *numbers(validation)]) == list(range(num_documents + 2))
    count = min(max(round((num_documents + 2) * fraction), 1), num_documents + 1)
    assert len(numbers(validation)) == count
    shares = [len(part) for part in validation.parts()]
    assert all(abs(share - small_parts * count / (num_documents + 2)) <= 1 for share in shares[:-1])


@given(sizes, st.integers(1, 17))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_windows_in_parts_are_those_of_all(small_parts, sizes, max_tokens):
    offsets = np.cumsum([0, *sizes])
    parts = list(cut_in_parts(offsets, Documents(len(sizes)), max_tokens))
    whole = cut_windows(offsets, np.arange(len(sizes)), max_tokens)
    assert [np.concatenate(arrays).tolist() for arrays in zip(*parts)] == [array.tolist() for array in whole]
    largest = max(-(-size // max_tokens) for size in sizes)
    assert all(len(starts) < small_parts + largest for starts, _ in parts)


def test_rows_of_parts_are_joined_in_memory_and_on_disk(tmp_path):
    parts = [
        Rows(np.array([0, 3, 5]), np.array([3, 2, 4]), np.array([0, 2, 3])),
        rows_line_by_line(np.empty(0, np.int64), np.empty(0, np.int64)),
        Rows(np.array([9, 12]), np.array([3, 1]), np.array([0, 2])),
    ]
    expected = {"starts": [0, 3, 5, 9, 12], "lengths": [3, 2, 4, 3, 1], "row_offsets": [0, 2, 3, 5]}
    store = tmp_path / "tokens-1"
    mapped = load_or_build_rows(store, [1], iter(parts))
    for rows in (join_rows(parts), mapped, load_or_build_rows(store, [1], None)):  # the last time they are there
        assert {name: getattr(rows, name).tolist() for name in ARRAYS} == expected
    assert isinstance(mapped.starts, np.memmap) and mapped.row_tokens().tolist() == [5, 4, 4]
    assert len(load_or_build_rows(store, [2], iter(parts[:1]))) == 2
    assert len(load_or_build_rows(tmp_path / "tokens-2", [1], iter(parts[:1]))) == 2
    assert len(join_rows([])) == len(load_or_build_rows(store, [3], iter([]))) == 0


@pytest.mark.parametrize(
    ("name", "damage", "words"),
    [
        ("starts.bin", lambda path: path.write_bytes(path.read_bytes()[:-8]), "starts.bin has 16 bytes in place of 24"),
        ("lengths.bin", lambda path: path.unlink(), "lengths.bin cannot be read (No such file or directory)"),
        ("rows.json", lambda path: path.write_text("{"), "rows.json is damaged"),
        ("rows.json", lambda path: path.write_text("[]"), "rows.json is damaged"),
    ],
)
def test_damaged_rows_are_laid_anew_with_a_line(tmp_path, caplog, name, damage, words):
    rows = Rows(np.array([0, 3, 5]), np.array([3, 2, 4]), np.array([0, 2, 3]))
    store = tmp_path / "tokens-1"
    load_or_build_rows(store, [1], [rows])
    (folder,) = tmp_path.glob("rows-*")
    damage(folder / name)
    assert load_or_build_rows(store, [1], [rows]).lengths.tolist() == [3, 2, 4]
    assert words in caplog.text and "it is built anew" in caplog.text
