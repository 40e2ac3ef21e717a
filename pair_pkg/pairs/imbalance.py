"""Pairs of rare or hard classes made to count more in the loss: class weights and the focal loss."""

# B pairs of a batch, R training pairs, C classes

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pair_pkg.errors import InputError

AUTO = "auto"


def choose_class_weights(wanted: Sequence[str], names: Sequence[str], labels: np.ndarray) -> list[float]:
    """Weights of the classes ``names`` by their ids, whose mean over the training pairs, labels (R,), is 1.

    ``wanted`` is ``["auto"]``, the inverse frequency, or ``name=weight`` for every class, of which only the ratios
    count: so the loss keeps its scale, and the learning rate its meaning. Raises ``InputError``.

    >>> choose_class_weights(["auto"], ["no", "yes"], np.array([0, 0, 0, 1]))
    [0.6666666666666666, 2.0]
    >>> choose_class_weights(["yes=3", "no=1"], ["no", "yes"], np.array([0, 0, 0, 1]))
    [0.6666666666666666, 2.0]
    """
    counts = np.bincount(labels, minlength=len(names))
    if list(wanted) == [AUTO]:
        missing = [name for name, count in zip(names, counts) if not count]
        if missing:
            raise InputError(
                f"--class_weights auto: no training pair is {missing[0]!r}; add some, or give weights by name"
            )
        raw = 1 / counts
    else:
        raw = _named_weights(wanted, names)
    return (raw * counts.sum() / (raw @ counts)).tolist()


def balance_losses(
    losses: Tensor, labels: Tensor, class_weights: Sequence[float] = (), focal_gamma: float = 0.0
) -> Tensor:
    """Cross-entropies (B,) of pairs of classes ``labels`` (B,), each times its class's weight and (1 - p)^gamma: (B,).

    p is the probability that the model gives to the right class: the focal loss (Lin et al., 2017, equation 4), whose
    alpha is the weight. What is summed is divided by the number of pairs, not by their weights, as the focal loss
    is: a pair then counts the same whatever else is in its step, and a step is the same however it is cut into
    batches and processes. With weights of mean 1 that is on average the weighted mean.
    """
    if focal_gamma:
        # 1 - p = 1 - exp(-loss); kept above 0, where the gradient of a power below 1 is infinite
        losses = losses * (-torch.expm1(-losses)).clamp(min=torch.finfo(losses.dtype).tiny) ** focal_gamma
    if class_weights:
        losses = losses * losses.new_tensor(class_weights)[labels]
    return losses


def margin_shift(class_weights: Sequence[float]) -> float:
    """How far weights of two classes move the logit margin of a model that fits its data: log(w1 / w0).

    The weighted loss is smallest at the odds of a data set in which the positive pairs are w1 / w0 times as many
    (Elkan, 2001).
    """
    negative, positive = class_weights
    return math.log(positive / negative)


def _named_weights(wanted: Sequence[str], names: Sequence[str]) -> np.ndarray:
    given: dict[str, float] = {}
    for word in wanted:
        name, _, text = word.rpartition("=")
        if name not in names or name in given:
            cure = f"give each of {', '.join(names)} once, as name=weight"
            raise InputError(f"--class_weights {word}: {'twice' if name in given else 'no such class'}; {cure}")
        try:
            given[name] = float(text)
        except ValueError as error:
            raise InputError(f"--class_weights {word}: {text!r} is no number; write name=weight") from error
        if not 0 < given[name] < math.inf:
            raise InputError(f"--class_weights {word}: give a weight above 0")
    missing = [name for name in names if name not in given]
    if missing:
        raise InputError(f"--class_weights: {missing[0]} has no weight; add {missing[0]}=1, or take auto")
    return np.array([given[name] for name in names])
