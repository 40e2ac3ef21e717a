"""R-Drop: one pair, two dropout draws, and a loss on how far the two predictions lie apart (Liang et al., 2021)."""

# B pairs of a batch, C outputs

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import SequenceClassifierOutput

from pair_pkg.data.labels import LabelKind
from pair_pkg.pairs.loss import LossFunction

COPIES = 2


def rdrop_loss(kind: LabelKind, alpha: float, losses: Callable[[Tensor, Tensor], Tensor]) -> LossFunction:
    """The ``compute_loss_func`` of a batch that holds each pair twice, its two copies next to each other.

    ``losses`` gives the loss of each pair (see ``balanced_pair_losses``). A pair's loss is the mean of its two
    copies' and ``alpha`` x ``distance`` of their predictions; of an optimizer step it is the mean over its pairs.
    """

    def loss(
        outputs: SequenceClassifierOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        first, second = outputs.logits.float().unflatten(0, (len(labels), COPIES)).unbind(1)  # (B, C) each
        total = (losses(first, labels) + losses(second, labels)).sum() / COPIES
        total = total + alpha * distance(kind, first, second).sum()
        return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)

    return loss


def distance(kind: LabelKind, first: Tensor, second: Tensor) -> Tensor:
    """How far two predictions of a pair lie apart: logits (B, C), (B, C) -> (B,).

    (KL(p || q) + KL(q || p)) / 2 of the predicted distributions, a sigmoid's two shares for one logit; the squared
    difference of scores.
    """
    if kind == "scores":
        return (first - second).squeeze(1).square()
    if first.shape[1] == 1:
        first, second = (torch.cat([torch.zeros_like(logits), logits], dim=1) for logits in (first, second))
    log_p, log_q = F.log_softmax(first, dim=1), F.log_softmax(second, dim=1)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1) / 2
