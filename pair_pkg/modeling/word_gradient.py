"""Word embeddings whose gradient costs as much as the words of a batch, not as the vocabulary."""

# V words of the vocabulary, N tokens, D width of an embedding

import types
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def keep_word_gradient(embedding: nn.Embedding) -> None:
    """Let an embedding write its gradient into memory that it keeps, at the rows of the words that were read.

    torch makes a gradient of (V, D) zeros at every step: of a small encoder's step on short sentences a sixth, most of
    it the kernel that hands out the pages. Here the rows of the step before are cleared, and those of this one added.
    The gradient is the same to the bit, and dense for whoever reads it. It serves one process on a CPU, and weights
    that nothing else in the model reads, such as a head tied to them; elsewhere lookups stay torch's own.
    """
    instance: Any = embedding  # its class stays, so what it saves is plain
    instance.kept_gradient = _KeptGradient()
    instance.forward = types.MethodType(_look_up, embedding)


def _look_up(self: Any, ids: Tensor) -> Tensor:
    """Ids of any shape -> (..., D)."""
    serves = (
        torch.is_grad_enabled()
        and self.weight.requires_grad
        and self.weight.device.type == "cpu"
        and not torch.distributed.is_initialized()  # DDP and FSDP wait for gradients that autograd hands over
    )
    return _LookUp.apply(self.weight, ids, self) if serves else type(self).forward(self, ids)


class _LookUp(torch.autograd.Function):
    """A lookup whose backward adds to ``weight.grad`` itself and hands nothing on."""

    @staticmethod
    def forward(ctx, weight: Tensor, ids: Tensor, embedding: nn.Embedding) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.embedding = embedding
        return F.embedding(ids, weight)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (ids,) = ctx.saved_tensors
        ids, gradient = ids.flatten(), gradient.flatten(0, -2)
        padding = ctx.embedding.padding_idx
        if padding is not None and (ids == padding).any():
            real = ids != padding
            ids, gradient = ids[real], gradient[real]
        ctx.embedding.kept_gradient.add(ctx.embedding.weight, ids, gradient)
        return None, None, None


class _KeptGradient:
    """The memory of one embedding's gradient (V, D), zero but for the rows written since it was last cleared."""

    def __init__(self) -> None:
        self.rows: Tensor | None = None
        self.written: list[Tensor] = []

    def add(self, weight: nn.Parameter, ids: Tensor, gradient: Tensor) -> None:
        """Add (N, D) to the rows ``ids`` (N,) of ``weight.grad``, which a new step finds as None.

        What is added to rows that hold something is summed by itself first, as torch does.
        """
        if weight.grad is None:
            weight.grad = self._cleared(weight)
        else:
            ids, places = ids.unique(return_inverse=True)
            gradient = gradient.new_zeros(len(ids), gradient.shape[1]).index_add_(0, places, gradient)
        if weight.grad is self.rows:
            self.written.append(ids)
        weight.grad.index_add_(0, ids, gradient)

    def _cleared(self, weight: nn.Parameter) -> Tensor:
        if self.rows is None or self.rows.shape != weight.shape or self.rows.dtype != weight.dtype:
            self.rows = torch.zeros_like(weight, requires_grad=False)
        elif self.written:
            self.rows[torch.cat(self.written)] = 0
        self.written = []
        return self.rows
