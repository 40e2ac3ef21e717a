"""Sentence encoders on disk, in the format of sentence-transformers: ``SentenceTransformer(folder)`` reads ours."""

from pathlib import Path, PurePosixPath
from typing import Any, cast

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    Dense,
    Normalize,
    Pooling,
    Transformer,
    WeightedLayerPooling,
)
from torch import Tensor, nn
from transformers.utils import cached_file

from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import POOLINGS, SentenceEncoder
from pair_pkg.modeling.loading import load_config, load_or_refuse, load_tokenizer
from pair_pkg.modeling.sources import read_settings, refuse_without_weights
from pair_pkg.records import WEIGHT_SUFFIXES, fingerprint_files, read_json

RECORDS = ("run.json", "decision.json", "results.json", "log_history.json", "trainer_state.json")  # no part of a vector
NO_MODULES = "holds no modules.json; give a bi-encoder's folder, as sentence-transformers writes"
OURS = "sentence_transformers."  # the library's own modules; others would be code from the checkpoint


def save_sentence_encoder(
    encoder: SentenceEncoder, folder: str | Path, weights: dict[str, Tensor] | None = None
) -> None:
    """Write an encoder so that ``SentenceTransformer(folder)`` gives its vectors; its root is a plain checkpoint.

    ``weights`` are those of the model, where they are divided over processes and it does not hold them whole. The
    head must be a linear layer or nothing; where it lives in the model too, the checkpoint is without it.
    """
    # WeightedLayerPooling is fed from the hidden states, and their flag is read from config.json
    encoder.model.config.output_hidden_states = encoder.pooling == "first_last_avg"
    inside = tuple(f"{name}." for name, module in encoder.model.named_modules() if module is encoder.head)
    weights = encoder.model.state_dict() if weights is None else weights
    plain = {name: values for name, values in weights.items() if not name.startswith(inside)}
    encoder.model.save_pretrained(folder, state_dict=plain)
    encoder.tokenizer.save_pretrained(folder)
    transformer = Transformer(str(folder), max_seq_length=encoder.max_seq_length)
    modules = [transformer, *_pooling_modules(encoder)]
    if not isinstance(encoder.head, nn.Identity):
        assert isinstance(encoder.head, nn.Linear), encoder.head
        weight, bias = encoder.head.weight.detach().cpu(), encoder.head.bias.detach().cpu()
        width, out = encoder.head.in_features, encoder.head.out_features
        modules.append(Dense(width, out, activation_function=None, init_weight=weight, init_bias=bias))
    if encoder.normalized:
        modules.append(Normalize())
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)


def is_sentence_folder(name: str, **hub: Any) -> bool:
    """Whether a folder or Hub repository is a sentence-transformers one."""
    return _modules_path(name, hub) is not None


def load_sentence_encoder(name: str, **hub: Any) -> SentenceEncoder:
    """The encoder of a sentence-transformers folder or Hub repository, in float32 on the CPU.

    Raises ``InputError`` for a broken folder, and for modules that ``encode_texts`` would not do justice to.
    """
    load_tokenizer(name, **hub)  # these two refuse what is broken or names code, before the library reads it
    load_config(name, **hub)
    refuse_without_weights(name)
    modules = _modules_path(name, hub)
    if modules is None:
        raise InputError(f"{name}: {NO_MODULES}")
    _refuse_named_functions(name, _read_modules(name, modules), hub)
    library = {"cache_folder": hub.get("cache_dir"), "revision": hub.get("revision"), "token": hub.get("token")}
    library["local_files_only"] = Path(name).is_dir()  # else the library asks the Hub for a folder named runs/bi
    load = lambda: SentenceTransformer(name, device="cpu", model_kwargs={"dtype": torch.float32}, **library)  # noqa: E731
    loaded = load_or_refuse(name, "encoder", load)
    return _encoder_of(name, loaded)


def fingerprint_encoder(name: str, **hub: Any) -> str:
    """A short sha256 over everything that a vector depends on: weights, tokenizer, settings, and those of each module.

    Raises ``InputError`` where there is no modules.json.
    """
    path = _modules_path(name, hub)
    if path is None:
        raise InputError(f"{name}: {NO_MODULES}")
    folder = Path(path).parent
    parts = dict.fromkeys(["", *(module["path"] for module in _read_modules(name, path))])
    there = [folder / part for part in parts if (folder / part).is_dir()]  # one without settings may have none
    files = (file for part in there for file in sorted(part.iterdir()))
    return fingerprint_files(file for file in files if file.suffix in WEIGHT_SUFFIXES and file.name not in RECORDS)


def _read_modules(name: str, path: str) -> list[dict[str, str]]:
    """The modules of a modules.json. Raises ``InputError`` where it is broken, or names code or folders elsewhere."""
    modules = read_json(path, "fetch it again")
    is_list = isinstance(modules, list) and all(isinstance(module, dict) for module in modules)
    if not is_list or not all(isinstance(module.get(key), str) for module in modules for key in ("type", "path")):
        raise InputError(f"{name}: modules.json is no list of modules, each with type and path; fetch it again")
    for module in modules:
        if not module["type"].startswith(OURS):
            raise InputError(
                f"{name}: {module['type']} is no module of sentence-transformers, and no code is run; take another"
            )
        place = PurePosixPath(module["path"])
        if place.is_absolute() or ".." in place.parts:
            raise InputError(f"{name}: modules.json names a module outside its folder ({module['path']}); take another")
    return modules


def _refuse_named_functions(name: str, modules: list[dict[str, str]], hub: dict[str, Any]) -> None:
    """Refuse a dense layer whose activation is another's code; the library would leave it out with a warning."""
    for module in modules:
        file = str(PurePosixPath(module["path"], "config.json"))
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **hub) if module["path"] else None
        function = read_settings(path, f"{name}/{file}").get("activation_function") if path else None
        if function is not None and not str(function).startswith("torch.nn."):
            raise InputError(
                f"{name}/{file}: activation_function {function!r:.80} is code that is not run; take another"
            )


def _modules_path(name: str, hub: dict[str, Any]) -> str | None:
    return cached_file(name, "modules.json", _raise_exceptions_for_missing_entries=False, **hub)


def _pooling_modules(encoder: SentenceEncoder) -> list[nn.Module]:
    width, num_layers = encoder.model.config.hidden_size, encoder.model.config.num_hidden_layers
    if encoder.pooling != "first_last_avg":
        return [Pooling(width, encoder.pooling)]
    weights = torch.zeros(num_layers)
    weights[0] += 1
    weights[-1] += 1
    layers = WeightedLayerPooling(width, num_layers, layer_start=1, layer_weights=nn.Parameter(weights))
    return [layers, Pooling(width, "mean")]


def _encoder_of(name: str, loaded: SentenceTransformer) -> SentenceEncoder:
    transformer, modules = cast(Any, loaded[0]), cast(list[Any], list(loaded)[1:])
    kinds = [type(module) for module in modules]
    supported = kinds in (
        [*layers, Pooling, *dense, *normalize]
        for layers in ([], [WeightedLayerPooling])
        for dense in ([], [Dense])
        for normalize in ([], [Normalize])
    )
    residual = any(getattr(module, "use_residual", False) for module in modules)
    if type(transformer) is not Transformer or not supported or residual or loaded.default_prompt_name:
        shown = ", ".join(kind.__name__ for kind in kinds)
        raise InputError(f"{name}: the modules {shown}, or a prompt, are not served here; take a plainer model")
    pooling = next(module for module in modules if type(module) is Pooling).pooling_mode
    if WeightedLayerPooling in kinds:
        pooling = "first_last_avg" if pooling == "mean" and _is_first_and_last(modules[0]) else None
    if pooling not in POOLINGS:
        raise InputError(f"{name}: its pooling is not served here; take one of {', '.join(POOLINGS)}")
    return SentenceEncoder(
        model=transformer.auto_model,
        tokenizer=transformer.tokenizer,
        pooling=pooling,
        max_seq_length=loaded.max_seq_length,
        head=next((_head(module) for module in modules if type(module) is Dense), nn.Identity()),
        normalized=Normalize in kinds,
    )


def _head(module: Dense) -> nn.Module:
    bare = isinstance(module.activation_function, nn.Identity)
    return module.linear if bare else nn.Sequential(module.linear, cast(nn.Module, module.activation_function))


def _is_first_and_last(module: WeightedLayerPooling) -> bool:
    weights = module.layer_weights
    return module.layer_start == 1 and bool(weights[0] == weights[-1] != 0) and not weights[1:-1].any()
