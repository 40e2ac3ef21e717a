"""The decoders of TSDAE and RetroMAE: from the vector of a segment to hidden rows, of which the head makes logits.

They live in the model while it trains, and no result has them.
"""

# K segments, N their tokens, W the longest, M predicted tokens, D hidden size, H heads, E width of a head

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import MODEL_MAPPING, PreTrainedConfig, PreTrainedModel

from pair_pkg.errors import InputError
from pair_pkg.mlm.reconstruction import TSDAE, Reconstruction, Targets
from pair_pkg.modeling.encoder import BERT_FAMILY, embed_bert
from pair_pkg.modeling.layout import Group, Layout, Selection, put_rows, take_rows

DECODER = "reconstruction"  # of the decoder inside the model
VECTORS = ("mean", "cls", "max")  # the poolings of an encoder's last layer


def refuse_other_encoders(config: PreTrainedConfig) -> None:
    """Raises ``InputError`` for a model that no decoder here fits."""
    name = MODEL_MAPPING[type(config)].__name__ if type(config) in MODEL_MAPPING else config.model_type
    if name not in BERT_FAMILY:
        raise InputError(f"--objective tsdae and retromae need a BERT or RoBERTa encoder, not {name}; leave it out")


def attach_decoder(model: PreTrainedModel, how: Reconstruction, pooling: str, pad_token_id: int) -> None:
    """Give a bound masked-language model the decoder of an objective, in place; new weights are drawn from its seed.

    ``pooling`` makes the vectors, one of ``VECTORS``.
    """
    with torch.random.fork_rng():
        torch.manual_seed(how.seed)
        decoder = (
            TsdaeDecoder(model, pooling, pad_token_id) if how.objective == TSDAE else RetroMaeDecoder(model, pooling)
        )
    setattr(model, DECODER, decoder)


class TsdaeDecoder(nn.Module):
    """The encoder's own weights, reading left to right, with attention to one vector: tied, as is best in the paper.

    What it computes is what ``DenoisingAutoEncoderLoss`` of sentence-transformers does (a test holds the two equal).
    """

    def __init__(self, model: PreTrainedModel, pooling: str, pad_token_id: int):
        super().__init__()
        self.pooling = pooling
        encoder, config = model.base_model, copy.deepcopy(model.config)
        config.is_decoder = config.add_cross_attention = True
        config.attention_probs_dropout_prob = model.attention_dropout
        self.decoder = type(encoder)(config, add_pooling_layer=False)
        _share(self.decoder, encoder)
        self.pad_token_id = pad_token_id

    def forward(self, encoder: PreTrainedModel, vectors: Tensor, targets: Targets) -> Tensor:
        """(K, D) vectors -> (M, D) rows, each of which predicts the token behind its own."""
        layout, device = targets.layout, targets.ids.device
        if not layout.lengths:  # an empty result that still reaches every weight, as DDP's reducer wants
            return vectors + 0 * sum(parameter.sum() for parameter in self.parameters())
        group = Group(tuple(layout.lengths))
        slots = group.slots.to(device)
        padded = torch.full((group.num_segments * group.width,), self.pad_token_id, device=device)
        padded = padded.index_copy(0, slots, targets.ids).view(group.num_segments, group.width)
        hidden = self.decoder(
            input_ids=padded[:, :-1],
            encoder_hidden_states=vectors[:, None],
            encoder_attention_mask=torch.ones(len(vectors), 1, dtype=torch.long, device=device),
            use_cache=False,
        ).last_hidden_state
        predicting = group.real[:, 1:].flatten().nonzero().squeeze(1)
        return take_rows(hidden.flatten(0, 1), predicting.to(device))


class RetroMaeDecoder(nn.Module):
    """One layer that predicts each token from the vector, its place, and some other tokens: enhanced decoding."""

    def __init__(self, model: PreTrainedModel, pooling: str):
        super().__init__()
        self.pooling = pooling
        self.layer = type(model.base_model.encoder.layer[0])(model.config)
        self.layer.apply(model._init_weights)
        self.attention_dropout = model.attention_dropout

    def forward(self, encoder: PreTrainedModel, vectors: Tensor, targets: Targets) -> Tensor:
        """(K, D) vectors -> (M, D) rows, each of which predicts its own token."""
        layout, device = targets.layout, targets.ids.device
        lengths = torch.tensor(layout.lengths, dtype=torch.long, device=device)
        segment = torch.repeat_interleave(torch.arange(len(lengths), device=device), lengths)
        starts = lengths.cumsum(0) - lengths
        places = torch.arange(len(segment), device=device) - starts[segment]
        words = encoder.embeddings.word_embeddings(targets.ids)
        vector_of_token = vectors.to(words.dtype)[segment]
        types = torch.zeros_like(places)
        queries = embed_bert(encoder, vector_of_token, places, types)
        context = embed_bert(encoder, words, places, types).index_copy(0, starts, vectors.to(queries.dtype))
        return self._read(queries, context, targets)

    def _read(self, queries: Tensor, context: Tensor, targets: Targets) -> Tensor:
        """The layer, on the predicted tokens only: (N, D), (N, D) -> (M, D)."""
        attention, output = self.layer.attention.self, self.layer.attention.output
        heads = (-1, attention.num_attention_heads, attention.attention_head_size)
        queries = queries[targets.places]
        query = attention.query(queries).view(heads)
        key, value = attention.key(context).view(heads), attention.value(context).view(heads)
        predicted = targets.layout.select(targets.places)
        dropout = self.attention_dropout if self.training else 0.0
        rows = attend_visible(query, key, value, predicted, targets.layout, targets.visible, dropout)
        rows = output.LayerNorm(output.dropout(output.dense(rows.flatten(1))) + queries)
        output = self.layer.output
        return output.LayerNorm(output.dropout(output.dense(self.layer.intermediate(rows))) + rows)


def _share(decoder: nn.Module, encoder: nn.Module) -> None:
    """Let a decoder use the encoder's weights wherever their names agree, in place."""
    modules = dict(decoder.named_modules())
    for name, parameter in encoder.named_parameters():
        place, _, attribute = name.rpartition(".")
        if place in modules and hasattr(modules[place], attribute):
            setattr(modules[place], attribute, parameter)


def attend_visible(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_layout: Selection,
    key_layout: Layout,
    visible: Tensor,
    dropout: float = 0.0,
) -> Tensor:
    """Each query to the first place of its window and to what is visible of it: (M, H, E), (N, H, E) x 2 -> (M, H, E).

    ``visible`` (M, W) bool.
    """
    kind = query.device.type
    parts, first_query, first_key = [], 0, 0
    for asking, asked in zip(query_layout.groups(kind), key_layout.groups(kind)):
        queries = slice(first_query, first_query + asking.num_tokens)
        keys = slice(first_key, first_key + asked.num_tokens)
        first_query, first_key = queries.stop, keys.stop
        mask = as_rectangle(visible[queries, : asked.width], asking)
        mask[:, :, 0] = True
        context = F.scaled_dot_product_attention(
            as_rectangle(query[queries], asking).transpose(1, 2),
            as_rectangle(key[keys], asked).transpose(1, 2),
            as_rectangle(value[keys], asked).transpose(1, 2),
            attn_mask=mask.unsqueeze(1),
            dropout_p=dropout,
        )
        parts.append(take_rows(context.transpose(1, 2).flatten(0, 1), asking.slots.to(query.device)))
    if not parts:  # an empty result that still reaches every weight, as DDP's reducer wants
        return query + 0 * (key.sum() + value.sum())
    return torch.cat(parts)


def as_rectangle(rows: Tensor, group: Group) -> Tensor:
    """A group's rows (n, ...) as (G, W, ...), zeros behind shorter windows."""
    flat = put_rows(rows, group.slots.to(rows.device), group.num_segments * group.width)
    return flat.view(group.num_segments, group.width, *rows.shape[1:])
