"""Draws that are a function of (seed, epoch, place): no generator is kept, so nothing but these can change them."""

import numpy as np

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
