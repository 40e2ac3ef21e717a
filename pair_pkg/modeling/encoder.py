"""The padding-free forward of an encoder: stock weights and modules, flat batches, the last layer on wanted rows only.

Only the way of the data differs from transformers' own forward; the modules, so the checkpoint, are the stock ones.
"""

# N tokens, M wanted tokens, D hidden size, H heads, E width of a head

import logging
import types
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from pair_pkg.modeling.attention import attend
from pair_pkg.modeling.dropout import add_dropped, dropout
from pair_pkg.modeling.layout import Layout, take_rows
from pair_pkg.modeling.precision import dead_rows

logger = logging.getLogger(__name__)

BERT_FAMILY = ("BertModel", "RobertaModel", "XLMRobertaModel", "CamembertModel")
MODERNBERT = "ModernBertModel"


def why_not_flat(base_model: PreTrainedModel) -> str | None:
    """The reason why an encoder must take the stock forward, or None where ``encode`` serves it."""
    name = type(base_model).__name__
    if name not in (*BERT_FAMILY, MODERNBERT):
        return f"{name} has no padding-free forward here"
    if getattr(base_model.config, "is_decoder", False) or getattr(base_model.config, "add_cross_attention", False):
        return f"{name} is set up as a decoder"
    if getattr(base_model.config, "position_embedding_type", None) not in (None, "absolute"):
        return f"{name} has relative positions"
    return None


def bind_forward(
    model: PreTrainedModel, flat: Callable, padded: Callable, why_stock: str | None, attention_dropout: float
) -> bool:
    """Give an instance the forward ``flat``, or ``padded`` with the reason in one log line; says whether it is flat.

    The instance keeps its class and weights, so what it saves is a plain transformers checkpoint.
    """
    model.accepts_loss_kwargs = False  # the Trainer would else pass num_items_in_batch into a forward that ignores it
    model.attention_dropout = attention_dropout
    model.forward = types.MethodType(flat if why_stock is None else padded, model)
    if why_stock is not None:
        logger.warning("the stock forward is used, on padded batches: %s", why_stock)
    return why_stock is None


def encode(
    base_model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    layout: Layout,
    token_type_ids: Tensor | None = None,
    wanted: Tensor | None = None,
    attention_dropout: float = 0.0,
) -> Tensor:
    """Hidden states of a flat batch: (N,), (N,) -> (N, D), or (M, D) at the ascending positions ``wanted`` (M,).

    ``position_ids`` count from 0 in each segment. ``attention_dropout`` holds in training only, and stands in for
    the config's. Equal to the stock forward of each segment alone (tests: float32, values and gradients to 1e-5).
    """
    return _encode(base_model, input_ids, position_ids, layout, token_type_ids, wanted, attention_dropout)[1]


def encode_first_and_last(
    base_model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    layout: Layout,
    token_type_ids: Tensor | None = None,
    attention_dropout: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Hidden states of a flat batch as ``encode`` takes it, behind the first layer and behind the last: (N, D) each."""
    return _encode(base_model, input_ids, position_ids, layout, token_type_ids, None, attention_dropout)


def _encode(base_model, input_ids, position_ids, layout, token_type_ids, wanted, attention_dropout):
    """Hidden states behind the first layer and behind the last: (N, D) and (N, D) or (M, D)."""
    attention_dropout = attention_dropout if base_model.training else 0.0
    num_tokens, num_rows = len(input_ids), len(input_ids) if wanted is None else len(wanted)
    if type(base_model).__name__ == MODERNBERT:
        states = _encode_modernbert(base_model, input_ids, position_ids, layout, wanted, attention_dropout)
    else:
        types = torch.zeros_like(input_ids) if token_type_ids is None else token_type_ids
        states = _encode_bert(base_model, input_ids, position_ids, layout, types, wanted, attention_dropout)
    return states[0][:num_tokens], states[1][:num_rows]


def with_dead_rows(rows: Tensor) -> Tensor:
    """(N, ...) and as many rows of zeros behind as ``dead_rows`` says; they belong to no segment and are cut off."""
    dead = dead_rows(len(rows), rows.device, rows.dtype)
    return F.pad(rows, (0, 0) * (rows.dim() - 1) + (0, dead)) if dead else rows


def embed_bert(model: PreTrainedModel, words: Tensor, position_ids: Tensor, types: Tensor) -> Tensor:
    """What the first layer reads: words (N, D), whatever they are, with places (N,) and token types (N,) -> (N, D)."""
    embeddings = model.embeddings
    # RoBERTa counts positions from padding_idx + 1; BERT from 0
    offset = 0 if type(model).__name__ == "BertModel" else embeddings.padding_idx + 1
    hidden = words + embeddings.position_embeddings(position_ids + offset) + embeddings.token_type_embeddings(types)
    return dropout(embeddings.LayerNorm(hidden), embeddings.dropout.p, embeddings.dropout.training)


def _encode_bert(model, input_ids, position_ids, layout, types, wanted, attention_dropout):
    words = model.embeddings.word_embeddings(input_ids)
    hidden = with_dead_rows(embed_bert(model, words, position_ids, types))  # behind what others watch and move
    first, layers = None, model.encoder.layer
    for layer in layers:
        hidden = _bert_layer(layer, hidden, layout, wanted if layer is layers[-1] else None, attention_dropout)
        first = hidden if first is None else first
    return first, hidden


def _bert_layer(layer: Any, hidden: Tensor, layout: Layout, wanted: Tensor | None, attention_dropout) -> Tensor:
    """One layer: (N, D) -> (N, D), or (M, D) where only ``wanted`` rows are asked for."""
    attention = layer.attention.self
    rows = hidden if wanted is None else _take(hidden, wanted)
    heads = (-1, attention.num_attention_heads, attention.attention_head_size)
    if wanted is None:
        query, key, value = _project_together((attention.query, attention.key, attention.value), hidden)
    else:
        query = attention.query(rows)
        key, value = _project_together((attention.key, attention.value), hidden)
    context = _attend(
        query.view(heads),
        key.view(heads),
        value.view(heads),
        layout if wanted is None else layout.select(wanted),
        layout,
        scale=attention.scaling,
        dropout_probability=attention_dropout,
    )
    output = layer.attention.output
    rows = output.LayerNorm(_add_dropped(output.dropout, output.dense(context.flatten(1)), rows))
    output = layer.output
    return output.LayerNorm(_add_dropped(output.dropout, output.dense(layer.intermediate(rows)), rows))


def _project_together(linears: tuple[nn.Linear, ...], hidden: Tensor) -> tuple[Tensor, ...]:
    """Several projections of one input as one matrix product: (N, D) -> (N, D) each."""
    if any(type(linear) is not nn.Linear for linear in linears):  # adapters wrap the linear
        return tuple(linear(hidden) for linear in linears)
    weight = torch.cat([linear.weight for linear in linears])
    bias = torch.cat([linear.bias for linear in linears])
    return F.linear(hidden, weight, bias).chunk(len(linears), dim=-1)


def _encode_modernbert(model, input_ids, position_ids, layout, wanted, attention_dropout):
    hidden = with_dead_rows(model.embeddings(input_ids))
    position_ids = F.pad(position_ids, (0, len(hidden) - len(position_ids)))
    rotations = {
        kind: tuple(part.squeeze(0) for part in model.rotary_emb(hidden, position_ids.unsqueeze(0), kind))
        for kind in set(model.config.layer_types)
    }
    first, layers = None, model.layers
    for layer in layers:
        rotation, rows = rotations[layer.attention_type], wanted if layer is layers[-1] else None
        hidden = _modernbert_layer(layer, hidden, layout, rotation, rows, attention_dropout)
        first = hidden if first is None else first
    return first, model.final_norm(hidden)


def _modernbert_layer(layer, hidden: Tensor, layout: Layout, rotation, wanted: Tensor | None, attention_dropout):
    """One pre-norm layer with rotary positions: (N, D) -> (N, D), or (M, D) for ``wanted`` rows."""
    attention = layer.attn
    query, key, value = attention.Wqkv(layer.attn_norm(hidden)).view(len(hidden), 3, -1, attention.head_dim).unbind(1)
    query, key = apply_rotary_pos_emb(query, key, *rotation, unsqueeze_dim=1)
    # a local layer needs every query in its place to know what lies near; its rows are taken afterwards
    local = attention.sliding_window is not None
    early = wanted is not None and not local
    context = _attend(
        _take(query, wanted) if early else query,
        key,
        value,
        layout.select(wanted) if early else layout,
        layout,
        scale=attention.head_dim**-0.5,
        dropout_probability=attention_dropout,
        window=attention.sliding_window - 1 if local else None,  # the module stores the reach + 1
    )
    if wanted is not None:
        hidden = _take(hidden, wanted)
        context = context if early else _take(context, wanted)
    hidden = hidden + attention.out_drop(attention.Wo(context.flatten(1)))
    return hidden + layer.mlp(layer.mlp_norm(hidden))


def _take(rows: Tensor, wanted: Tensor) -> Tensor:
    return with_dead_rows(take_rows(rows, wanted))


def _attend(query: Tensor, key: Tensor, value: Tensor, *layouts: Any, **settings: Any) -> Tensor:
    """Attention in the precision that the projections came in: autocast would send the softmax back to float32."""
    with torch.autocast(query.device.type, enabled=False):
        return attend(query, key.to(query.dtype), value.to(query.dtype), *layouts, **settings)


def _add_dropped(module: nn.Dropout, values: Tensor, residual: Tensor) -> Tensor:
    return add_dropped(values, residual, module.p, module.training)
