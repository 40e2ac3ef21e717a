"""Averages of the weights along a run (EMA, SWA), by torch's ``AveragedModel``."""

# R rows that enter a norm, D their width

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, get_swa_multi_avg_fn
from transformers import PreTrainedModel

KINDS = ("none", "ema", "swa")
SWA_START = 0.75  # share of the steps before the first that counts (Izmailov et al., 2018)
Forwards = Callable[[], Iterable[Any]]


class WeightAveraging:
    """The average of a model's weights after its steps.

    ``ema``: average <- d average + (1 - d) weights, where d is ``ema_decay`` but at most (1 + n) / (10 + n) after n
    steps (TensorFlow's rule), or the average of a short run would be its untrained start. ``swa``: the plain mean of
    the steps in the last quarter of the run.

    Only parameters are averaged. A norm's running statistics belong to the weights that they were taken under, so
    those of the average are taken anew (``forwards``, see ``in_place``).
    """

    def __init__(self, model: PreTrainedModel, kind: str, ema_decay: float):
        self.model = model
        self.kind = kind
        self.ema_decay = ema_decay
        self.averaged: AveragedModel | None = None  # built at first use: the model may move to a GPU before
        self._measured_at = 0  # updates behind which the norms' statistics were last taken
        self._kept = False

    @property
    def num_averaged(self) -> int:
        return 0 if self.averaged is None else int(self.averaged.n_averaged)

    def update(self, step: int, max_steps: int) -> None:
        """Take the weights behind ``step`` (counted from 1) into the average."""
        if self.kind == "ema" or step > SWA_START * max_steps:
            self._build().update_parameters(self.model)

    @contextmanager
    def in_place(self, forwards: Forwards) -> Iterator[None]:
        """The model has the average's weights inside this block; before the first update it keeps its own.

        ``forwards`` runs the model on training batches, one at each turn, where its norms need new statistics.
        """
        if self._kept or not self.num_averaged:
            yield
            return
        self._swap()
        try:
            self._measure_norms(forwards)
            yield
        finally:
            self._swap()

    def keep(self, forwards: Forwards) -> None:
        """Leave the model with the average's weights; nothing is averaged any more."""
        if not self._kept and self.num_averaged:
            self._swap()
            self._measure_norms(forwards)
        self._kept = True

    def state_dict(self) -> dict[str, Tensor]:
        return self._build().state_dict()

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._build().load_state_dict(state)

    def _build(self) -> AveragedModel:
        if self.averaged is None:
            average: Any = get_swa_multi_avg_fn() if self.kind == "swa" else self._ema
            self.averaged = AveragedModel(self.model, multi_avg_fn=average)
        return self.averaged

    def _ema(self, averages: list[Tensor], weights: list[Tensor], num_averaged: Tensor) -> None:
        steps = int(num_averaged)
        get_ema_multi_avg_fn(min(self.ema_decay, (1 + steps) / (10 + steps)))(averages, weights, num_averaged)

    def _swap(self) -> None:
        """Exchange the storage of the model and of the average; nothing is copied."""
        average = self.averaged.module
        pairs = zip((*self.model.parameters(), *self.model.buffers()), (*average.parameters(), *average.buffers()))
        for own, other in pairs:
            own.data, other.data = other.data, own.data

    def _measure_norms(self, forwards: Forwards) -> None:
        if self._measured_at != self.num_averaged:
            measure_norms(self.model, forwards)
            self._measured_at = self.num_averaged


def measure_norms(model: PreTrainedModel, forwards: Forwards) -> None:
    """Set the running statistics of every norm to those of the rows (R, D) that enter it, of all processes.

    Each turn of ``forwards()`` runs the model once; dropout is off, and torch's random state is left as it was.
    """
    norms = [module for module in model.modules() if getattr(module, "running_mean", None) is not None]
    if not norms:
        return
    sums = {norm: torch.zeros(3, len(norm.running_mean), dtype=torch.float64) for norm in norms}

    def add(norm: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        rows = arguments[0].detach().double()
        sums[norm] += torch.stack(
            [torch.full_like(rows[0:1].sum(0), len(rows)), rows.sum(0), rows.square().sum(0)]
        ).cpu()

    handles = [norm.register_forward_pre_hook(add) for norm in norms]
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), torch.random.fork_rng():
            for _ in forwards():
                pass
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    for norm in norms:
        count, total, squares = _over_processes(sums[norm].to(norm.running_mean.device))
        mean = total / count
        norm.running_mean.copy_(mean)
        norm.running_var.copy_((squares - count * mean.square()).clamp(min=0) / (count - 1).clamp(min=1))


def _over_processes(values: Tensor) -> Tensor:
    if dist.is_available() and dist.is_initialized():
        dist.all_reduce(values)
    return values
