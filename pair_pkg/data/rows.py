"""Documents cut into windows, windows laid into rows: pure arithmetic over token offsets."""

# D documents, W windows, R rows

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from pair_pkg.data.draws import PART, draw_in_parts
from pair_pkg.data.texts import ranges


@dataclass(frozen=True)
class Rows:
    """R rows of a batch's unit; row r holds the windows ``row_offsets[r]`` to ``row_offsets[r + 1]``."""

    starts: np.ndarray  # (W,) int64, first token of each window in the store
    lengths: np.ndarray  # (W,) int64, tokens of each window, special tokens not counted
    row_offsets: np.ndarray  # (R + 1,) int64

    def __len__(self) -> int:
        return len(self.row_offsets) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.lengths.sum())

    def row_at(self, number: int, epoch: int) -> int:
        """Which row is the ``number``-th of an epoch: the same in all of them."""
        return number

    def row_tokens(self) -> np.ndarray:
        """Tokens of each row, special tokens not counted: (R,) int64."""
        return np.add.reduceat(self.lengths, self.row_offsets[:-1]) if len(self) else np.empty(0, np.int64)

    def sample(self, num_rows: int, seed: int) -> "Rows":
        """``num_rows`` rows drawn with a seed, in their order; the first ones would be the longest windows."""
        if num_rows >= len(self):
            return self
        return self.take(np.concatenate([drawn for drawn, _ in draw_in_parts(len(self), num_rows, seed)]))

    def take(self, rows: np.ndarray) -> "Rows":
        """Some rows, in the order that is given."""
        begins = self.row_offsets[rows]
        counts = self.row_offsets[rows + 1] - begins
        windows = ranges(begins, counts)
        return Rows(self.starts[windows], self.lengths[windows], np.concatenate([[0], np.cumsum(counts)]))


@dataclass(frozen=True)
class Documents:
    """All documents of a store, or those of one side of its split (that of training, unless ``is_validation``)."""

    total: int
    num_validation: int = 0
    seed: int = 0
    is_validation: bool = False

    def parts(self) -> Iterator[np.ndarray]:
        """The numbers, ascending, a part at a time."""
        for validation, training in draw_in_parts(self.total, self.num_validation, self.seed):
            yield validation if self.is_validation else training


def split_documents(num_documents: int, validation_fraction: float, seed: int) -> tuple[Documents, Documents]:
    """Draw validation documents with a seed: (training, validation).

    At least one document is drawn where there are two or more.
    """
    num_validation = min(max(round(num_documents * validation_fraction), 1), num_documents - 1)
    training = Documents(num_documents, num_validation, seed)
    return training, replace(training, is_validation=True)


def cut_windows(offsets: np.ndarray, documents: np.ndarray, max_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Windows of at most ``max_tokens`` that cover each document once, in order: starts and lengths, (W,) each.

    >>> starts, lengths = cut_windows(np.array([0, 5, 5, 12]), np.array([0, 1, 2]), 4)
    >>> starts.tolist(), lengths.tolist()
    ([0, 4, 5, 9], [4, 1, 4, 3])
    """
    begins, sizes = offsets[documents], offsets[documents + 1] - offsets[documents]
    counts = -(-sizes // max_tokens)  # an empty document has no window
    starts = np.arange(counts.sum())  # changed in place: a large corpus has millions of windows
    starts -= np.repeat(np.cumsum(counts) - counts, counts)  # the number of the window within its document
    starts *= max_tokens
    starts += np.repeat(begins, counts)
    lengths = np.repeat(begins + sizes, counts)
    lengths -= starts
    return starts, np.minimum(lengths, max_tokens, out=lengths)


def cut_in_parts(offsets: np.ndarray, documents: Documents, max_tokens: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows of documents, as ``cut_windows`` cuts them, about 262,144 at a time where they are more."""
    for numbers in documents.parts():
        ends = np.cumsum(-(-(offsets[numbers + 1] - offsets[numbers]) // max_tokens))  # windows up to each document
        cuts = np.searchsorted(ends, np.arange(PART, ends[-1] if len(ends) else 0, PART))
        for some in np.split(numbers, cuts):
            yield cut_windows(offsets, some, max_tokens)


def rows_line_by_line(starts: np.ndarray, lengths: np.ndarray) -> Rows:
    """One window a row."""
    return Rows(starts, lengths, np.arange(len(starts) + 1))


def join_rows(parts: Iterable[Rows]) -> Rows:
    """Rows of one store, one part after the other, in memory."""
    whole = list(parts)
    before = np.cumsum([0, *(len(part.starts) for part in whole)])  # windows before each part
    return Rows(
        np.concatenate([np.empty(0, np.int64), *(part.starts for part in whole)]),
        np.concatenate([np.empty(0, np.int64), *(part.lengths for part in whole)]),
        np.concatenate([[0], *(part.row_offsets[1:] + windows for part, windows in zip(whole, before))]),
    )


def rows_packed(starts: np.ndarray, lengths: np.ndarray, num_special: int, capacity: int) -> Rows:
    """As few rows as best fit finds, each of at most ``capacity`` tokens with ``num_special`` in every window."""
    order, row_offsets = pack_blocks(lengths + num_special, capacity)
    return Rows(starts[order], lengths[order], row_offsets)


def pack_blocks(lengths: np.ndarray, capacity: int) -> tuple[np.ndarray, np.ndarray]:
    """Best-fit decreasing over a histogram of lengths: no item is cut, none is left out.

    Returns the items in the order of their blocks, (W,), and the blocks' boundaries in that order, (B + 1,). All
    items of one length move together, so the cost is O(capacity^2) steps however many items there are.

    >>> order, boundaries = pack_blocks(np.array([3, 9, 1, 7, 6]), 10)
    >>> [sorted(block.tolist()) for block in np.split(order, boundaries[1:-1])]
    [[1, 2], [0, 3], [4]]
    """
    by_length = np.argsort(-lengths, kind="stable")
    block_of = np.empty(len(lengths), dtype=np.int32)  # of the items in the order of by_length
    open_blocks = [np.empty(0, np.int32)] * (capacity + 1)  # numbers of the blocks by free space
    num_blocks = placed = 0
    sizes, counts = np.unique(lengths, return_counts=True)
    for size, count in zip(sizes[::-1].tolist(), counts[::-1].tolist()):
        assert 0 < size <= capacity, f"an item of {size} does not fit a block of {capacity}"
        while count:
            space = next((space for space in range(size, capacity + 1) if len(open_blocks[space])), None)
            if space is None:
                space, num_fresh = capacity, -(-count // (capacity // size))
                open_blocks[capacity] = np.arange(num_blocks, num_blocks + num_fresh, dtype=np.int32)
                num_blocks += num_fresh
            blocks, open_blocks[space] = np.split(open_blocks[space], [count])
            open_blocks[space - size] = np.concatenate([open_blocks[space - size], blocks])
            block_of[placed : placed + len(blocks)] = blocks
            placed, count = placed + len(blocks), count - len(blocks)
    order = np.argsort(block_of, kind="stable")
    boundaries = np.concatenate([[0], np.cumsum(np.bincount(block_of, minlength=num_blocks))])
    return by_length[order], boundaries
