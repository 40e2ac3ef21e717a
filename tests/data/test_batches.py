"""Samplers: the same rows in the same optimizer step, however it is cut into batches and processes."""

from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pair_pkg.data import draws
from pair_pkg.data.batches import FROZEN, EvaluationSampler, Item, TrainSampler

NUM_ROWS = 53  # three steps of 16 and a rest of 5


@pytest.fixture(autouse=True, scope="module", params=[draws.PART, 7])
def part(request):
    """All rows are shuffled at once, or eight parts of them one after the other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(draws, "PART", request.param)
        yield


def optimizer_steps(batch_size, accumulation=1, num_processes=1, epoch=0, seed=3):
    """The rows of each optimizer step of an epoch; fillers do not count."""
    samplers = [TrainSampler(NUM_ROWS, batch_size, seed, index, num_processes) for index in range(num_processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    micro_steps = iter([[item for batch in batches for item in batch] for batches in zip(*samplers)])
    steps = []
    while step := list(chain(*islice(micro_steps, accumulation))):
        steps.append(sorted(item.row for item in step if not item.is_filler))
    return steps


def test_batch_16_is_4_times_4_is_two_processes_of_8():
    whole = optimizer_steps(16)
    assert [len(step) for step in whole] == [16, 16, 16, 5]
    assert optimizer_steps(4, accumulation=4) == whole
    assert optimizer_steps(8, num_processes=2) == whole
    assert optimizer_steps(2, accumulation=2, num_processes=4) == whole


def test_an_epoch_is_one_permutation_of_epoch_and_seed():
    first, again, second, other = (
        optimizer_steps(16, epoch=epoch, seed=seed) for epoch, seed in ((0, 3), (0, 3), (1, 3), (0, 4))
    )
    assert first == again and first != second and first != other
    assert sorted(chain(*first)) == sorted(chain(*second)) == list(range(NUM_ROWS))


@given(st.integers(1, 150), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3))
def test_processes_stay_in_step_and_see_every_row_once(num_rows, batch_size, num_processes, epoch):
    samplers = [TrainSampler(num_rows, batch_size, 7, index, num_processes) for index in range(num_processes)]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    batches = [list(sampler) for sampler in samplers]
    assert {len(part) for part in batches} == {len(sampler) for sampler in samplers} == {len(samplers[0])}
    items = list(chain(*chain(*batches)))
    assert sorted(item.row for item in items if not item.is_filler) == list(range(num_rows))
    assert all(item.epoch == epoch and 0 <= item.row < num_rows for item in items)
    for batch in chain(*batches):
        assert 1 <= len(batch) <= batch_size
        assert len(batch) == 1 or not any(item.is_filler for item in batch)


@given(st.integers(1, 150), st.integers(1, 20), st.integers(1, 5), st.integers(0, 3), st.data())
def test_an_epoch_goes_on_at_any_batch_by_arithmetic(num_rows, batch_size, num_processes, epoch, data):
    for index in range(num_processes):
        whole = TrainSampler(num_rows, batch_size, 7, index, num_processes)
        whole.set_epoch(epoch)
        start = data.draw(st.integers(0, len(whole)))
        rest = whole.starting_at(start)
        assert list(rest) == list(whole)[start:] and len(rest) == len(whole) - start


def test_a_process_without_rows_gets_a_filler():
    batches = [list(TrainSampler(5, 2, 0, index, 2)) for index in range(2)]
    assert [[len(batch) for batch in part] for part in batches] == [[2, 1], [2, 1]]
    assert [item.is_filler for part in batches for batch in part for item in batch] == [False] * 3 + [False] * 2 + [
        True
    ]


@given(st.lists(st.integers(1, 50), min_size=1, max_size=80), st.integers(1, 9), st.integers(1, 4))
def test_evaluation_takes_every_row_once_longest_first(lengths, batch_size, num_processes):
    row_tokens = np.array(lengths)
    samplers = [EvaluationSampler(row_tokens, batch_size, index, num_processes) for index in range(num_processes)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(part) for part in batches] == [len(sampler) for sampler in samplers]
    items = list(chain(*chain(*batches)))
    assert sorted(items) == [Item(row, FROZEN) for row in range(len(lengths))]
    in_turn = [batches[turn % num_processes][turn // num_processes] for turn in range(sum(map(len, batches)))]
    seen = [lengths[item.row] for item in chain(*in_turn)]
    assert seen == sorted(lengths, reverse=True)


@given(st.integers(1, 80), st.integers(1, 9), st.integers(1, 4))
def test_processes_in_step_evaluate_equally_often_and_their_own_batches_first(num_rows, batch_size, num_processes):
    lengths = np.arange(num_rows)
    for index in range(num_processes):
        own = list(EvaluationSampler(lengths, batch_size, index, num_processes))
        in_step = EvaluationSampler(lengths, batch_size, index, num_processes, in_step=True)
        assert in_step.num_own == len(own) and list(in_step)[: len(own)] == own
        assert len(list(in_step)) == len(in_step) == -(-num_rows // (batch_size * num_processes))
