"""What a user asks for, as one list of settings, whether it came as words or as a recipe file."""

import json
import re
from argparse import ArgumentTypeError
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from transformers.hf_argparser import string_to_bool

from pair_pkg.errors import InputError, one_line

MAX_DEPTH = 20  # of a recipe's lists and mappings, far more than any flag takes
RECIPE_SUFFIXES = (".yaml", ".yml", ".json")


class Setting(NamedTuple):
    """One flag: its name without dashes in front, and its values; () for a bare flag, None for a recipe's null."""

    name: str
    values: tuple[str, ...] | None

    @property
    def text(self) -> str:
        """The values as one string, empty for a bare flag."""
        return " ".join(self.values or ())


def is_recipe(word: str) -> bool:
    """Whether a command line's first word names a recipe file.

    >>> is_recipe("recipes/mlm.yaml"), is_recipe("--config.yaml")
    (True, False)
    """
    return not word.startswith("-") and word.lower().endswith(RECIPE_SUFFIXES)


def read_words(words: Sequence[str]) -> list[Setting]:
    """Group a command line's words by flag. Raises ``InputError`` where the first word is none.

    >>> read_words(["--learning-rate=1e-4", "--class_names", "a", "b", "--do_train"])[:2]
    [Setting(name='learning_rate', values=('1e-4',)), Setting(name='class_names', values=('a', 'b'))]
    """
    settings: list[Setting] = []
    for word in words:
        name, equals, value = word.partition("=")
        if word == "-h" or (name.startswith("--") and " " not in name):
            name = "help" if word == "-h" else _flag_name(name[2:])
            settings.append(Setting(name, (value,) if equals else ()))
        elif settings:
            name, values = settings[-1]
            settings[-1] = Setting(name, (*(values or ()), word))
        else:
            raise InputError(f"command line: {word!r} is no flag; begin flags with -- and name a recipe .yaml or .json")
    return settings


def to_words(settings: Sequence[Setting]) -> list[str]:
    """The command line that says the same; a null says nothing.

    >>> to_words([Setting("seed", ("-1",)), Setting("do_train", ()), Setting("class_names", ("a", "b"))])
    ['--seed=-1', '--do_train', '--class_names', 'a', 'b']
    """
    words = []
    for name, values in settings:
        if values is not None and len(values) == 1:
            words.append(f"--{name}={values[0]}")
        elif values is not None:
            words.extend([f"--{name}", *values])
    return words


def read_recipe(path: str, flags: Collection[str]) -> list[Setting]:
    """Read a mapping of flags to values; a mapping under a key that is none of ``flags`` is a section.

    Raises ``InputError`` for a file that is missing, broken or no mapping, for deeper nesting and a flag given twice.
    """
    document = load_document(path)
    if not isinstance(document, dict):
        found = {list: "a list", type(None): "nothing"}.get(type(document), "a single value")
        raise InputError(f"{path}: holds {found}; a recipe is a mapping, one `flag: value` a line")
    settings: dict[str, Setting] = {}
    for key, value in document.items():
        is_section = isinstance(value, dict) and _flag_name(str(key)) not in flags
        for flag, inner in value.items() if is_section else [(key, value)]:
            setting = Setting(_flag_name(str(flag)), _values(inner, f"{path}: {flag}", flags, str(flag)))
            if setting.name in settings:
                raise InputError(f"{path}: {flag} is given twice; keep one of the two")
            settings[setting.name] = setting
    return list(settings.values())


def read_bool(text: str) -> bool:
    """The library's words for true and false, and YAML's ``on`` and ``off``. Raises ``ArgumentTypeError``."""
    switch = {"on": True, "off": False}.get(str(text).lower())
    return string_to_bool(text) if switch is None else switch


def is_switched_on(setting: Setting, place: str) -> bool:
    """Whether a boolean setting says true; a bare flag does. Raises ``InputError`` for any other word."""
    try:
        return not setting.values or read_bool(setting.values[-1])
    except ArgumentTypeError as error:
        raise InputError(f"{place}: {setting.name}: {error}") from error


def _flag_name(text: str) -> str:
    return text.replace("-", "_")


def _values(value: Any, place: str, flags: Collection[str], flag: str) -> tuple[str, ...] | None:
    if value is None:
        return None
    if isinstance(value, dict):
        if _flag_name(flag) not in flags:
            raise InputError(f"{place}: sections cannot be nested; move its lines one level up")
        return (json.dumps(_typed(value)),)
    if isinstance(value, list):
        if not all(isinstance(item, str | bool) for item in value):
            raise InputError(f"{place}: a list holds plain values; write it as [a, b]")
        return tuple(map(_text, value))
    return (_text(value),)


def _text(scalar: str | bool) -> str:
    return scalar if isinstance(scalar, str) else str(scalar).lower()


def _typed(value: Any) -> Any:
    """Give the text inside a JSON-valued flag its JSON types: there no parser knows them any more."""
    if isinstance(value, dict):
        return {key: _typed(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_typed(inner) for inner in value]
    try:
        return json.loads(value)
    except (ValueError, TypeError, RecursionError):
        return value


def load_document(path: str) -> Any:
    """A YAML or JSON file with its scalars as the text that stands there. Raises ``InputError``."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        raise InputError(f"{path}: this recipe cannot be read ({reason}); check its name and its encoding") from error
    try:
        return _load_json(text) if path.lower().endswith(".json") else yaml.load(text, Loader=_TextLoader)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}: not valid JSON ({error.msg}); mend this line") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InputError(f"{path}:{line}: not valid YAML ({error.problem}); mend this line") from error
    except (yaml.YAMLError, _GivenTwice, RecursionError) as error:
        raise InputError(f"{path}: cannot be read as a recipe ({one_line(str(error))}); mend it") from error


class _GivenTwice(ValueError):
    """A key stands twice in one JSON object, where ``json`` would keep the last in silence."""


def _load_json(text: str) -> Any:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        keys = [key for key, _ in pairs]
        for key in set(keys):
            if keys.count(key) > 1:
                raise _GivenTwice(f"{key} is given twice")
        return dict(pairs)

    return json.loads(text, object_pairs_hook=build, parse_int=str, parse_float=str, parse_constant=str)


class _TextLoader(yaml.BaseLoader):
    """YAML whose scalars stay the text in the file, null apart.

    So one parser, the command line's, decides on types: YAML 1.1 would make ``no`` a boolean and ``1e-4`` a string.
    """

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """A node of the file; aliases, of which a few lines make a billion values, and deep nesting are refused."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent) or self.depth > MAX_DEPTH:
            what = "an alias; write its value out" if self.depth <= MAX_DEPTH else "nested too deep"
            raise yaml.composer.ComposerError(None, None, what, event.start_mark)
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key is no plain word", key_node.start_mark)
            key = self.construct_object(key_node)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"{key} is given twice", key_node.start_mark)
            keys.add(key)
        return super().construct_mapping(node, deep)


NULL_TAG = "tag:yaml.org,2002:null"
_TextLoader.add_implicit_resolver(NULL_TAG, re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""])
_TextLoader.add_constructor(NULL_TAG, lambda loader, node: None)
