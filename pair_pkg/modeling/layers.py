"""The layers of an encoder: how deep each weight lies, layers that are frozen, layers that are drawn anew."""

from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from pair_pkg.errors import InputError


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The layers of the encoder inside a model of transformers, the lowest first. Raises ``InputError``."""
    base = model.base_model
    num_layers = getattr(base.config, "num_hidden_layers", None)
    for module in base.modules():
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return module
    raise InputError(
        f"{type(base).__name__}: its layers are not known here; leave out --layer_decay, --freeze_layers, "
        "--reinit_layers and --lora_rank"
    )


def parameter_depths(model: PreTrainedModel) -> dict[str, int]:
    """How deep each parameter lies: 0 embeddings, 1 to L the layers, L + 1 what stands on them (pooler, head).

    A prediction head's matrix that is tied to the embeddings is one parameter, at depth 0.
    """
    layers = encoder_layers(model)
    depth_of = {parameter: depth for depth, layer in enumerate(layers, 1) for parameter in layer.parameters()}
    return {
        name: depth_of.get(parameter, 0 if "embeddings" in name else len(layers) + 1)
        for name, parameter in model.named_parameters()
    }


def freeze_layers(model: PreTrainedModel, num_layers: int) -> None:
    """Stop the embeddings and the first ``num_layers`` layers from learning, in place.

    Autograd ends above them, so they cost no backward pass. Raises ``InputError`` for more layers than there are, and
    where nothing would be left to learn.
    """
    _refuse_more_layers(model, "--freeze_layers", num_layers)
    depths = parameter_depths(model)
    for name, parameter in model.named_parameters():
        if depths[name] <= num_layers:
            parameter.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(f"--freeze_layers {num_layers}: nothing is left to learn; freeze fewer")


def reinit_layers(model: PreTrainedModel, num_layers: int, seed: int) -> None:
    """Draw the top ``num_layers`` layers anew, and the pooler above them, in place, as for a new model of the class.

    Equal seeds draw equal weights; torch's own random state stays. Zhang et al. (2021): the top layers hold most of
    what is special to pretraining, the pooler of BERT too. Raises ``InputError`` for more layers than there are.
    """
    _refuse_more_layers(model, "--reinit_layers", num_layers)
    layers = encoder_layers(model)
    parts = list(layers[len(layers) - num_layers :])
    pooler = getattr(model.base_model, "pooler", None)
    if num_layers and pooler is not None:
        parts.append(pooler)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for part in parts:
            for values in (*part.parameters(), *part.buffers()):
                cast(Any, values)._is_hf_initialized = False  # the library's mark of weights that its draws pass over
            part.apply(model._init_weights)


def _refuse_more_layers(model: PreTrainedModel, flag: str, num_layers: int) -> None:
    there = len(encoder_layers(model))
    if num_layers > there:
        raise InputError(
            f"{flag} {num_layers}: {type(model.base_model).__name__} has {there} layers; give {there} at most"
        )
