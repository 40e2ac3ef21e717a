"""The weights that training began with: how far they have moved, and models between the two."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from pair_pkg.errors import InputError
from pair_pkg.modeling.layers import encoder_layers, parameter_depths


class BaseWeights:
    """A copy of a model's weights as they are now, in memory of the processor."""

    def __init__(self, model: PreTrainedModel):
        self._weights = {name: values.detach().cpu().clone() for name, values in model.named_parameters()}
        self._prefix = "" if model.base_model is model else f"{model.base_model_prefix}."

    def of_encoder(self, model: PreTrainedModel) -> Iterator[tuple[nn.Parameter, Tensor]]:
        """Each weight of the encoder with what it was; a head on it may be new, and has nothing to go back to."""
        for name, parameter in model.named_parameters():
            if name.startswith(self._prefix):
                yield parameter, self._weights[name]

    def movement(self, model: PreTrainedModel) -> dict[str, float]:
        """How far each part has moved, as a share of its own length: |now - then| / |then|, by layer.

        ``embeddings``, ``layer 1`` to ``layer L``, ``head`` (pooler and prediction head); what has no weights is left
        out. A model whose layers are not known is one part, ``model``.
        """
        part_of = _parts(model)
        sums: dict[str, list[float]] = {}
        for name, parameter in model.named_parameters():
            then = self._weights[name].double()
            moved = (parameter.detach().cpu().double() - then).square().sum().item()
            part = sums.setdefault(part_of[name], [0.0, 0.0])
            part[0] += moved
            part[1] += then.square().sum().item()
        return {part: (moved / length) ** 0.5 for part, (moved, length) in sums.items() if length}

    def interpolate(self, model: PreTrainedModel, adapted: "BaseWeights", alpha: float) -> None:
        """Put the encoder's weights between these (0) and ``adapted`` (1), in place; the head is the adapted one."""
        with torch.no_grad():
            for (parameter, then), (_, now) in zip(self.of_encoder(model), adapted.of_encoder(model)):
                parameter.copy_(then.lerp(now, alpha))


def _parts(model: PreTrainedModel) -> dict[str, str]:
    """What each parameter is part of."""
    try:
        depths, num_layers = parameter_depths(model), len(encoder_layers(model))
    except InputError:
        return {name: "model" for name, _ in model.named_parameters()}
    names = {0: "embeddings", num_layers + 1: "head"}
    return {name: names.get(depth, f"layer {depth}") for name, depth in depths.items()}
