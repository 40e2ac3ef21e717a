"""Draws that are a function of (seed, epoch, place): no generator is kept, so nothing but these can change them."""

from collections.abc import Iterator, Sequence

import numpy as np

PART = 1 << 18  # numbers in memory at a time, however many there are: arrays of 2 MB
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)


def uniform(seed: int, epoch: int, stream: int, places: np.ndarray) -> np.ndarray:
    """Uniform draws in [0, 1), one for each place; ``stream`` is the question that is asked of the places.

    >>> bool((uniform(1, 0, 0, np.arange(3)) == uniform(1, 0, 0, np.array([2, 1, 0]))[::-1]).all())
    True
    """
    key = _mix(np.array([np.uint64(seed) ^ (np.uint64(epoch & 0xFFFFFFFF) << np.uint64(32))]))
    key = _mix(key + np.uint64(stream))
    return (_mix(key + places.astype(np.uint64) * _GOLDEN) >> np.uint64(11)) * (0.5**53)


def _mix(values: np.ndarray) -> np.ndarray:
    """SplitMix64's finisher: every bit of a uint64 decides on every bit of the result."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def draw_in_parts(size: int, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """``count`` of the numbers below ``size``, and the others: (drawn, left) of each part of them, ascending.

    Each part of 262,144 numbers gives its share.
    """
    for number, begin in enumerate(range(0, size, PART)):
        end = min(begin + PART, size)
        share = end * count // size - begin * count // size
        order = begin + np.random.default_rng([seed, number]).permutation(end - begin)
        yield np.sort(order[:share]), np.sort(order[share:])


class Shuffled:
    """The numbers below ``size`` in an order that ``key`` draws; one part of them is in memory.

    Up to 262,144 are one permutation. More are dealt out to P parts, every P-th number to a part, and the parts
    follow each other, each a permutation of its own.

    >>> order = Shuffled(5, key=[1, 0])
    >>> np.concatenate([order[0:2], order[2:9]]).tolist() == order[:].tolist() and sorted(order[:].tolist())
    [0, 1, 2, 3, 4]
    """

    def __init__(self, size: int, key: Sequence[int]):
        self._size = size
        self._key = key
        self._num_parts = max(-(-size // PART), 1)
        self._ends = np.cumsum([len(range(part, size, self._num_parts)) for part in range(self._num_parts)])
        self._part, self._order = -1, np.empty(0, np.int64)

    def __getitem__(self, places: slice) -> np.ndarray:
        start, end, _ = places.indices(self._size)
        found = [np.empty(0, np.int64)]
        while start < end:
            part = int(np.searchsorted(self._ends, start, side="right"))
            begin, stop = self._ends[part - 1] if part else 0, min(end, int(self._ends[part]))
            found.append(self._order_of(part)[start - begin : stop - begin])
            start = stop
        return np.concatenate(found)

    def _order_of(self, part: int) -> np.ndarray:
        if part != self._part:
            numbers = np.arange(part, self._size, self._num_parts)
            self._part, self._order = part, numbers[np.random.default_rng([*self._key, part]).permutation(len(numbers))]
        return self._order
