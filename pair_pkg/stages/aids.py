"""From the flags of ``LayerArguments`` and ``AidArguments`` to a model's layers and what its trainer is given."""

import functools
import logging
from typing import Any

import torch
from transformers import PreTrainedModel, TrainingArguments

from pair_pkg.errors import InputError
from pair_pkg.modeling.adapters import Adapters
from pair_pkg.modeling.layers import encoder_layers, freeze_layers, parameter_depths, reinit_layers
from pair_pkg.modeling.loading import HIDDEN_DROPOUTS
from pair_pkg.pairs.embedding_loss import CACHED_RANKING, RANKING
from pair_pkg.stages.arguments.aids import AidArguments, LayerArguments
from pair_pkg.stages.arguments.architecture import CROSS_ENCODER, ArchitectureArguments
from pair_pkg.training.adversarial import AdversarialEmbeddings
from pair_pkg.training.averaging import WeightAveraging
from pair_pkg.training.layer_rates import describe_rates, split_by_depth
from pair_pkg.training.sharding import is_sharded
from pair_pkg.training.weights import ResultWeights

logger = logging.getLogger("pair_pkg")

NO_AIDS = AidArguments()
SHARDED = ("layer_decay", "lora_rank", "fgm_epsilon", "weight_averaging")  # they meet weights one by one, and whole


def add_aids(
    model: PreTrainedModel,
    args: TrainingArguments,
    layers: LayerArguments,
    aids: AidArguments = NO_AIDS,
    temporary: str | None = None,
) -> dict[str, Any]:
    """Change the layers of a loaded model as the flags say, in place, and return what ``StageTrainer`` is to be given.

    ``temporary`` names a module of the model that serves training only. What is drawn is drawn from ``--seed``.
    Raises ``InputError``.
    """
    given = layers.given() | aids.given()
    _refuse_sharded(args, given)
    _refuse_random_frozen(model, layers, aids)
    if aids.reinit_layers is not None:
        reinit_layers(model, aids.reinit_layers, args.seed)
    if layers.freeze_layers is not None:
        freeze_layers(model, layers.freeze_layers)
    adapters = None
    if layers.lora_rank is not None:
        torch.manual_seed(args.seed)
        adapters = Adapters(model, layers.lora_rank, given["lora_alpha"], given["lora_dropout"])
    if aids.rdrop_alpha is not None:
        _refuse_without_dropout(model, given.get("lora_dropout", 0.0))
    average = aids.weight_averaging != "none"
    averaging = WeightAveraging(model, aids.weight_averaging, given.get("ema_decay", 0.0)) if average else None
    return {
        "adversary": None if aids.fgm_epsilon is None else AdversarialEmbeddings(aids.fgm_epsilon),
        "weights": ResultWeights(model, averaging, adapters, temporary),
        "divide_groups": None if layers.layer_decay is None else _divide_groups(model, layers.layer_decay, args),
    }


def refuse_misfits(
    architecture: ArchitectureArguments, layers: LayerArguments, aids: AidArguments, args: TrainingArguments
) -> None:
    """Refuse aids that do not go together or with the architecture, as far as flags alone tell it."""
    if architecture.head_norm == "batch" and is_sharded(args):
        raise InputError("--head_norm batch is folded into whole weights; leave it out, or FSDP and DeepSpeed")
    if aids.rdrop_alpha is not None and architecture.architecture != CROSS_ENCODER:
        raise InputError(
            "--rdrop_alpha compares predictions of a cross_encoder; two draws of one text's vector are another loss "
            "(SimCSE): leave it out"
        )
    if aids.fgm_epsilon is not None and architecture.loss == CACHED_RANKING:
        raise InputError(
            f"--fgm_epsilon needs the activations that --loss {CACHED_RANKING} throws away; take {RANKING}"
        )
    if aids.reinit_layers is not None and layers.lora_rank is not None:
        raise InputError("--reinit_layers draws weights that --lora_rank would not let learn; leave out one of the two")


def _divide_groups(model: PreTrainedModel, decay: float, args: TrainingArguments) -> functools.partial:
    depths = parameter_depths(model)
    depth_of = {parameter: depths[name] for name, parameter in model.named_parameters()}
    return functools.partial(_divide_and_tell, depth_of=depth_of, decay=decay, tell=args.should_log)


def _divide_and_tell(groups: list[dict[str, Any]], *, tell: bool, **settings: Any) -> list[dict[str, Any]]:
    divided = split_by_depth(groups, **settings)
    if tell:
        logger.info("learning rates: %s", describe_rates(divided, settings["depth_of"]))
    return divided


def _refuse_sharded(args: TrainingArguments, given: dict[str, Any]) -> None:
    found = next((flag for flag in SHARDED if flag in given), None)
    if found and is_sharded(args):
        raise InputError(f"--{found} needs whole weights; leave it out, or do without FSDP and DeepSpeed")


def _refuse_random_frozen(model: PreTrainedModel, layers: LayerArguments, aids: AidArguments) -> None:
    """Layers that are drawn anew have to learn."""
    if aids.reinit_layers is None or layers.freeze_layers is None:
        return
    there = len(encoder_layers(model))
    if layers.freeze_layers + aids.reinit_layers > there:
        raise InputError(
            f"--freeze_layers {layers.freeze_layers} and --reinit_layers {aids.reinit_layers} meet in an encoder of "
            f"{there} layers: random weights would not learn; lower one of the two"
        )


def _refuse_without_dropout(model: PreTrainedModel, lora_dropout: float) -> None:
    hidden = [getattr(model.config, name, None) or 0.0 for name in HIDDEN_DROPOUTS]
    if not any((*hidden, model.attention_dropout, lora_dropout)):
        raise InputError(
            "--rdrop_alpha compares dropout draws, and this model draws none; give --hidden_dropout_prob 0.1"
        )
