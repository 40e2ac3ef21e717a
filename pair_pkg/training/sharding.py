"""Weights divided over processes by FSDP or DeepSpeed: whether a run has such, and what it needs in place of theirs."""

import logging
import os
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator, DistributedType, PartialState
from accelerate.utils import FullyShardedDataParallelPlugin, parse_flag_from_env
from torch import Tensor, nn
from torch.distributed.fsdp import MixedPrecisionPolicy, StateDictType, fully_shard
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, TrainingArguments

from pair_pkg.errors import InputError
from pair_pkg.modeling.layers import encoder_layers

logger = logging.getLogger("pair_pkg")

OWNER = "divided_by"  # its name in a run's identity


def is_sharded(args: TrainingArguments) -> bool:
    """Whether FSDP or DeepSpeed hold the weights or the optimizer's state, by flag or by ``accelerate launch``."""
    return state_owner(args) is not None


def state_owner(args: TrainingArguments) -> str | None:
    """Who holds the optimizer's state in parts and alone can read it again: FSDP, DeepSpeed, or None."""
    if wants_fsdp(args):
        return "FSDP"
    return "DeepSpeed" if args.deepspeed or parse_flag_from_env("ACCELERATE_USE_DEEPSPEED") else None


def refuse_other_owner(checkpoint: str, identity: dict[str, Any], args: TrainingArguments) -> None:
    """Refuse a checkpoint whose optimizer state would be passed over. Raises ``InputError``."""
    there, here = identity.get(OWNER), state_owner(args)
    if there != here:
        raise InputError(
            f"{checkpoint}: its optimizer state was written by {there or 'a plain run'} and cannot be read by "
            f"{here or 'a plain run'}; go on as before, or start from its model in another --output_dir"
        )


def has_divided_weights(args: TrainingArguments) -> bool:
    """Whether weights are divided over processes, as the flags or ``accelerate launch`` (its variables) say."""
    if wants_fsdp(args):
        return True
    if args.deepspeed:
        return args.hf_deepspeed_config.is_zero3()
    with_deepspeed = parse_flag_from_env("ACCELERATE_USE_DEEPSPEED")
    return with_deepspeed and os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE") == "3"


def wants_fsdp(args: TrainingArguments) -> bool:
    """Whether FSDP was asked for, by flag or by ``accelerate launch``."""
    return bool(args.fsdp) or parse_flag_from_env("ACCELERATE_USE_FSDP")


def set_up_fsdp(accelerator: Accelerator, args: TrainingArguments) -> None:
    """Complete what ``accelerator`` knows of FSDP, which was asked for. Raises ``InputError`` where it cannot run."""
    if args.world_size == 1:
        raise InputError(
            "FSDP divides weights between processes, and there is one; start several with torchrun or accelerate "
            "launch --num_processes, or leave --fsdp out"
        )
    if getattr(accelerator.state, "fsdp_plugin", None) is None:
        _bring_fsdp_to_cpu(accelerator, args)
    plugin = accelerator.state.fsdp_plugin
    refused = {
        "version 1": (plugin.fsdp_version != 2, "take fsdp_version 2"),
        "its own activation checkpointing": (plugin.activation_checkpointing, "take --gradient_checkpointing"),
        "cpu_ram_efficient_loading": (plugin.cpu_ram_efficient_loading, "every process reads the weights; set false"),
        f"{plugin.state_dict_type}": (
            plugin.state_dict_type != StateDictType.FULL_STATE_DICT,
            "the run's folder would hold no model; take FULL_STATE_DICT",
        ),
    }
    for what, (is_asked, cure) in refused.items():
        if is_asked:
            raise InputError(f"FSDP with {what} is not supported: {cure}")
    if plugin.transformer_cls_names_to_wrap or plugin.min_num_params:
        logger.warning("FSDP: each layer of the encoder is a unit; what the configuration says of units is passed over")
    plugin.auto_wrap_policy = None


def divide_weights(model: PreTrainedModel, accelerator: Accelerator) -> None:
    """Divide a model's weights between the processes, in place; a layer's are gathered when it runs.

    What lies around the layers is one unit, for a head shares its matrix with the embeddings and its bias with
    itself, and torch (2.13) refuses weights that two units share. That is why accelerate's own division (1.15), which
    makes units of the embeddings and of the head's matrix, ends with an error on a BERT; it leaves a model alone that
    is divided.
    """
    plugin = accelerator.state.fsdp_plugin
    policies = {
        "mp_policy": plugin.mixed_precision_policy or MixedPrecisionPolicy(),
        "offload_policy": plugin.cpu_offload,
    }
    for layer in encoder_layers(model):
        fully_shard(layer, reshard_after_forward=plugin.reshard_after_forward, **policies)
    fully_shard(model, **policies)


def _bring_fsdp_to_cpu(accelerator: Accelerator, args: TrainingArguments) -> None:
    """Have ``accelerator`` divide weights between the processes of a CPU too.

    torch's ``fully_shard`` works over gloo, but accelerate (1.15, ``AcceleratorState``) knows FSDP for processes with
    a GPU or the like only: on a CPU it leaves the plugin out without a word and trains by DDP. Its places are filled
    here as it fills them on a GPU.
    """
    if torch.accelerator.is_available():  # torch would divide the weights between the GPUs all the same
        raise InputError("--use_cpu beside FSDP needs the GPUs hidden; set CUDA_VISIBLE_DEVICES to nothing")
    plugin = FullyShardedDataParallelPlugin(**(getattr(args, "fsdp_plugin_args", None) or {}))  # else its variables
    if accelerator.mixed_precision != "no":
        plugin.set_mixed_precision(accelerator.mixed_precision)
    accelerator.state.fsdp_plugin = plugin
    accelerator.state.distributed_type = DistributedType.FSDP
    PartialState._shared_state["distributed_type"] = DistributedType.FSDP


def find_broken_weight(model: nn.Module) -> str | None:
    """The name of the first weight that holds NaN or infinity, or None: the same on every process."""
    names, finite = [], []
    is_divided = False
    for name, weight in model.named_parameters():
        is_divided = is_divided or isinstance(weight, DTensor)
        names.append(name)
        finite.append(torch.isfinite(_own_part(weight)).all())
    all_finite = torch.stack(finite).to(torch.int32)
    if is_divided:  # each process looked at its own part
        dist.all_reduce(all_finite, dist.ReduceOp.MIN)
    return next((name for name, is_finite in zip(names, all_finite.tolist()) if not is_finite), None)


def untied(weights: dict[str, Tensor], model: PreTrainedModel) -> dict[str, Tensor]:
    """Gathered weights of a model as its file holds them: those that are tied to others are not written twice."""
    return {name: values for name, values in weights.items() if name not in model.all_tied_weights_keys}


def _own_part(weight: Tensor) -> Tensor:
    return weight.to_local() if isinstance(weight, DTensor) else weight
