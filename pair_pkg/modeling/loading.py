"""Checkpoints and tokenizers, from a folder or the Hub, refused with the cure where they are not whole."""

import importlib.util
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

from pair_pkg.errors import InputError, one_line
from pair_pkg.modeling.sources import (
    check_settings,
    refuse_without_config,
    refuse_without_tokenizer,
    refuse_without_weights,
)

logger = logging.getLogger("pair_pkg")

MAX_UNKNOWN_FRACTION = 0.05  # of all tokens: above it most models learn the unknown token, not the domain

# Names that the architectures give to one thing.
HIDDEN_DROPOUTS = ("hidden_dropout_prob", "hidden_dropout", "dropout", "mlp_dropout", "embedding_dropout")
ATTENTION_DROPOUTS = ("attention_probs_dropout_prob", "attention_dropout")


def resolve_package(name: str | None) -> str | None:
    """Turn ``package:NAME/FOLDER`` into the folder inside an installed Python package; other names stay as they are.

    Raises ``InputError`` where the package is not installed or has no such folder.
    """
    if not name or not name.startswith("package:"):
        return name
    package, _, folder = name.removeprefix("package:").partition("/")
    spec = importlib.util.find_spec(package) if package.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{name}: no package {package} is installed; install it with pip, or give a folder")
    path = Path(spec.submodule_search_locations[0], folder)
    if not path.is_dir():
        raise InputError(f"{name}: the package has no folder {folder}; check the name")
    return str(path)


def load_tokenizer(name: str, **hub: Any) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a folder or Hub repository. Raises ``InputError`` where there is none or it is empty."""
    refuse_without_tokenizer(name)
    load_or_refuse(name, "tokenizer", lambda: check_settings(name, ("config.json", "tokenizer_config.json"), hub))
    load = lambda: AutoTokenizer.from_pretrained(name, use_fast=True, trust_remote_code=False, **hub)  # noqa: E731
    tokenizer = load_or_refuse(name, "tokenizer", load)
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise InputError(f"{name}: {type(tokenizer).__name__} has no fast version; save one as tokenizer.json")
    if len(tokenizer) <= len(tokenizer.all_special_ids):
        raise InputError(f"{name}: the tokenizer holds special tokens only; its vocabulary file was not read")
    unknown = getattr(tokenizer.backend_tokenizer.model, "unk_token", None)
    if unknown and unknown not in tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False):
        raise InputError(f"{name}: the vocabulary lacks its own unknown token {unknown}; fetch its file again")
    return tokenizer


def load_config(name: str, **hub: Any) -> PreTrainedConfig:
    """The configuration of a folder or Hub repository. Raises ``InputError`` where it is broken or names code."""
    refuse_without_config(name)
    load_or_refuse(name, "config.json", lambda: check_settings(name, ("config.json",), hub))
    return load_or_refuse(name, "config.json", lambda: AutoConfig.from_pretrained(name, trust_remote_code=False, **hub))


def load_model(
    auto_class: Any, name: str, config: PreTrainedConfig, head_may_be_new: bool = True, **hub: Any
) -> PreTrainedModel:
    """A model with a head, or the bare encoder, whole and finite, in float32.

    ``auto_class`` is ``AutoModel`` or one of transformers' ``AutoModelFor...``. A head that is missing, or of another
    number of outputs, is drawn anew where it may be. Pickles are read with ``weights_only``. Raises ``InputError`` for
    missing, broken or foreign weights.
    """
    refuse_without_weights(name)
    if type(config) not in auto_class._model_mapping:
        kind = auto_class.__name__.removeprefix("AutoModelFor")
        raise InputError(
            f"{name}: a {config.model_type} model is none for {kind}; take an encoder such as bert, roberta, modernbert"
        )
    load = lambda: auto_class.from_pretrained(  # noqa: E731
        name,
        config=config,
        dtype=torch.float32,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # judged below, where the encoder and the head are told apart
        trust_remote_code=False,
        **hub,
    )
    model, info = load_or_refuse(name, "model", load)
    _refuse_misfits(name, model, info)
    _judge_missing(name, model, info, head_may_be_new)
    for parameter_name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise InputError(f"{name}: the weights {parameter_name} hold NaN or infinity; take an earlier checkpoint")
    return model


def load_or_refuse(name: str, what: str, load: Callable[[], Any]) -> Any:
    """What a loader of transformers or sentence-transformers gives; its load report is ours to judge.

    Raises ``InputError`` where it fails: one line in place of whatever it raises about the files of ``name``.
    """
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        return load()
    except InputError:
        raise
    except pickle.UnpicklingError as error:  # its own text recommends to switch the protection off
        raise InputError(
            f"{name}: the {what} is a damaged pickle, or one that would run code, which is never done; "
            "fetch it again, or take its safetensors"
        ) from error
    except Exception as error:  # only the library's code runs here, and on a broken file it raises anything at all
        reason = one_line(str(error))[:300]
        cure = "fetch its files again" if Path(name).exists() else "check the name, or the network and --token"
        raise InputError(f"{name}: the {what} cannot be loaded ({type(error).__name__}: {reason}); {cure}") from error
    finally:
        transformers_logging.set_verbosity(verbosity)


def carry_pooler(model: PreTrainedModel, name: str, **hub: Any) -> bool:
    """Give a masked-language model the pooler that its checkpoint holds, frozen, so that its own checkpoints keep it.

    transformers' masked-language models drop the pooler, and a classifier started from them would begin with a
    random one. Says whether there was one to carry.
    """
    if getattr(model.base_model, "pooler", nn.Identity()) is not None:
        return False  # the architecture has none, or has it anyway
    load = lambda: AutoModel.from_pretrained(  # noqa: E731
        name, config=model.config, output_loading_info=True, trust_remote_code=False, **hub
    )
    base, info = load_or_refuse(name, "model", load)
    if any("pooler" in key for key in info["missing_keys"]) or getattr(base, "pooler", None) is None:
        return False
    model.base_model.pooler = base.pooler.float().requires_grad_(False)
    return True


def check_vocabulary(tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, needs_mask: bool) -> None:
    """Refuse a tokenizer that does not fit the model. Raises ``InputError``."""
    largest = max(tokenizer.get_vocab().values())
    if largest >= config.vocab_size:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer's ids go up to {largest}, the model has {config.vocab_size} "
            "embeddings; give the model's own tokenizer with --tokenizer_name"
        )
    if needs_mask and tokenizer.mask_token_id is None:
        raise InputError(
            f"{tokenizer.name_or_path}: the tokenizer has no mask token; give the tokenizer of a masked-language model"
        )
    if tokenizer.pad_token_id is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no padding token; add pad_token to its config")


def check_unknown_fraction(unknown: int, tokens: int, tokenizer_name: str) -> None:
    """Refuse texts whose tokens are too often unknown to the tokenizer. Raises ``InputError``."""
    if tokens and unknown / tokens > MAX_UNKNOWN_FRACTION:
        raise InputError(
            f"{tokenizer_name}: {unknown:,} of {tokens:,} tokens ({unknown / tokens:.1%}) are unknown to it, "
            f"more than {MAX_UNKNOWN_FRACTION:.0%}; take a model of the text's language, or check --encoding"
        )


def max_positions(config: PreTrainedConfig) -> int | None:
    """Longest input that the model has positions for; None where there is no limit."""
    positions = getattr(config, "max_position_embeddings", None)
    counts_from_padding = config.model_type in ("roberta", "xlm-roberta", "camembert", "xlm-roberta-xl")
    return positions - config.pad_token_id - 1 if positions and counts_from_padding else positions


def check_max_seq_length(max_seq_length: int | None, config: PreTrainedConfig, num_special: int, default: int) -> int:
    """The input length to use: what was asked for if the model can, else ``default`` cut to the model's positions."""
    positions = max_positions(config)
    if max_seq_length is None:
        return min(default, positions or default)
    if positions and max_seq_length > positions:
        raise InputError(f"--max_seq_length {max_seq_length} is more than the model's {positions} positions; lower it")
    if max_seq_length <= num_special:
        raise InputError(
            f"--max_seq_length {max_seq_length} leaves no room beside {num_special} special tokens; raise it"
        )
    return max_seq_length


def set_dropout(config: PreTrainedConfig, hidden: float | None, attention: float | None) -> None:
    """Write the dropout probabilities that were given into a configuration, under its architecture's own names."""
    for flag, probability, names in (
        ("--hidden_dropout_prob", hidden, HIDDEN_DROPOUTS),
        ("--attention_probs_dropout_prob", attention, ATTENTION_DROPOUTS),
    ):
        if probability is None:
            continue
        if not 0 <= probability < 1:
            raise InputError(f"{flag} {probability} is no probability; give 0 <= p < 1")
        known = [name for name in names if hasattr(config, name)]
        if not known:
            raise InputError(f"{flag}: a {config.model_type} model has no such dropout; leave the flag out")
        for name in known:
            setattr(config, name, probability)


def _refuse_misfits(name: str, model: PreTrainedModel, info: dict[str, Any]) -> None:
    """Refuse encoder weights that are of another size than config.json says, or that it has no place for."""
    prefix = _encoder_prefix(model)
    for key, found, expected in sorted(info["mismatched_keys"]):
        if key.startswith(prefix):
            raise InputError(
                f"{name}: {key} is {tuple(found)} in the weights and {tuple(expected)} by config.json; "
                "the two are of different models, give a whole checkpoint"
            )
    inside = {model.base_model_prefix, *(name for name, _ in model.base_model.named_children())} - {"pooler"}
    surplus = sorted(
        key
        for key in info["unexpected_keys"]
        if key.split(".")[0] in inside and key.endswith((".weight", ".bias")) and ".pooler." not in key
    )
    if surplus:
        raise InputError(
            f"{name}: {len(surplus)} encoder weights have no place in the model of config.json, such as {surplus[0]}; "
            "the two are of different models, give a whole checkpoint"
        )


def _judge_missing(name: str, model: PreTrainedModel, info: dict[str, Any], head_may_be_new: bool) -> None:
    """Refuse a checkpoint that lacks encoder weights: transformers would fill them with random numbers."""
    new = {*info["missing_keys"], *(key for key, _, _ in info["mismatched_keys"])}
    inside = {key for key, _ in model.base_model.named_parameters(prefix=_encoder_prefix(model).rstrip("."))}
    holes = sorted(key for key in new if key in inside and "pooler" not in key)
    heads = sorted(new.difference(holes))
    if holes:
        raise InputError(
            f"{name}: {len(holes)} encoder weights are missing, such as {holes[0]}; the checkpoint is of another "
            "architecture than its config.json says, or damaged"
        )
    if heads and not head_may_be_new:
        raise InputError(f"{name}: the head's weights {heads[0]} are missing; give a fine-tuned checkpoint")
    if heads:
        logger.info("%s: the head is new (%d tensors, %s among them)", name, len(heads), heads[0])


def _encoder_prefix(model: PreTrainedModel) -> str:
    """What the names of the encoder's weights begin with; nothing where the model is the bare encoder."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."
