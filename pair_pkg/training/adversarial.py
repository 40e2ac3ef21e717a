"""Adversarial training on word embeddings: the fast gradient method of Miyato, Dai and Goodfellow (2017)."""

# N tokens of a flat batch, S texts of a batch (a pair is one text), T the longest of them, D width of an embedding

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


class AdversarialEmbeddings:
    """A second pass of each batch, its word embeddings moved by ``epsilon`` in the direction that raises the loss.

    As in the paper, a text's embeddings r move together by epsilon g / ||g||, where g is the gradient of the loss and
    the norm is taken over the whole text. So a text moves the same in every batch, however a step is cut into batches
    and processes, and no weight is ever touched: what moves is the embeddings' output.
    """

    def __init__(self, epsilon: float):
        self.epsilon = epsilon

    def step(
        self,
        model: PreTrainedModel,
        inputs: dict[str, Any],
        backward: Callable[[], Tensor],
        no_sync: Callable[[], AbstractContextManager],
    ) -> Tensor:
        """Run ``backward`` (forward and backward, gives the loss) on the batch as it is and as it is moved.

        The losses' sum is returned, and the gradients add up, so ``backward`` is to count half. The first pass runs
        under ``no_sync``: gradients of several processes are exchanged once, in the second. Buffers (running
        statistics) stay as the unmoved batch leaves them.
        """
        embeddings = model.get_input_embeddings()
        with _watched(embeddings) as outputs, no_sync():
            loss = backward()
        (output,) = outputs
        move = adversarial_move(output.grad, inputs, self.epsilon)
        buffers = [buffer.clone() for buffer in model.buffers()]
        with _moved(embeddings, move):
            loss = loss + backward()
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers):
                buffer.copy_(before)
        return loss


def adversarial_move(gradient: Tensor, inputs: dict[str, Any], epsilon: float) -> Tensor:
    """The move of length ``epsilon`` along the gradient of each text, nothing where a text has no gradient.

    ``gradient`` is (N, D) where ``inputs`` hold a ``layout``, else (S, T, D); so is the move.
    """
    wide = gradient.float()
    if "layout" in inputs:
        lengths = torch.tensor(inputs["layout"].lengths, device=gradient.device)
        text_of_token = torch.repeat_interleave(torch.arange(len(lengths), device=gradient.device), lengths)
        squares = wide.new_zeros(len(lengths)).index_add(0, text_of_token, wide.square().sum(1))
        norms = squares.sqrt()[text_of_token].unsqueeze(1)  # (N, 1)
    else:
        norms = wide.flatten(1).norm(dim=1)[:, None, None]  # (S, 1, 1)
    return (epsilon * wide / torch.where(norms > 0, norms, 1.0)).to(gradient.dtype)


@contextmanager
def _watched(embeddings: nn.Module) -> Iterator[list[Tensor]]:
    """The embeddings' outputs inside this block; behind a backward pass each holds its gradient."""
    outputs: list[Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Tensor) -> None:
        if not output.requires_grad:  # frozen embeddings: their output is a leaf
            output.requires_grad_()
        output.retain_grad()
        outputs.append(output)

    handle = embeddings.register_forward_hook(keep)
    try:
        yield outputs
    finally:
        handle.remove()


@contextmanager
def _moved(embeddings: nn.Module, move: Tensor) -> Iterator[None]:
    """The embeddings' outputs inside this block are moved."""
    handle = embeddings.register_forward_hook(lambda module, arguments, output: output + move)
    try:
        yield
    finally:
        handle.remove()
