"""The exact loss and perplexity: sums over predicted tokens, never means of means."""

# M predicted tokens, V vocabulary, B rows of a batch, R rows of an evaluation

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_outputs import MaskedLMOutput

from pair_pkg.errors import TrainingFailure


def masked_lm_loss(outputs: MaskedLMOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None) -> Tensor:
    """Sum of the token losses over the number of predicted tokens in the whole step, all micro-batches and processes.

    ``outputs.logits`` (M, V) and ``labels`` (M,). Without ``num_items_in_batch`` the mean over this batch.
    """
    total = F.cross_entropy(outputs.logits.float(), labels, reduction="sum")
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def score_rows(outputs: MaskedLMOutput, labels: Tensor, rows: Tensor, row_of_label: Tensor, loss_only: bool) -> dict:
    """Sums of each row in float64: ``row``, ``loss``, ``predicted``, and ``correct`` unless ``loss_only``: (B,) each.

    No logits are kept beyond the batch.
    """
    logits = outputs.logits.float()
    losses = F.cross_entropy(logits, labels, reduction="none")
    columns = {"loss": losses, "predicted": torch.ones_like(losses)}
    if not loss_only:
        columns["correct"] = logits.argmax(-1) == labels
    zero = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
    sums = {name: zero.index_add(0, row_of_label, values.double()) for name, values in columns.items()}
    return {"row": rows, **sums}


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
