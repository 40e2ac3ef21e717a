"""Batch normalization in front of the classifier, exact over processes, and folded away when training is done."""

# B pairs of a batch, D width of the vector that enters the final linear layer

import torch
import torch.distributed as dist
from torch import Tensor, nn
from transformers import PreTrainedModel

from pair_pkg.errors import InputError

MOMENTUM = 0.1  # of the running statistics, and EPSILON: torch's defaults
EPSILON = 1e-5


def add_head_norm(model: PreTrainedModel) -> PreTrainedModel:
    """Put a ``HeadNorm`` before the model's final linear layer, in place; its weights keep their values.

    The dropout in front of it is set to 0: behind a dropout the variance in evaluation is another than in training
    (Li et al., CVPR 2019). A checkpoint of such a model names its head ``linear`` and ``norm``; it is read into a
    model that has a head norm, and plain transformers wants the folded one. Raises ``InputError`` where no final
    linear layer is known.
    """
    owner, name = final_place(model)
    linear = getattr(owner, name, None)
    if not isinstance(linear, nn.Linear):
        raise InputError(f"--head_norm batch: no linear classifier is known in {type(model).__name__}; leave it out")
    for child in owner.children():
        if isinstance(child, nn.Dropout):
            child.p = 0.0
    model.config.classifier_dropout = 0.0
    setattr(owner, name, NormalizedLinear(linear))
    return model


def fold_head_norm(model: PreTrainedModel) -> PreTrainedModel:
    """Fold the norm into the final linear layer, in place: a plain model with the same logits in evaluation.

    W (gamma (x - mean) / sqrt(var + eps) + beta) + b = W' x + b' with scale = gamma / sqrt(var + eps),
    W' = W diag(scale) and b' = b + W (beta - mean scale).
    """
    owner, name = final_place(model)
    norm, linear = getattr(owner, name).norm, getattr(owner, name).linear
    with torch.no_grad():
        scale, shift = _scale_and_shift(norm)
        weight = linear.weight.double()
        linear.bias.copy_(linear.bias + weight @ shift)
        linear.weight.copy_(weight * scale)
    setattr(owner, name, linear)
    return model


def linear_of_norm(norm: "HeadNorm") -> nn.Linear:
    """The linear layer that does in evaluation what a ``HeadNorm`` does: (B, D) -> (B, D)."""
    linear = nn.Linear(len(norm.weight), len(norm.weight), device=norm.weight.device)
    with torch.no_grad():
        scale, shift = _scale_and_shift(norm)
        linear.weight.copy_(scale.diag())
        linear.bias.copy_(shift)
    return linear


class NormalizedLinear(nn.Module):
    """A linear layer behind a ``HeadNorm``: (B, D) -> (B, C)."""

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.norm = HeadNorm(linear.in_features).to(linear.weight.device)
        self.linear = linear

    def forward(self, rows: Tensor) -> Tensor:
        return self.linear(self.norm(rows))


class HeadNorm(nn.Module):
    """Batch normalization (Ioffe and Szegedy, 2015) over the rows of all processes: (B, D) -> (B, D) in float32.

    Training takes the statistics of the micro-batch, as if its rows lay in one process, and evaluation the running
    ones. A training micro-batch of one row in all has no variance: it takes the running statistics and leaves them
    alone. Accumulated micro-batches each have their own statistics, so 4 x 4 is not 16. Every process must take part
    in every training step, if only with no rows; a stock forward, on padded batches, brings the row of its filler.
    (``nn.SyncBatchNorm`` needs a GPU.)
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, rows: Tensor) -> Tensor:
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float()
            mean, variance = self._batch_statistics(rows) if self.training else (self.running_mean, self.running_var)
            return (rows - mean) * (variance + EPSILON).rsqrt() * self.weight + self.bias

    def _batch_statistics(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the rows of all processes, (D,) each; the running ones take their share."""
        count = _sum_over_processes(rows.new_tensor([len(rows)]))
        mean = _sum_over_processes(rows.sum(0)) / count.clamp(min=1)
        variance = _sum_over_processes((rows - mean).square().sum(0)) / count.clamp(min=1)
        enough = count > 1  # kept a tensor: asking for its value would wait for the GPU
        with torch.no_grad():
            share = MOMENTUM * enough
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), share)  # unbiased, as torch keeps it
        return torch.where(enough, mean, self.running_mean), torch.where(enough, variance, self.running_var)


class _SumOverProcesses(torch.autograd.Function):
    """The sum of a tensor over all processes; a change of one addend moves the losses of all."""

    @staticmethod
    def forward(ctx, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone()
        dist.all_reduce(total)
        return total


def _sum_over_processes(values: Tensor) -> Tensor:
    alone = not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1
    return values if alone else _SumOverProcesses.apply(values)


def _scale_and_shift(norm: HeadNorm) -> tuple[Tensor, Tensor]:
    """What a norm multiplies by and adds in evaluation, (D,) float64 each."""
    scale = norm.weight.double() * (norm.running_var.double() + EPSILON).rsqrt()
    return scale, norm.bias - norm.running_mean * scale


def final_place(model: PreTrainedModel) -> tuple[nn.Module, str]:
    """The module that owns the final linear layer, and the layer's name in it."""
    classifier = getattr(model, "classifier", None)
    return (classifier, "out_proj") if hasattr(classifier, "out_proj") else (model, "classifier")
