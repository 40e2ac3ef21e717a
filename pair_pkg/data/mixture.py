"""Rows of several corpora in one training set: so many of each in an epoch, others in the next, all by arithmetic."""

# N tokens of all corpora, R rows

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from pair_pkg.data.rows import Rows
from pair_pkg.data.tokens import TokenStore


class JoinedArray:
    """Arrays one after the other, none of them copied: read by an array of places.

    >>> JoinedArray([np.array([5, 6]), np.array([7])])[np.array([2, 0, 2])].tolist()
    [7, 5, 7]
    """

    def __init__(self, parts: Sequence[np.ndarray]):
        self._parts = parts
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
        return found


@dataclass(frozen=True)
class Pool:
    """Rows that are taken in turn, ``quota`` of them in each epoch; they are the rows from ``first`` on."""

    first: int
    size: int
    quota: int

    def row_at(self, number: int, epoch: int) -> int:
        """The row that is the ``number``-th of an epoch's quota: an epoch goes on where the one before ended."""
        return self.first + (max(epoch, 0) * self.quota + number) % self.size


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
    """A corpus and others beside it as one store with its rows; the others' rows are put into an order by ``seed``."""
    if not parts:
        return store, rows
    stores = [store, *(part.store for part in parts)]
    starts, lengths, offsets, pools = [rows.starts], [rows.lengths], [rows.row_offsets], []
    first_token, first_row = len(store.ids), len(rows)
    for part in parts:
        shuffled = _shuffled(part.rows, seed)
        starts.append(shuffled.starts + first_token)
        lengths.append(shuffled.lengths)
        offsets.append(shuffled.row_offsets[1:] + offsets[-1][-1])
        pools.append(Pool(first_row, len(shuffled), part.quota))
        first_token, first_row = first_token + len(part.store.ids), first_row + len(shuffled)
    mixed = MixedRows(
        np.concatenate(starts), np.concatenate(lengths), np.concatenate(offsets), num_own=len(rows), pools=tuple(pools)
    )
    return _join(stores), mixed


def quota_of(share: float, num_own: int) -> int:
    """How many rows make up ``share`` of an epoch beside ``num_own`` others, one at least.

    >>> quota_of(0.25, 300)
    100
    """
    return max(1, round(share / (1 - share) * num_own))


def _join(stores: Sequence[TokenStore]) -> TokenStore:
    firsts = np.cumsum([0, *(len(store.ids) for store in stores)])
    offsets: list[Any] = [stores[0].offsets, *(part.offsets[1:] + first for part, first in zip(stores[1:], firsts[1:]))]
    return TokenStore(
        cast(np.ndarray, JoinedArray([store.ids for store in stores])),
        cast(np.ndarray, JoinedArray([store.word_starts for store in stores])),
        np.concatenate(offsets),
        stores[0].accounting,
    )


def _shuffled(rows: Rows, seed: int) -> Rows:
    """The rows in an order drawn by a seed: packing has sorted them by length."""
    order = np.random.default_rng(seed).permutation(len(rows))
    return rows.take(order)
