"""The prediction head on predicted rows only, bound to a stock masked-language model.

The instance keeps its class and weights, so what it saves is a plain transformers checkpoint.
"""

# N tokens, M predicted tokens, V vocabulary, S segments, T the longest

import functools
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from pair_pkg.mlm.reconstruction import Targets
from pair_pkg.modeling.embedding import pool
from pair_pkg.modeling.encoder import bind_forward, encode, why_not_flat, with_dead_rows
from pair_pkg.modeling.layout import Layout

# Where the supported classes keep their head: (hidden states of rows) -> (logits of rows)
HEADS = {
    "BertForMaskedLM": lambda model, rows: model.cls(rows),
    "RobertaForMaskedLM": lambda model, rows: model.lm_head(rows),
    "XLMRobertaForMaskedLM": lambda model, rows: model.lm_head(rows),
    "CamembertForMaskedLM": lambda model, rows: model.lm_head(rows),
    "ModernBertForMaskedLM": lambda model, rows: model.decoder(model.head(rows)),
}


@dataclass
class PredictedLogits:
    """What a bound model gives.

    No mapping, as the library's outputs are: of these accelerate converts every tensor to float32, and (M, V) in
    float32 and back is the costliest copy of a small encoder's step.
    """

    logits: Tensor  # (M, V) in the precision of the products; rows behind those asked for are dead


def bind_sparse_forward(model: PreTrainedModel, attention_dropout: float = 0.0, why_stock: str | None = None) -> bool:
    """Make ``model.forward`` predict at ``predicted`` positions only, and say whether it takes flat batches.

    Logits come back as (M, V). A class without a padding-free forward keeps its stock one, on padded batches, and
    says so in one log line; ``why_stock`` is the caller's own reason to keep it (sharded weights, say).
    """
    reason = why_stock or why_not_flat(model.base_model)
    if reason is None and type(model).__name__ not in HEADS:
        reason = f"{type(model).__name__} has no known head"
    return bind_forward(model, _flat_forward, _padded_forward, reason, attention_dropout)


def _flat_forward(
    self, input_ids: Tensor, position_ids: Tensor, layout: Layout, predicted: Tensor, targets: Targets | None = None
) -> PredictedLogits:
    """(N,) tokens -> logits (M, V) at ``predicted`` (M,), and behind them those of the decoder's ``targets``."""
    encode_at = functools.partial(
        encode, self.base_model, input_ids, position_ids, layout, attention_dropout=self.attention_dropout
    )
    if targets is None:
        rows = encode_at(wanted=predicted)
    else:
        targets = targets.to(input_ids.device)
        hidden = encode_at()
        vectors = pool(hidden, layout.lengths, self.reconstruction.pooling)[targets.segments]
        written = self.reconstruction(self.base_model, vectors, targets)
        rows = torch.cat([hidden[predicted], written.to(hidden.dtype)])
    return PredictedLogits(logits=HEADS[type(self).__name__](self, with_dead_rows(rows)))


def _padded_forward(self, input_ids: Tensor, attention_mask: Tensor, predicted: Tensor) -> PredictedLogits:
    """(S, T) tokens -> logits (M, V) at ``predicted`` (M,) of the flattened (S * T)."""
    logits = type(self).forward(self, input_ids=input_ids, attention_mask=attention_mask).logits
    return PredictedLogits(logits=logits.flatten(0, 1)[predicted])
