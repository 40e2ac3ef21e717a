"""What of a model's folder may leave this machine: a list of names, never a whole folder; scanned before it goes.

No pickle, no log, no data, no record with paths: a run's folder holds all of these beside the model.
"""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from pair_pkg.errors import InputError
from pair_pkg.records import RECORD_NAME, read_json, write_json

ALLOWED = (
    "config.json", "generation_config.json", "model.safetensors", "model.safetensors.index.json",
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.txt", "vocab.json", "merges.txt", "sentencepiece.bpe.model", "spiece.model", "tokenizer.model",
    "decision.json", "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json",
    "model-?????-of-?????.safetensors", "[0-9]_[A-Z]*/config.json", "[0-9]_[A-Z]*/model.safetensors",
)  # fmt: skip
TOLD_RECORD = ("status", "stage", "architecture", "labels", "max_seq_length", "settings", "threshold", "written_at")
LOCAL_KEYS = ("_name_or_path", "name_or_path")  # where the libraries keep the folder that a model was loaded from
CARD_NAME = "README.md"
# Shapes of keys that are public knowledge: Hugging Face, GitHub, AWS, OpenAI and others, Google, private keys.
SECRETS = re.compile(
    rb"hf_[A-Za-z0-9]{30,}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_\w{50,}|AKIA[0-9A-Z]{16}|sk-[A-Za-z0-9_-]{32,}"
    rb"|AIza[\w-]{35}|xox[abpr]-[\w-]{20,}|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
PATHS = re.compile(rb"(?:/(?:home|Users|root|tmp|private/var)/|[A-Za-z]:\\\\?Users\\)[^\s\"'<>]*")
MAY_HOLD_PATHS = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")  # as words of a language


def stage_model(model_dir: Path, target: Path, card: str, secrets: tuple[str, ...] = ()) -> list[str]:
    """Copy what may be published of a model's folder into the empty ``target``, with its card; gives the names.

    ``secrets`` are this user's own tokens, looked for in every file beside the shapes of common ones. Raises
    ``InputError`` where the folder holds no whole model, or a file holds a secret or a path of this machine.
    """
    _check_model(model_dir)
    for path in _allowed(model_dir):
        _copy(path, target / path.relative_to(model_dir))
    record_path = model_dir / RECORD_NAME
    if record_path.is_file():
        record = read_json(record_path)
        write_json(target / RECORD_NAME, {name: record[name] for name in TOLD_RECORD if name in record})
    (target / CARD_NAME).write_text(card, encoding="utf-8")
    own_paths = [path for path in (str(model_dir.resolve()), str(Path.home())) if path != "/"]
    staged = sorted(path for path in target.rglob("*") if path.is_file())
    for path in staged:
        _scan(path, str(path.relative_to(target)), secrets, own_paths)
    return [path.relative_to(target).as_posix() for path in staged]


def _check_model(model_dir: Path) -> None:
    if not (model_dir / "config.json").is_file():
        what = "is an ensemble; push one of its fold-N" if (model_dir / "fold-1").is_dir() else "holds no config.json"
        raise InputError(f"{model_dir}: {what}, the folder of one finished model")
    if not any(model_dir.glob("tokenizer.json")):
        raise InputError(f"{model_dir}: holds no tokenizer.json; a model without its tokenizer cannot be used")
    weights = [path for path in _allowed(model_dir) if path.suffix == ".safetensors"]
    if not any(path.parent == model_dir for path in weights):
        raise InputError(f"{model_dir}: holds no weights as safetensors; save them so, a pickle is never pushed")
    index_path = model_dir / "model.safetensors.index.json"
    if index_path.is_file():
        missing = set(read_json(index_path)["weight_map"].values()) - {path.name for path in weights}
        if missing:
            raise InputError(f"{index_path}: names {min(missing)}, which is not there; save the model again")
    for path in weights:
        try:
            with safe_open(path, framework="numpy") as file:
                file.keys()
        except (SafetensorError, OSError) as error:
            raise InputError(f"{path}: is no whole safetensors file ({error}); save the model again") from error


def _allowed(model_dir: Path) -> Iterator[Path]:
    """Files of the allow-list, each once; a link that leads out of the folder is none of them."""
    inside = model_dir.resolve()
    found = {path for pattern in ALLOWED for path in model_dir.glob(pattern) if path.is_file()}
    return (path for path in sorted(found) if path.resolve().is_relative_to(inside))


def _copy(source: Path, target: Path) -> None:
    """Copy a file; a JSON of settings goes without the folder that the model was loaded from."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix != ".json" or source.name in MAY_HOLD_PATHS:
        shutil.copyfile(source, target)
        return
    settings = read_json(source)
    target.write_text(json.dumps(_without_local(settings), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def _without_local(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_local(part) for name, part in value.items() if name not in LOCAL_KEYS}
    return [_without_local(part) for part in value] if isinstance(value, list) else value


def _scan(path: Path, name: str, secrets: tuple[str, ...], own_paths: list[str]) -> None:
    """Refuse a file with a secret, or with a path where none belongs. Weights are searched by their header."""
    content = _header(path) if path.suffix == ".safetensors" else path.read_bytes()
    found = SECRETS.search(content)
    if found or any(secret.encode() in content for secret in secrets):
        raise InputError(f"{name}: holds what looks like a secret; take it out of the file, and renew the secret")
    if path.name in MAY_HOLD_PATHS:
        return
    leak = PATHS.search(content)
    local = [leak.group().decode(errors="replace")] if leak else [own for own in own_paths if own.encode() in content]
    if local:
        raise InputError(f"{name}: holds a path of this machine ({local[0]}); take it out before it is published")


def _header(path: Path) -> bytes:
    """The JSON in front of the tensors: their names, shapes and whatever was written beside them."""
    with open(path, "rb") as file:
        return file.read(int.from_bytes(file.read(8), "little"))
