"""Low-rank adapters (LoRA, Hu et al., 2021) by peft, inside the stock model, and merged into it at the end."""

from typing import Any, cast

import torch
from peft import LoraConfig, LoraModel
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from pair_pkg.modeling.layers import encoder_layers, parameter_depths

BASE_LAYER = ".base_layer"  # where peft puts the layer that it wraps
ADAPTER_PARTS = (".lora_A.", ".lora_B.")


class Adapters:
    """LoRA on every linear map of an encoder's layers, put into ``model`` in place; its class and forward stay.

    All linear maps and not only queries and values: with few ranks that is what reaches full fine-tuning (Dettmers et
    al., 2023). Embeddings and layers are frozen but for the adapters; what stands on them learns as it did before.
    The adapters begin as the identity, and their draws come from torch's random state.
    """

    def __init__(self, model: PreTrainedModel, rank: int, alpha: float, dropout: float):
        depths = parameter_depths(model)
        num_layers = len(encoder_layers(model))
        learning_head = [
            parameter
            for name, parameter in model.named_parameters()
            if depths[name] > num_layers and parameter.requires_grad
        ]
        config = LoraConfig(
            r=rank, lora_alpha=cast(int, alpha), lora_dropout=dropout, target_modules=_linear_names(model)
        )
        self._tuner = LoraModel(model, config, "default")
        for parameter in learning_head:
            parameter.requires_grad_(True)  # peft freezes all but its own

    def merged_state_dict(self) -> dict[str, Tensor]:
        """The weights of the plain model that the adapters amount to, under its own names; nothing is changed."""
        model = self._tuner.model
        merged = {}
        for name, layer in model.named_modules():
            if isinstance(layer, LoraLayer):
                lora = cast(Any, layer)  # peft's base class declares neither of the two
                merged[f"{name}.weight"] = (
                    lora.get_base_layer().weight.detach() + lora.get_delta_weight("default").detach()
                )
        plain = {
            name.replace(BASE_LAYER, ""): values
            for name, values in model.state_dict().items()
            if not any(part in name for part in ADAPTER_PARTS)
        }
        return {**plain, **merged}

    def merge(self) -> None:
        """Make the model plain again, its weights those of ``merged_state_dict``; the adapters are gone."""
        with torch.no_grad():
            self._tuner.merge_and_unload()


def _linear_names(model: PreTrainedModel) -> list[str]:
    """Full names of the linear maps inside the encoder's layers."""
    inside = {module for layer in encoder_layers(model) for module in layer.modules()}
    return [name for name, module in model.named_modules() if module in inside and isinstance(module, nn.Linear)]
