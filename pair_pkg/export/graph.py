"""The modules that are exported: padded token ids in, calibrated probabilities or unit vectors out."""

# B pairs or texts of a batch, T tokens of the longest, D width of a vector, C outputs of a classifier

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from pair_pkg.modeling.embedding import SentenceEncoder
from pair_pkg.pairs.decision import Decision
from pair_pkg.pairs.metrics import BINARY, CLASSES


class CrossEncoderGraph(nn.Module):
    """A stock classifier and what its logits mean: (B, T) ids -> (B,) or (B, C) float32.

    Binary labels: the calibrated probability of label 1 (B,). Classes: one calibrated probability each (B, C). With
    no decision (scores): the prediction (B,), from [0, 1] to [low, high].
    """

    model: PreTrainedModel

    def __init__(self, model: PreTrainedModel, decision: Decision | None, low: float = 0.0, high: float = 1.0):
        super().__init__()
        self.model = model
        self.kind = decision.kind if decision else None
        self.temperature = decision.temperature if decision else 1.0
        self.center = decision.center if decision else 0.0
        self.low, self.high = low, high

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        logits = _call(self.model, input_ids, attention_mask, token_type_ids).logits.float()
        if self.kind == CLASSES:
            return (logits / self.temperature).softmax(-1)
        if self.kind == BINARY:
            margin = logits[:, 0] if self.model.config.num_labels == 1 else logits[:, 1] - logits[:, 0]
            return ((margin - self.center) / self.temperature).sigmoid()
        return self.low + logits[:, 0] * (self.high - self.low)


class BiEncoderGraph(nn.Module):
    """A stock encoder, its pooling, its head and the normalization: (B, T) ids -> (B, D) float32."""

    model: PreTrainedModel
    head: nn.Module
    pooling: str
    normalized: bool

    def __init__(self, encoder: SentenceEncoder):
        super().__init__()
        self.model = encoder.model
        self.head = encoder.head
        self.pooling = encoder.pooling
        self.normalized = encoder.normalized

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None) -> Tensor:
        if self.pooling == "first_last_avg":
            outputs = _call(self.model, input_ids, attention_mask, token_type_ids, output_hidden_states=True)
            pooled = pool_padded((outputs.hidden_states[1] + outputs.last_hidden_state) / 2, attention_mask, "mean")
        else:
            hidden = _call(self.model, input_ids, attention_mask, token_type_ids).last_hidden_state
            pooled = pool_padded(hidden, attention_mask, self.pooling)
        vectors = self.head(pooled.to(self.model.dtype)).float()
        return F.normalize(vectors, dim=-1) if self.normalized else vectors


def pool_padded(hidden: Tensor, attention_mask: Tensor, pooling: str) -> Tensor:
    """The mean, maximum or first row (cls) of each text, padded on the right: (B, T, D), (B, T) -> (B, D) float32.

    ``modeling.embedding.pool`` for flat rows, in operations that tracing and exporting keep for every shape.
    """
    hidden = hidden.float()
    if pooling == "cls":
        return hidden[:, 0]
    real = attention_mask.unsqueeze(-1)  # (B, T, 1)
    if pooling == "max":
        return hidden.masked_fill(real == 0, float("-inf")).amax(1)
    assert pooling == "mean", pooling
    weights = real.to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1)


def _call(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None, **more: bool
):
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    return model(input_ids=input_ids, attention_mask=attention_mask, **types, **more, return_dict=True)
