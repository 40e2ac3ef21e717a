"""What labels are to the loss, and what logits say: targets, exact losses, scores and metrics of pairs."""

# B pairs of a batch, C outputs, R pairs of an evaluation

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from pair_pkg.data.labels import LabelKind, LabelScheme
from pair_pkg.pairs.imbalance import balance_losses
from pair_pkg.pairs.metrics import compute_pair_metrics

Numbers = TypeVar("Numbers", Tensor, np.ndarray)


class LossFunction(Protocol):
    """What the Trainer calls as ``compute_loss_func``."""

    def __call__(
        self, outputs: SequenceClassifierOutput, labels: Tensor, num_items_in_batch: Tensor | int | None = None
    ) -> Tensor: ...


def pair_targets(scheme: LabelScheme, labels: np.ndarray) -> np.ndarray:
    """Labels as the loss takes them, (R,): class ids as they are, scores from [low, high] to [0, 1].

    So a loss is of one size whatever the range, and no score is -100, the Trainer's mark of "no label".

    >>> pair_targets(LabelScheme("scores", [], 0.0, 5.0), np.float32([0, 2.5, 5])).tolist()
    [0.0, 0.5, 1.0]
    """
    if scheme.kind != "scores":
        return labels
    return ((labels - scheme.low) / (scheme.high - scheme.low)).astype(np.float32)


def pair_loss(kind: LabelKind, class_weights: Sequence[float] = (), focal_gamma: float = 0.0) -> LossFunction:
    """The ``compute_loss_func`` of a kind of labels: sum of the pairs' losses / pairs of the whole optimizer step.

    Cross-entropy for two or more logits, binary cross-entropy for one logit of binary labels, and the squared error
    of the bare output for scores: a sigmoid would flatten the gradient at both ends of the range, where many STS
    labels lie (BERT, 2019, regresses STS-B so). Without ``num_items_in_batch`` the mean over this batch. Weights of
    the classes and a focal gamma are for classes (see ``balance_losses``).
    """
    return partial(_normalized_loss, losses=balanced_pair_losses(kind, class_weights, focal_gamma))


def balanced_pair_losses(
    kind: LabelKind, class_weights: Sequence[float] = (), focal_gamma: float = 0.0
) -> Callable[[Tensor, Tensor], Tensor]:
    """The losses that ``pair_loss`` sums: (B, C) and targets (B,) -> (B,)."""

    def losses(logits: Tensor, labels: Tensor) -> Tensor:
        plain = pair_losses(kind, logits, labels)
        return plain if kind == "scores" else balance_losses(plain, labels, class_weights, focal_gamma)

    return losses


def pair_losses(kind: LabelKind, logits: Tensor, labels: Tensor) -> Tensor:
    """The loss of each pair, float32: (B, C) and targets (B,) -> (B,)."""
    logits = logits.float()
    if kind == "scores":
        return F.mse_loss(logits.squeeze(1), labels.float(), reduction="none")
    if logits.shape[1] == 1:
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels.float(), reduction="none")
    return F.cross_entropy(logits, labels, reduction="none")


def pair_scores(scheme: LabelScheme, logits: Tensor) -> Tensor:
    """What the logits (B, C) say, float64, before any decision.

    Binary labels: (B,) the margin of the positive name, whose sigmoid is its probability. Classes: (B, C) logits.
    Scores: (B,) in the labels' own range, and beyond it where the model goes beyond.
    """
    logits = logits.double()
    if scheme.kind == "scores":
        return own_range(scheme, logits.squeeze(1))
    if scheme.kind == "classes":
        return logits
    return logits.squeeze(1) if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]


def score_pairs(model: PreTrainedModel, batch: dict[str, Any], *, scheme: LabelScheme) -> dict[str, Tensor]:
    """Columns of a batch built ``with_rows``, for ``StageTrainer``'s ``score_batch``: (B,) each.

    ``row``, ``score`` (classes: ``score_0``, ``score_1``, ...), and where there are labels ``label`` (in its own
    range) and ``loss``.
    """
    inputs = {name: values for name, values in batch.items() if name not in ("rows", "labels")}
    logits = model(**inputs).logits
    scores = pair_scores(scheme, logits)
    columns = {"row": batch["rows"]}
    if scheme.kind == "classes":
        columns |= {f"score_{class_id}": column for class_id, column in enumerate(scores.unbind(1))}
    else:
        columns["score"] = scores
    if "labels" in batch:
        labels = batch["labels"]
        columns["label"] = own_range(scheme, labels.double()) if scheme.kind == "scores" else labels
        columns["loss"] = pair_losses(scheme.kind, logits, labels).double()
    return columns


def predictions(columns: dict[str, np.ndarray]) -> np.ndarray:
    """The scores among the columns of ``score_pairs``: (R,), or (R, C) for classes."""
    if "score" in columns:
        return columns["score"]
    num_classes = sum(name.startswith("score_") for name in columns)
    return np.stack([columns[f"score_{class_id}"] for class_id in range(num_classes)], axis=1)


def pair_row_metrics(columns: dict[str, np.ndarray], *, scheme: LabelScheme) -> dict[str, Any]:
    """Metrics of an evaluation: the mean loss of its pairs, and ``compute_pair_metrics`` of the bare scores.

    A binary margin is positive from 0 on. Raises ``TrainingFailure`` where a prediction is not finite.
    """
    metrics = compute_pair_metrics(scheme.kind, predictions(columns), columns["label"], threshold=0.0)
    return {"loss": float(columns["loss"].mean()), **metrics}


def _normalized_loss(
    outputs: SequenceClassifierOutput,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    *,
    losses: Callable[[Tensor, Tensor], Tensor],
) -> Tensor:
    total = losses(outputs.logits, labels).sum()
    return total / (len(labels) if num_items_in_batch is None else num_items_in_batch)


def own_range(scheme: LabelScheme, scores: Numbers) -> Numbers:
    """Scores in [0, 1] -> [low, high]: the way back of ``pair_targets``."""
    return scheme.low + scores * (scheme.high - scheme.low)
