"""Rows of several corpora in one training set: so many of each in an epoch, others in the next, all by arithmetic."""

# N tokens of all corpora, R rows

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np

from pair_pkg.data.rows import Rows
from pair_pkg.data.tokens import TokenStore


class JoinedArray:
    """Arrays one after the other, none of them copied: read by an array of places.

    What is read of an array is raised by its number in ``shifts``.

    >>> JoinedArray([np.array([5, 6]), np.array([7])], shifts=[0, 100])[np.array([2, 0, 2])].tolist()
    [107, 5, 107]
    """

    def __init__(self, parts: Sequence[np.ndarray], shifts: Sequence[int] | None = None):
        self._parts = parts
        self._shifts = shifts
        self._ends = np.cumsum([len(part) for part in parts])
        self._dtype = np.result_type(*parts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        found = np.empty(len(places), dtype=self._dtype)
        part_of_place = np.searchsorted(self._ends, places, side="right")
        for number, part in enumerate(self._parts):
            here = part_of_place == number
            if here.any():
                found[here] = part[places[here] - (self._ends[number] - len(part))]
                if self._shifts is not None:
                    found[here] += self._shifts[number]
        return found


@dataclass(frozen=True)
class Pool:
    """Rows that are taken in turn, ``quota`` of them in each epoch; they are the rows from ``first`` on.

    Packing has sorted them by length, so they are taken in an ``order``, 4 bytes a row in memory.
    """

    first: int
    order: np.ndarray
    quota: int

    def row_at(self, number: int, epoch: int) -> int:
        """The row that is the ``number``-th of an epoch's quota: an epoch goes on where the one before ended."""
        return self.first + int(self.order[(max(epoch, 0) * self.quota + number) % len(self.order)])


@dataclass(frozen=True)
class MixedRows(Rows):
    """The first ``num_own`` rows, all of them in every epoch, and the quotas of the pools behind them."""

    num_own: int = 0
    pools: tuple[Pool, ...] = ()

    def __len__(self) -> int:
        return self.num_own + sum(pool.quota for pool in self.pools)

    def row_at(self, number: int, epoch: int) -> int:
        if number < self.num_own:
            return number
        number -= self.num_own
        for pool in self.pools:
            if number < pool.quota:
                return pool.row_at(number, epoch)
            number -= pool.quota
        raise IndexError(number)


@dataclass(frozen=True)
class Part:
    """One corpus beside the domain's: its tokens, its rows, and how many of them an epoch takes."""

    store: TokenStore
    rows: Rows
    quota: int


def mix(store: TokenStore, rows: Rows, parts: Sequence[Part], seed: int) -> tuple[TokenStore, Rows]:
    """A corpus and others beside it as one store with its rows; the others' rows are put into an order by ``seed``.

    The arrays of either can be read at arrays of places only, and its documents are not told apart any more.
    """
    if not parts:
        return store, rows
    stores = [store, *(part.store for part in parts)]
    every = [rows, *(part.rows for part in parts)]
    tokens, windows, numbers = (
        np.cumsum([0, *map(len, arrays)]).tolist()
        for arrays in ([one.ids for one in stores], [one.starts for one in every], every)
    )
    pools = (Pool(first, _order(part.rows, seed), part.quota) for first, part in zip(numbers[1:], parts))
    mixed = MixedRows(
        _join([one.starts for one in every], tokens),
        _join([one.lengths for one in every]),
        _join([rows.row_offsets, *(part.rows.row_offsets[1:] for part in parts)], windows),
        num_own=len(rows),
        pools=tuple(pools),
    )
    ids, word_starts = _join([one.ids for one in stores]), _join([one.word_starts for one in stores])
    return TokenStore(ids, word_starts, np.array([0, len(ids)]), store.accounting), mixed


def quota_of(share: float, num_own: int) -> int:
    """How many rows make up ``share`` of an epoch beside ``num_own`` others, one at least.

    >>> quota_of(0.25, 300)
    100
    """
    return max(1, round(share / (1 - share) * num_own))


def _join(parts: Sequence[np.ndarray], shifts: Sequence[int] | None = None) -> np.ndarray:
    return cast(np.ndarray, JoinedArray(parts, shifts))


def _order(rows: Rows, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(rows)).astype(np.uint32)
