"""What a checkpoint must hold and must not, looked at before any loader reads it."""

import re
from pathlib import Path
from typing import Any

from transformers.utils import cached_file

from pair_pkg.errors import InputError
from pair_pkg.records import read_json

TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
SHARD_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin", *SHARD_INDEXES)

HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")
# A string there may be a Hub repository whose kernels would be fetched and run.
IMPLEMENTATION_KEY = re.compile(r"_?\w+_implementation(_\w+)?")


def check_settings(name: str, files: tuple[str, ...], hub: dict[str, Any]) -> None:
    """Refuse JSON ``files`` of a folder or Hub repository that are broken, name no architecture, or name code.

    transformers would fetch and run what ``auto_map`` or an ``..._implementation`` names. An absent file passes.
    Raises ``InputError``, also where ``name`` can be neither a folder nor a name on the Hub.
    """
    if Path(name).is_file():
        raise InputError(f"{name}: is a file; give the folder of the checkpoint")
    if not Path(name).exists() and not HUB_NAME.fullmatch(name):
        raise InputError(f"{name}: no such folder; check the spelling and the working directory")
    for file in files:
        path = cached_file(name, file, _raise_exceptions_for_missing_entries=False, **hub)
        if path is None:
            continue
        place, settings = f"{name}/{file}", read_settings(path, f"{name}/{file}")
        _refuse_code_keys(place, settings)
        if file == "config.json" and "model_type" not in settings:  # as the first BERTs were published
            raise InputError(f'{place}: names no model_type; add one, such as "model_type": "bert"')


def refuse_without_tokenizer(name: str) -> None:
    """Raise ``InputError`` for a folder that has no vocabulary: transformers would make one of special tokens only."""
    if Path(name).is_dir() and not any(Path(name, file).is_file() for file in TOKENIZER_FILES):
        raise InputError(f"{name}: holds no tokenizer (none of {', '.join(TOKENIZER_FILES)}); give --tokenizer_name")


def refuse_without_config(name: str) -> None:
    """Raise ``InputError`` for a folder without a configuration."""
    if Path(name).is_dir() and not Path(name, "config.json").is_file():
        raise InputError(f"{name}: holds no config.json; give the folder of a whole checkpoint")


def refuse_without_weights(name: str) -> None:
    """Raise ``InputError`` for a folder that has no weights, or whose index names weights in another folder."""
    if not Path(name).is_dir():
        return
    if not any(Path(name, file).is_file() for file in WEIGHT_FILES):
        raise InputError(f"{name}: holds no weights (none of {', '.join(WEIGHT_FILES)}); give a whole checkpoint")
    for file in SHARD_INDEXES:
        path = Path(name, file)
        if path.is_file():
            shards = read_settings(path, str(path)).get("weight_map")
            plain = isinstance(shards, dict) and all(map(_is_plain, shards.values()))
            if not plain:
                raise InputError(f"{path}: does not name weights in its own folder; give a whole checkpoint")


def _is_plain(shard: object) -> bool:
    """Whether the name of a file leads to no other folder."""
    return isinstance(shard, str) and shard not in ("", ".", "..") and Path(shard).name == shard


def read_settings(path: str | Path, place: str) -> dict[str, Any]:
    """The JSON object of a checkpoint's file. Raises ``InputError``, which names it ``place``."""
    value = read_json(path, "fetch the file again")
    if not isinstance(value, dict):
        raise InputError(f"{place}: holds a {type(value).__name__}, not an object; fetch the file again")
    return value


def _refuse_code_keys(place: str, settings: dict[str, Any]) -> None:
    for key, value in settings.items():
        names_code = key == "auto_map" or (IMPLEMENTATION_KEY.fullmatch(key) and isinstance(value, str))
        if names_code and value:
            raise InputError(
                f"{place}: {key} names code ({value!r:.80}), and code from a checkpoint is never run; take a model "
                f"of a built-in architecture, or delete {key} if it is one"
            )
        if isinstance(value, dict):
            _refuse_code_keys(f"{place}: {key}", value)
