"""Orders and samples of many numbers: a part at a time, and those of one part as ever."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pair_pkg.data import draws
from pair_pkg.data.draws import Shuffled, draw_in_parts


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(draws, "PART", 16)
    return 16


def test_numbers_of_one_part_are_one_permutation():
    assert Shuffled(100, [3, 2])[:].tolist() == np.random.default_rng([3, 2]).permutation(100).tolist()
    drawn, left = next(draw_in_parts(100, 30, seed=5))
    order = np.random.default_rng(5).permutation(100)
    assert drawn.tolist() == sorted(order[:30]) and left.tolist() == sorted(order[30:])


@given(st.integers(0, 100), st.integers(0, 5), st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_order_has_every_number_once_wherever_it_is_read(small_parts, size, key, data):
    order = Shuffled(size, [key, 1])
    whole = order[:].tolist()
    assert sorted(whole) == list(range(size))
    start, end = sorted(data.draw(st.tuples(st.integers(0, size), st.integers(0, size + 5))))
    assert order[start:end].tolist() == Shuffled(size, [key, 1])[start:end].tolist() == whole[start:end]


def test_a_part_is_of_the_whole_and_so_is_another_keys(small_parts):
    order = Shuffled(64, [1, 0])
    parts = [order[begin : begin + 16] for begin in range(0, 64, 16)]
    assert all(part.min() < 8 and part.max() > 55 for part in parts)
    assert len({tuple(part // 4) for part in parts}) == 4  # each is shuffled in its own way
    assert order[:].tolist() != Shuffled(64, [1, 1])[:].tolist()


@given(st.integers(1, 100), st.data(), st.integers(0, 5))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_draw_is_exact_and_of_every_part(small_parts, size, data, seed):
    count = data.draw(st.integers(0, size))
    parts = list(draw_in_parts(size, count, seed))
    drawn, left = (np.concatenate(side).tolist() for side in zip(*parts))
    assert len(drawn) == count and sorted(drawn + left) == list(range(size))
    assert drawn == sorted(drawn) and left == sorted(left)
    assert all(abs(len(part) - 16 * count / size) <= 1 for part, _ in parts[:-1])
