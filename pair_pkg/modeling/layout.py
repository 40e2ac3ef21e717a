"""Where the segments of a padding-free batch lie, and how attention sees them as rectangles.

A flat batch holds its S segments one after the other: N tokens, no padding. Attention needs rectangles, so
neighbouring segments of like length form a group that is padded inside attention only.
"""

# N tokens of the batch, S segments, G segments of one group, W width (longest segment) of a group

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

# Padded query-key products that a group may waste before another group is cheaper: on two Zen 4 cores a group
# costs about 1 ms of calls in a layer, forward and backward, and 10,000 products as much (2026-11-23).
MAX_WASTED_PRODUCTS = 10_000


@dataclass(frozen=True)
class Group:
    """Consecutive segments seen as one rectangle of ``num_segments`` rows, ``width`` wide."""

    start: int  # first token in the flat batch
    stop: int
    lengths: tuple[int, ...]

    @property
    def num_segments(self) -> int:
        return len(self.lengths)

    @cached_property
    def width(self) -> int:
        return max(self.lengths)

    @cached_property
    def is_full(self) -> bool:
        """True where every segment is as long as the widest: the rectangle is a view, nothing is copied."""
        return min(self.lengths) == self.width

    @cached_property
    def slots(self) -> Tensor:
        """Place of each token in the flattened rectangle: (stop - start,) long."""
        return self.real.flatten().nonzero().squeeze(1)

    @cached_property
    def real(self) -> Tensor:
        """True where the rectangle holds a token: (G, W) bool."""
        return torch.arange(self.width) < torch.tensor(self.lengths).unsqueeze(1)


class Layout:
    """The segments of a flat batch.

    ``boundaries`` are the segment numbers at which a group ends; left out, they are chosen by length. Segments
    sorted by length waste least. A layout of queries takes the boundaries of its keys.
    """

    def __init__(self, lengths: Sequence[int], boundaries: Sequence[int] | None = None):
        self.lengths = list(lengths)
        self.boundaries = group_boundaries(self.lengths) if boundaries is None else list(boundaries)
        self._cumulative: dict[torch.device, Tensor] = {}

    @cached_property
    def groups(self) -> list[Group]:
        groups, segment, start = [], 0, 0
        for boundary in self.boundaries:
            lengths = tuple(self.lengths[segment:boundary])
            groups.append(Group(start, start + sum(lengths), lengths))
            segment, start = boundary, start + sum(lengths)
        return groups

    @cached_property
    def max_length(self) -> int:
        return max(self.lengths)

    def cumulative(self, device: torch.device) -> Tensor:
        """Start of each segment and the end of the last: (S + 1,) int32, as variable-length attention wants it."""
        if device not in self._cumulative:
            starts = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
            self._cumulative[device] = starts.to(device, non_blocking=True)
        return self._cumulative[device]

    def select(self, wanted: Tensor) -> "Layout":
        """The layout of some tokens only: ``wanted`` (M,) are ascending positions in the flat batch."""
        ends = torch.tensor(list(accumulate(self.lengths)), device=wanted.device)
        counts = torch.searchsorted(wanted, ends).cpu().tolist()
        return Layout([after - before for before, after in zip([0, *counts], counts)], self.boundaries)


def group_boundaries(lengths: Sequence[int], max_wasted: int = MAX_WASTED_PRODUCTS) -> list[int]:
    """End (exclusive) of each group, closed before its padding costs more than another group.

    >>> group_boundaries([128, 128, 127, 30, 30])
    [3, 5]
    """
    boundaries: list[int] = []
    first = 0
    for segment in range(1, len(lengths)):
        group = lengths[first : segment + 1]
        widest = max(group)
        if sum(widest * widest - length * length for length in group) > max_wasted:
            boundaries.append(segment)
            first = segment
    return [*boundaries, len(lengths)] if lengths else []


class _PutRows(torch.autograd.Function):
    """Rows placed at unique slots of a zero tensor; torch's own adjoint would add row by row."""

    @staticmethod
    def forward(ctx, rows: Tensor, slots: Tensor, size: int) -> Tensor:
        ctx.save_for_backward(slots)
        return rows.new_zeros(size, *rows.shape[1:]).index_copy_(0, slots, rows)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (slots,) = ctx.saved_tensors
        return gradient.index_select(0, slots), None, None


class _TakeRows(torch.autograd.Function):
    """Rows read from unique slots: the adjoint of ``_PutRows``."""

    @staticmethod
    def forward(ctx, rows: Tensor, slots: Tensor) -> Tensor:
        ctx.save_for_backward(slots)
        ctx.size = rows.shape[0]
        return rows.index_select(0, slots)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (slots,) = ctx.saved_tensors
        return gradient.new_zeros(ctx.size, *gradient.shape[1:]).index_copy_(0, slots, gradient), None


def put_rows(rows: Tensor, slots: Tensor, size: int) -> Tensor:
    """(M, ...) rows into a zero (size, ...) tensor at unique ``slots`` (M,)."""
    return _PutRows.apply(rows, slots, size)


def take_rows(rows: Tensor, slots: Tensor) -> Tensor:
    """The rows of (size, ...) at unique ``slots`` (M,): (M, ...)."""
    return _TakeRows.apply(rows, slots)
