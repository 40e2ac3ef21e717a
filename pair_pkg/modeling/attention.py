"""Attention over a padding-free batch: each segment attends to itself and to nothing else."""

# N tokens, H heads, E width of a head, G segments of a group, W its width; Q, K: the same of queries and keys

import torch
import torch.nn.functional as F
from torch import Tensor

from pair_pkg.modeling.dropout import dropout
from pair_pkg.modeling.layout import Group, Layout, put_rows, take_rows

try:
    from torch.nn.attention.varlen import varlen_attn
except ImportError:  # a build of torch without it: groups serve
    varlen_attn = None

# On a CPU the plain products beat the fused kernel up to this width in bfloat16, forward and backward (2 Zen 4
# cores, 4,096 tokens, 12 heads of 32: 52 ms against 65 ms at 128, 96 ms against 61 ms at 256; 2026-11-23).
MAX_EXPLICIT_WIDTH = 128


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    query_layout: Layout,
    key_layout: Layout,
    *,
    scale: float,
    dropout_probability: float = 0.0,
    window: int | None = None,
) -> Tensor:
    """Softmax attention within each segment: (NQ, H, E), (NK, H, E), (NK, H, E) -> (NQ, H, E).

    ``window``: a token sees keys at most that far away; the queries must then be all tokens. ``dropout_probability``
    drops attention weights.
    """
    if _variable_length_kernel_serves(queries, dropout_probability):
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
    outputs = [
        _attend_group(queries, keys, values, query_group, key_group, scale, dropout_probability, window)
        for query_group, key_group in zip(query_layout.groups, key_layout.groups)
        if query_group.stop > query_group.start
    ]
    if not outputs:  # no query at all: an empty result that still reaches every weight, as DDP's reducer wants
        return queries + 0 * (keys.sum() + values.sum())
    return torch.cat(outputs)


def _variable_length_kernel_serves(queries: Tensor, dropout_probability: float) -> bool:
    half = queries.dtype in (torch.bfloat16, torch.float16)
    return varlen_attn is not None and queries.is_cuda and half and dropout_probability == 0.0


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
    """One group as rectangles: (GQ, H, WQ, E) against (GK, H, WK, E), and back to the flat queries."""
    query, key, value = (
        _rectangle(rows, group) for rows, group in ((queries, query_group), (keys, key_group), (values, key_group))
    )
    mask = _group_mask(key_group, window, queries.device)
    if dropout_probability > 0 or key_group.width <= MAX_EXPLICIT_WIDTH and not queries.is_cuda:
        scores = torch.matmul(query * scale, key.transpose(-1, -2))  # (G, H, WQ, WK)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        context = torch.matmul(dropout(scores.softmax(-1), dropout_probability), value)
    else:
        context = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scale)
    rows = context.transpose(1, 2).reshape(-1, *queries.shape[1:])  # (G * WQ, H, E)
    return rows if query_group.is_full else take_rows(rows, query_group.slots.to(rows.device))


def _rectangle(rows: Tensor, group: Group) -> Tensor:
    """(N, H, E) -> (G, H, W, E), padded with zeros where segments are shorter."""
    part = rows[group.start : group.stop]
    if not group.is_full:
        part = put_rows(part, group.slots.to(rows.device), group.num_segments * group.width)
    return part.view(group.num_segments, group.width, *rows.shape[1:]).transpose(1, 2)


def _group_mask(group: Group, window: int | None, device: torch.device) -> Tensor | None:
    """True where a query may look: broadcast to (G, H, WQ, WK), or None where everything may be seen."""
    mask = None if group.is_full else group.real[:, None, None, :].to(device)
    if window is not None and group.width > window + 1:
        place = torch.arange(group.width, device=device)
        near = (place[:, None] - place[None, :]).abs() <= window  # (W, W)
        # a padded query may see no real key within its window; it sees them all instead, and is dropped afterwards
        mask = near if mask is None else (near & mask) | ~group.real[:, None, :, None].to(device)
    return mask
