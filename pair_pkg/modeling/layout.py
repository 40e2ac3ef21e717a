"""Where the segments of a padding-free batch lie, and how attention sees them as rectangles.

A flat batch holds its S segments one after the other: N tokens, no padding. Attention needs rectangles, so
neighbouring segments of like length form a group that is padded inside attention only.
"""

# N tokens of the batch, S segments, G segments of one group, W width (longest segment) of a group

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import torch
from torch import Tensor

# Padded query-key products that a group may waste before another group is cheaper: on two Zen 4 cores a group
# costs about 1 ms of calls in a layer, forward and backward, and 10,000 products as much (2026-11-23). On a GPU the
# calls of a group are about 15 kernels of 10 microseconds, and a product costs about 0.1 ns (by arithmetic: 12 heads,
# 300 bytes of scores and their gradients at 3 TB/s).
MAX_WASTED_PRODUCTS, MAX_WASTED_PRODUCTS_GPU = 10_000, 1_000_000
# Without a backward pass a CPU is fastest with no padding at all, whose mask and copies then cost most: 2,969 questions
# in MiniLM, 1,250 a second at 1,000 to 10,000 products and 1,500 at none (Intel server with AMX, 2026-11-24).
MAX_WASTED_PRODUCTS_INFERENCE = 0


@dataclass(frozen=True)
class Group:
    """Consecutive segments seen as one rectangle of ``num_segments`` rows, ``width`` wide."""

    lengths: tuple[int, ...]

    @property
    def num_segments(self) -> int:
        return len(self.lengths)

    @cached_property
    def num_tokens(self) -> int:
        return sum(self.lengths)

    @cached_property
    def width(self) -> int:
        return max(self.lengths)

    @cached_property
    def is_full(self) -> bool:
        """True where every segment is as long as the widest: the rectangle is a view, nothing is copied."""
        return min(self.lengths) == self.width

    @cached_property
    def slots(self) -> Tensor:
        """Place of each token in the flattened rectangle: (num_tokens,) long."""
        return self.real.flatten().nonzero().squeeze(1)

    @cached_property
    def real(self) -> Tensor:
        """True where the rectangle holds a token: (G, W) bool."""
        return torch.arange(self.width) < torch.tensor(self.lengths).unsqueeze(1)


class Layout:
    """The segments of a flat batch. Segments sorted by length waste least."""

    def __init__(self, lengths: Sequence[int]):
        self.lengths = list(lengths)
        self._cumulative: dict[torch.device, Tensor] = {}
        self._groups: dict[str, list[Group]] = {}

    @cached_property
    def max_length(self) -> int:
        return max(self.lengths)

    def groups(self, device_type: str) -> list[Group]:
        """The segments as rectangles, as few as pay on a type of device."""
        if device_type not in self._groups:
            on_cpu = MAX_WASTED_PRODUCTS if torch.is_grad_enabled() else MAX_WASTED_PRODUCTS_INFERENCE
            max_wasted = on_cpu if device_type == "cpu" else MAX_WASTED_PRODUCTS_GPU
            self._groups[device_type] = _cut_groups(self.lengths, group_boundaries(self.lengths, max_wasted))
        return self._groups[device_type]

    def cumulative(self, device: torch.device) -> Tensor:
        """Start of each segment and the end of the last: (S + 1,) int32, as variable-length attention wants it."""
        if device not in self._cumulative:
            starts = torch.tensor([0, *accumulate(self.lengths)], dtype=torch.int32)
            self._cumulative[device] = starts.to(device, non_blocking=True)
        return self._cumulative[device]

    def select(self, wanted: Tensor) -> "Selection":
        """The layout of some tokens only: ``wanted`` (M,) are ascending positions in the flat batch."""
        return Selection(self, wanted)


class Selection:
    """The layout of some tokens of a flat batch, in the groups of the whole; no length is read from the device."""

    def __init__(self, whole: Layout, wanted: Tensor):
        self.whole = whole
        self.wanted = wanted

    @property
    def max_length(self) -> int:
        """A bound, which is all that attention asks for."""
        return self.whole.max_length

    def groups(self, device_type: str) -> list[Group]:
        counts = self.cumulative(self.wanted.device).diff().tolist()
        return _cut_groups(counts, accumulate(group.num_segments for group in self.whole.groups(device_type)))

    def cumulative(self, device: torch.device) -> Tensor:
        return torch.searchsorted(self.wanted, self.whole.cumulative(device), out_int32=True)


def _cut_groups(lengths: Sequence[int], boundaries: Iterable[int]) -> list[Group]:
    ends = [0, *boundaries]
    return [Group(tuple(lengths[first:end])) for first, end in zip(ends, ends[1:])]


def group_boundaries(lengths: Sequence[int], max_wasted: int) -> list[int]:
    """End (exclusive) of each group, closed before its padding wastes more than ``max_wasted`` products.

    >>> group_boundaries([128, 128, 127, 30, 30], 10_000)
    [3, 5]
    """
    boundaries: list[int] = []
    size = widest = squares = 0
    for segment, length in enumerate(lengths):
        widest = max(widest, length)
        if (size + 1) * widest * widest - squares - length * length > max_wasted:
            boundaries.append(segment)
            size, widest, squares = 0, length, 0
        size, squares = size + 1, squares + length * length
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
