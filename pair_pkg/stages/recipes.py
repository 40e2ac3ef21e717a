"""What the recipe files of whole experiments share: their keys, their seeds, and sections of a door's flags."""

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.training.settings import Setting, load_document, to_words


def read_keys(path: str, keys: Collection[str], optional: Collection[str] = ()) -> dict[str, Any]:
    """A recipe file, which is a mapping with these keys. Raises ``InputError``."""
    document = load_document(path)
    if not isinstance(document, dict):
        raise InputError(f"{path}: a recipe is a mapping with the keys {', '.join(sorted(keys))}")
    unknown = sorted(set(document) - set(keys))
    if unknown:
        raise InputError(f"{path}: {unknown[0]} is no key of this recipe; take {', '.join(sorted(keys))}")
    missing = sorted(set(keys) - set(optional) - set(document))
    if missing:
        raise InputError(f"{path}: {missing[0]} is missing; it needs {', '.join(sorted(keys))}")
    return document


def read_seeds(path: str, seeds: Sequence[Any] | None) -> tuple[int, ...]:
    """The seeds of an experiment, 42 where there are none. Raises ``InputError``."""
    try:
        chosen = tuple(int(seed) for seed in (seeds or [42]))
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: seeds must be whole numbers, such as [1, 2, 3]") from error
    if len(set(chosen)) < len(chosen):
        raise InputError(f"{path}: a seed stands twice; equal runs add no evidence")
    return chosen


def section_words(path: str, section: str, settings: Any) -> list[str]:
    """A section's flags as words of its door's command line. Raises ``InputError``."""
    if not isinstance(settings, dict):
        raise InputError(f"{path}: {section} must be a mapping of flags, one `flag: value` a line")
    values = {name: value if isinstance(value, list) else [value] for name, value in settings.items()}
    return to_words([Setting(name, None if value == [None] else tuple(value)) for name, value in values.items()])


def flag_words(flags: Mapping[str, Any]) -> list[str]:
    """Flags given as Python values, as words of a command line.

    >>> flag_words({"train_file": ["a.txt", "b.txt"], "seed": 1, "do_eval": True, "max_seq_length": None})
    ['--train_file', 'a.txt', 'b.txt', '--seed=1', '--do_eval=true']
    """
    return to_words([Setting(name, _flag_values(value)) for name, value in flags.items()])


def _flag_values(value: Any) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return (json.dumps(value),)
    return tuple(map(_flag_text, value)) if isinstance(value, list | tuple) else (_flag_text(value),)


def _flag_text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
