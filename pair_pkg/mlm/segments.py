"""The tokens of some rows, as they stand in the corpus, and the segments that become of them."""

# R rows, S windows of them, T tokens, N tokens with special ones

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pair_pkg.data.rows import Rows
from pair_pkg.data.stream import StreamRow
from pair_pkg.data.texts import ranges
from pair_pkg.data.tokens import TokenStore


@dataclass(frozen=True)
class RowTokens:
    """The tokens of R rows, window after window, row after row."""

    store: TokenStore
    places: np.ndarray  # (T,) where they are in the store
    lengths: np.ndarray  # (S,) tokens of each window
    row_of_window: np.ndarray  # (S,) ascending
    positions: np.ndarray  # (T,) places in the corpus, which their draws are of

    @classmethod
    def read(cls, store: TokenStore, rows: Rows, numbers: np.ndarray) -> "RowTokens":
        """Those of rows by their numbers (R,)."""
        begins = rows.row_offsets[numbers]
        counts = rows.row_offsets[numbers + 1] - begins
        windows = ranges(begins, counts)
        lengths = rows.lengths[windows]
        places = ranges(rows.starts[windows], lengths)
        return cls(store, places, lengths, np.repeat(np.arange(len(numbers)), counts), places)

    @classmethod
    def join(cls, rows: Sequence[StreamRow]) -> "RowTokens":
        """Those of rows that have left their stream."""
        ids, word_starts, starts, lengths = (
            np.concatenate([getattr(row, name) for row in rows]) for name in ("ids", "word_starts", "starts", "lengths")
        )
        store = TokenStore(ids, word_starts, np.array([0, len(ids)]), {})
        row_of_window = np.repeat(np.arange(len(rows)), [len(row.starts) for row in rows])
        return cls(store, np.arange(len(ids)), lengths, row_of_window, ranges(starts, lengths))

    @cached_property
    def ids(self) -> np.ndarray:
        """(T,) int64"""
        return self.store.ids[self.places].astype(np.int64)

    @cached_property
    def word_starts(self) -> np.ndarray:
        """(T,) bool"""
        return self.store.word_starts[self.places]

    @cached_property
    def row_of_token(self) -> np.ndarray:
        """(T,) ascending"""
        return np.repeat(self.row_of_window, self.lengths)

    @cached_property
    def begins(self) -> np.ndarray:
        """The first token of each window: (S,)."""
        return np.cumsum(self.lengths) - self.lengths


@dataclass(frozen=True)
class Affixes:
    """The special tokens before and behind each window."""

    prefix: np.ndarray
    suffix: np.ndarray

    @classmethod
    def of(cls, prefix: Sequence[int], suffix: Sequence[int]) -> "Affixes":
        return cls(np.array(prefix, dtype=np.int64), np.array(suffix, dtype=np.int64))

    @property
    def count(self) -> int:
        return len(self.prefix) + len(self.suffix)

    def dress(self, ids: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lay windows in ``order``, special tokens around each: (N,) ids, and where each token (T,) went."""
        full = lengths + self.count
        starts = np.empty_like(full)
        starts[order] = np.cumsum(full[order]) - full[order]
        place_of_token = ranges(starts + len(self.prefix), lengths)
        dressed = np.empty(full.sum(), dtype=np.int64)
        dressed[place_of_token] = ids
        for affix, begin in ((self.prefix, starts), (self.suffix, starts + len(self.prefix) + lengths)):
            dressed[begin[:, None] + np.arange(len(affix))] = affix
        return dressed, place_of_token
