"""The bi-encoder: a stock encoder that reads each sentence by itself, bound to batches of distinct texts.

The instance keeps its class and weights, so that the Trainer's checkpoints are plain ones.
"""

# U distinct texts of a batch, B pairs, D width of a vector

import functools
import logging
import types
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import ModelOutput

from pair_pkg.modeling.embedding import SentenceEncoder, embed, project, split_text_batch
from pair_pkg.modeling.encoder import why_not_flat
from pair_pkg.modeling.word_gradient import keep_word_gradient
from pair_pkg.pairs.head_norm import HeadNorm, linear_of_norm

logger = logging.getLogger(__name__)


@dataclass
class PairEmbeddings(ModelOutput):
    """Unit vectors of both sentences of each pair, and what ``PairTexts`` says of the pairs."""

    embeddings1: Tensor | None = None  # (B, D) float32
    embeddings2: Tensor | None = None
    groups: Tensor | None = None  # (B,) pairs of one group are known positives of each other


def bind_bi_encoder(
    model: PreTrainedModel,
    pooling: str,
    *,
    head: nn.Module | None = None,
    attention_dropout: float = 0.0,
    chunk_tokens: int | None = None,
    why_stock: str | None = None,
) -> bool:
    """Make ``model.forward`` take the batches of ``PairTexts``, and say whether it takes flat ones.

    ``head`` (a ``HeadNorm``, or the linear layer that it became) is applied to the pooled vectors; it lives in the
    model as ``sentence_head``. With ``chunk_tokens``, training keeps the activations of that many tokens only and
    computes the others again on the way back: the memory of GradCache (Gao et al., 2021), the same gradients.
    """
    reason = why_stock or why_not_flat(model)
    model.accepts_loss_kwargs = False  # the Trainer would else pass num_items_in_batch into a forward that ignores it
    model.sentence_head = head or nn.Identity()
    model.embed_batch = functools.partial(embed, model, pooling=pooling, attention_dropout=attention_dropout)
    model.chunk_tokens = chunk_tokens
    model.forward = types.MethodType(_forward, model)
    keep_word_gradient(model.get_input_embeddings())
    if getattr(model, "pooler", None) is not None:
        model.pooler.requires_grad_(False)  # it is not used, and DDP would wait for its gradient
    if reason is not None:
        logger.warning("the stock forward is used, on padded batches: %s", reason)
    return reason is None


def take_encoder(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, pooling: str, max_seq_length: int
) -> SentenceEncoder:
    """The encoder of a bound model, to save it and to encode with it; a head norm in the model becomes linear."""
    if isinstance(model.sentence_head, HeadNorm):
        model.sentence_head = linear_of_norm(model.sentence_head)
    return SentenceEncoder(model, tokenizer, pooling, max_seq_length, model.sentence_head)


def _forward(self, sentence1: Tensor, sentence2: Tensor, groups: Tensor | None = None, **inputs: Any) -> PairEmbeddings:
    """Distinct texts -> vectors of the pairs, whose sentences are the texts ``sentence1`` and ``sentence2`` (B,)."""
    if self.training and self.chunk_tokens is not None:
        parts = split_text_batch(inputs, self.chunk_tokens)
        pooled = torch.cat([checkpoint(self.embed_batch, part, use_reentrant=False) for part in parts])
    else:
        pooled = self.embed_batch(inputs)
    vectors = F.normalize(project(self.sentence_head, pooled), dim=-1)  # (U, D)
    return PairEmbeddings(vectors[sentence1], vectors[sentence2], groups)
