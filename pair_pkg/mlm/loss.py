"""The exact loss and perplexity: sums over predicted tokens, never means of means."""

# M predicted tokens, V vocabulary, B rows of a batch, R rows of an evaluation

import math

import numpy as np
import torch
from torch import Tensor

from pair_pkg.errors import TrainingFailure
from pair_pkg.mlm.head import PredictedLogits

# Logits in float32 at a time: on a CPU what its caches hold, on a GPU what keeps it busy (half a gigabyte).
ELEMENTS_AT_A_TIME, ELEMENTS_AT_A_TIME_GPU = 1 << 19, 1 << 27
TELLING_LOSS = 20  # nats a token: e^20 is far beyond any vocabulary


def masked_lm_loss(outputs: PredictedLogits, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Sum of the token losses over the number of predicted tokens in the whole step, all micro-batches and processes.

    ``outputs.logits`` (M, V) and ``labels`` (M,). Without ``num_items_in_batch`` the mean over this batch.
    """
    total = token_losses(outputs.logits, labels).sum()
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def token_losses(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of each token in float32, whatever the type of ``logits``: (M, V), (M,) -> (M,).

    Rows of ``logits`` behind the last label are dead: their gradient is zero. Some rows at a time, so that a few of
    them are all that ever lies in float32: M x V of them would be written to memory and read again six times, forward
    and backward.
    """
    return _TokenLosses.apply(logits, labels)


class _TokenLosses(torch.autograd.Function):
    """log(sum(exp(logits))) - logits[label], and its gradient softmax(logits) - onehot(label)."""

    @staticmethod
    def forward(ctx, logits: Tensor, labels: Tensor) -> Tensor:
        normalizers = torch.empty(len(labels), dtype=torch.float32, device=logits.device)
        for rows in _slices(len(labels), logits):
            torch.logsumexp(logits[rows].float(), dim=1, out=normalizers[rows])
        ctx.save_for_backward(logits, labels, normalizers)
        return normalizers - logits[: len(labels)].gather(1, labels.unsqueeze(1)).squeeze(1)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        logits, labels, normalizers = ctx.saved_tensors
        result = torch.empty_like(logits)
        result[len(labels) :] = 0
        for rows in _slices(len(labels), logits):
            part = (logits[rows] - normalizers[rows].unsqueeze(1)).exp_()  # softmax, float32
            part.mul_(gradient[rows].unsqueeze(1))
            part.scatter_add_(1, labels[rows].unsqueeze(1), -gradient[rows].unsqueeze(1))
            result[rows] = part
        return result, None


def _slices(count: int, logits: Tensor) -> list[slice]:
    """The first ``count`` rows, those together that are worked on together."""
    elements = ELEMENTS_AT_A_TIME if logits.device.type == "cpu" else ELEMENTS_AT_A_TIME_GPU
    size = max(1, elements // logits.shape[1])
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def score_rows(outputs: PredictedLogits, labels: Tensor, rows: Tensor, row_of_label: Tensor, loss_only: bool) -> dict:
    """Sums of each row in float64: ``row``, ``loss``, ``predicted``, and ``correct`` unless ``loss_only``: (B,) each.

    No logits are kept beyond the batch.
    """
    losses = token_losses(outputs.logits, labels)
    columns = {"loss": losses, "predicted": torch.ones_like(losses)}
    if not loss_only:
        columns["correct"] = outputs.logits[: len(labels)].argmax(-1) == labels
    zero = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    sums = {name: zero.index_add(0, row_of_label, values.double()) for name, values in columns.items()}
    return {"row": rows, **sums}


def perplexity_words(loss: float) -> str:
    """A training loss as whoever watches reads it; a perplexity beyond e^20 says no more than the loss.

    >>> perplexity_words(3.0), perplexity_words(25.0)
    ('perplexity 20.09', 'loss 25.0000')
    """
    if loss >= TELLING_LOSS:
        return f"loss {loss:.4f}"
    perplexity = math.exp(loss)
    return f"perplexity {perplexity:,.0f}" if perplexity >= 1000 else f"perplexity {perplexity:.4g}"


def metric_names(loss_only: bool) -> set[str]:
    """The names of what ``perplexity_metrics`` measures."""
    return {"loss", "perplexity", "predicted_tokens"} | (set() if loss_only else {"accuracy"})


def perplexity_metrics(columns: dict[str, np.ndarray]) -> dict[str, float]:
    """Metrics of an evaluation from the sums of its rows, (R,) each, in the order of the rows.

    Perplexity = exp(sum of token losses / number of predicted tokens): independent of batches and processes.
    """
    predicted = columns["predicted"].sum()
    loss = float(columns["loss"].sum() / predicted)
    if not math.isfinite(loss):
        worst = int(columns["row"][~np.isfinite(columns["loss"])][0])
        raise TrainingFailure(
            f"the evaluation loss is {loss} (first at validation row {worst}); lower the learning rate"
        )
    metrics = {"loss": loss, "perplexity": math.exp(loss), "predicted_tokens": int(predicted)}
    if "correct" in columns:
        metrics["accuracy"] = float(columns["correct"].sum() / predicted)
    return metrics
