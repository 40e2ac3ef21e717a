"""Attention over a padding-free batch: each segment attends to itself and to nothing else."""

# N tokens, H heads, E width of a head, G segments of a group, W its width; Q, K: the same of queries and keys

import inspect
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pair_pkg.modeling.dropout import dropout
from pair_pkg.modeling.layout import Group, Layout, Selection, put_rows, take_rows
from pair_pkg.modeling.precision import multiplies_tiles

KERNEL_KEYWORDS = ("scale", "window_size")  # what is asked of the kernel; that of torch 2.10 has neither


def usable_kernel(kernel: Callable | None) -> Callable | None:
    """The variable-length kernel, or None where it cannot be called as it is here: then groups serve."""
    if kernel is None or not all(word in inspect.signature(kernel).parameters for word in KERNEL_KEYWORDS):
        return None
    return kernel


try:
    from torch.nn.attention.varlen import varlen_attn as _torchs_kernel
except ImportError:  # a build of torch without it
    _torchs_kernel = None
varlen_attn = usable_kernel(_torchs_kernel)

# On a CPU, in bfloat16, two plain products beat the fused kernel up to this width, forward and backward. 4,096 tokens,
# 12 heads of 32: on 2 Zen 4 cores 52 ms against 65 ms at 128, 96 against 61 at 256 (2026-11-23); on 2 cores of an
# Intel server with AMX 23 against 44 at 256, 45 against 48 at 384, 92 against 63 at 512 (heads of 64: 50 against 53,
# 65 against 60, 99 against 75; 2026-11-24). In float32 the fused kernel wins there from 64 on: 13 against 22.
MAX_EXPLICIT_WIDTH = 256 if multiplies_tiles() else 128


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_layout: Layout | Selection,
    key_layout: Layout,
    *,
    scale: float,
    dropout_probability: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """Softmax attention within each segment: (NQ, H, E), (NK, H, E), (NK, H, E) -> (NQ, H, E).

    On a CPU rows behind the last segment are allowed; they are not looked at, and give zeros.
    ``window``: a token sees keys at most that far away; the queries must then be all tokens. ``dropout_probability``
    drops attention weights.
    """
    if varlen_attn is not None and _variable_length_kernel_serves(queries, dropout_probability):
        reach = (-1, -1) if window is None else (window, window)
        return varlen_attn(
            queries,
            keys,
            values,
            query_layout.cumulative(queries.device),
            key_layout.cumulative(keys.device),
            query_layout.max_length,
            key_layout.max_length,
            scale=scale,
            window_size=reach,
        )
    kind = queries.device.type
    query_groups, key_groups = query_layout.groups(kind), key_layout.groups(kind)
    parts = zip(
        query_groups, key_groups, _split(queries, query_groups), _split(keys, key_groups), _split(values, key_groups)
    )
    outputs = [
        _attend_group(query, key, value, query_group, key_group, scale, dropout_probability, window)
        for query_group, key_group, query, key, value in parts
        if query_group.num_tokens
    ]
    if not outputs:  # no query at all: an empty result that still reaches every weight, as DDP's reducer wants
        return queries + 0 * (keys.sum() + values.sum())
    dead = len(queries) - sum(group.num_tokens for group in query_groups)
    return torch.cat([*outputs, queries.new_zeros(dead, *queries.shape[1:])])


def _variable_length_kernel_serves(queries: Tensor, dropout_probability: float) -> bool:
    half = queries.dtype in (torch.bfloat16, torch.float16)
    return queries.is_cuda and half and dropout_probability == 0.0


def _split(rows: Tensor, groups: Sequence[Group]) -> tuple[Tensor, ...]:
    """The rows of each group, and those behind; slices would each have a gradient of the size of the whole."""
    sizes = [group.num_tokens for group in groups]
    return rows.split([*sizes, len(rows) - sum(sizes)])


def _attend_group(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_group: Group,
    key_group: Group,
    scale: float,
    dropout_probability: float,
    window: int | None,
) -> Tensor:
    """One group as rectangles: (GQ, H, WQ, E) against (GK, H, WK, E), and back to the rows of its queries."""
    query, key, value = (
        _rectangle(rows, group) for rows, group in ((queries, query_group), (keys, key_group), (values, key_group))
    )
    bias = _group_bias(key_group, window, query)
    if _plain_products_serve(query, key_group.width, dropout_probability):
        scores = torch.matmul(query * scale, key.transpose(-1, -2))  # (G, H, WQ, WK)
        if bias is not None:
            scores += bias
        context = torch.matmul(dropout(scores.softmax(-1), dropout_probability), value)
    else:
        context = F.scaled_dot_product_attention(
            query, key, value, attn_mask=bias, dropout_p=dropout_probability, scale=scale
        )
    rows = context.transpose(1, 2).reshape(-1, *queries.shape[1:])  # (G * WQ, H, E)
    return rows if query_group.is_full else take_rows(rows, query_group.slots.to(rows.device))


def _plain_products_serve(query: Tensor, width: int, dropout_probability: float) -> bool:
    """Whether a softmax between two products is the way: never on a GPU, whose fused kernels know dropout too."""
    if query.is_cuda:
        return False
    narrow = query.dtype == torch.bfloat16 and width <= MAX_EXPLICIT_WIDTH
    return dropout_probability > 0 or narrow and torch.is_grad_enabled()


def _rectangle(rows: Tensor, group: Group) -> Tensor:
    """A group's rows, (its tokens, H, E) -> (G, H, W, E), padded with zeros where segments are shorter."""
    if not group.is_full:
        rows = put_rows(rows, group.slots.to(rows.device), group.num_segments * group.width)
    return rows.view(group.num_segments, group.width, *rows.shape[1:]).transpose(1, 2)


def _group_bias(group: Group, window: int | None, like: Tensor) -> Tensor | None:
    """0 where a query may look and -inf elsewhere: broadcast to (G, H, WQ, WK), or None where all may be seen."""
    mask = None if group.is_full else group.real[:, None, None, :]
    if window is not None and group.width > window + 1:
        place = torch.arange(group.width)
        near = (place[:, None] - place[None, :]).abs() <= window  # (W, W)
        # a padded query may see no real key within its window; it sees them all instead, and is dropped afterwards
        mask = near if mask is None else (near & mask) | ~group.real[:, None, :, None]
    if mask is None:
        return None
    return torch.zeros(mask.shape, dtype=like.dtype).masked_fill_(~mask, float("-inf")).to(like.device)
