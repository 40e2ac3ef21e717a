"""A pull back to the weights that training began with: L2-SP (Li, Grandvalet and Davoine, 2018)."""

from typing import Any

from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback

from pair_pkg.modeling.base_weights import BaseWeights


class PullToBase(TrainerCallback):
    """Adds the gradient of ``strength`` / 2 |w - w0|^2 over the encoder's weights to that of the loss.

    Once in a step, behind clipping and on every process alike, so it is the same sum however a step is cut into
    batches and processes; the logged loss is without it. A frozen weight is not pulled.
    """

    def __init__(self, base: BaseWeights, strength: float):
        self.base = base
        self.strength = strength
        self._pairs: list[tuple[nn.Parameter, Tensor]] | None = None

    def on_pre_optimizer_step(self, args, state, control, model: PreTrainedModel, **settings: Any) -> None:
        if self._pairs is None:  # only now is the model where it is trained
            self._pairs = [(parameter, then.to(parameter.device)) for parameter, then in self.base.of_encoder(model)]
        for parameter, then in self._pairs:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.detach() - then, alpha=self.strength)
