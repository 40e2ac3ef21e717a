"""JSON as its standard says, with the line of what is wrong."""

import json
from pathlib import Path
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.records import SURROGATE_ESCAPE


def parse_json(text: str, path: Path, line: int) -> Any:
    """The value of a JSON text that starts at ``line`` of ``path``.

    Raises ``InputError`` with the place where it is broken, and where ``json`` alone would be lenient: at a key that
    stands twice in one object, at NaN and Infinity, at half a surrogate pair, which is no character.
    """
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_refuse_constant)
        if SURROGATE_ESCAPE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{path}:{line}: half of a surrogate pair, not a character; write the character") from error
    except json.JSONDecodeError as error:
        at = f"{path}:{line + error.lineno - 1}"
        cure = "name a file of one object a line .jsonl" if error.msg == "Extra data" else "mend the line"
        raise InputError(f"{at}: broken JSON ({error.msg} at character {error.colno}); {cure}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}:{line}: broken JSON ({error}); mend it") from error
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"duplicate key {next(key for key in keys if keys.count(key) > 1)!r}")
    return values


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON; write null")
