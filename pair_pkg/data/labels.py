"""What the labels of pairs are: two classes, several classes or scores, told from their values."""

import logging
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from numbers import Real
from typing import Literal, get_args

import numpy as np

from pair_pkg.errors import InputError
from pair_pkg.records import RECORD_NAME

logger = logging.getLogger(__name__)

LabelKind = Literal["binary", "classes", "scores"]

MAX_CLASSES = 20  # more distinct values are an identifier or a wrong column, unless the user names them
USUAL_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 5.0), (0.0, 10.0))  # 0 to 5 is the STS benchmark's
BOOLEANS = (("0", "1"), ("false", "true"), ("no", "yes"))  # negative, positive
BOOLEAN_IDS = {word: class_id for words in BOOLEANS for class_id, word in enumerate(words)}
OPPOSITES = {("different", "same"), ("negative", "positive"), ("contradiction", "entailment"), ("f", "t"), ("n", "y")}
NEGATIONS = ("not", "non", "no", "un", "dis", "mis", "ir", "in")  # not_duplicate, unrelated, dissimilar, irrelevant


@dataclass(frozen=True)
class LabelScheme:
    """How labels become numbers: ``names`` by class id (binary: negative, positive), or scores in [low, high]."""

    kind: LabelKind
    names: list[str] = field(default_factory=list)
    low: float = 0.0
    high: float = 1.0

    @property
    def num_classes(self) -> int:
        """Number of names; 1 for scores, as the outputs of a regression head are counted."""
        return 1 if self.kind == "scores" else len(self.names)

    def to_json(self) -> dict:
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict) -> "LabelScheme":
        """The scheme that ``to_json`` wrote. Raises ``InputError`` for anything else.

        >>> LabelScheme.from_json(LabelScheme("binary", ["no", "yes"]).to_json())
        LabelScheme(kind='binary', names=['no', 'yes'], low=0.0, high=1.0)
        """
        try:
            scheme = cls(**value)
            words = isinstance(scheme.names, list) and all(isinstance(name, str) for name in scheme.names)
            whole = words and scheme.kind in get_args(LabelKind) and scheme.low < scheme.high
            whole = whole and len(set(scheme.names)) == len(scheme.names) and len(scheme.names) != 1
        except TypeError:
            whole = False
        if not whole:
            raise InputError(f"{RECORD_NAME}: its labels {value!r:.80} are none; restore it from a copy")
        return scheme

    def encode(self, value: object, place: str) -> int | float:
        """The class id or score of a label as it stands in a file; case and outer space do not count.

        Raises ``InputError`` at ``place`` where the label is missing, not finite, out of range or none of the names.

        >>> LabelScheme("binary", ["no", "yes"]).encode(" Yes", "pairs.csv:2")
        1
        """
        key = label_key(value, place)
        if self.kind == "scores":
            return self._encode_score(key, place)
        if key not in self._ids:
            raise InputError(
                f"{place}: label {str(value)!r} is none of {', '.join(self.names)}; fix the row or give --class_names"
            )
        return self._ids[key]

    def accepts(self, value: object) -> bool:
        """Whether ``encode`` takes the label.

        >>> LabelScheme("scores", [], 0, 5).accepts("4.75"), LabelScheme("scores", [], 0, 5).accepts("score")
        (True, False)
        """
        try:
            self.encode(value, "")
        except InputError:
            return False
        return True

    def encode_all(self, values: Iterable[object], places: Iterable[str]) -> np.ndarray:
        """Labels of all rows, (N,): int64 class ids or float32 scores. Raises as ``encode``."""
        dtype = np.float32 if self.kind == "scores" else np.int64
        return np.array([self.encode(value, place) for value, place in zip(values, places)], dtype=dtype)

    def _encode_score(self, key: str, place: str) -> float:
        score = _number(key)
        if score is None:
            raise InputError(f"{place}: label {key!r} is not a number, and the labels are scores; fix the row")
        if not self.low <= score <= self.high:
            raise InputError(
                f"{place}: label {key} is out of the range {self.low:g} to {self.high:g}; "
                "fix the row or give --label_range"
            )
        return score

    @cached_property
    def _ids(self) -> dict[str, int]:
        ids = {label_key(name, "label names"): class_id for class_id, name in enumerate(self.names)}
        if self.kind == "binary" and all(BOOLEAN_IDS.get(key) == class_id for key, class_id in ids.items()):
            return BOOLEAN_IDS  # a file with yes and no fits a scheme learned from 0 and 1
        return ids


def detect_labels(
    values: Sequence[object],
    places: Sequence[str],
    *,
    label_names: Sequence[str] | None = None,
    label_range: tuple[float, float] | None = None,
    kind: LabelKind | None = None,
) -> LabelScheme:
    """The scheme of a column of labels, from its distinct values or from what the user says.

    Booleans (0/1, true/false, yes/no) and other two names are binary; text and whole numbers 0..k-1 (k from 3 to 20)
    are classes; numbers with fractions are scores on the smallest of ``USUAL_RANGES`` that holds them.
    Raises ``InputError`` where that leaves a doubt, with the place of the first odd row.

    >>> detect_labels(["0.0", "4.75", "5"], ["a:1", "a:2", "a:3"])
    LabelScheme(kind='scores', names=[], low=0.0, high=5.0)
    """
    _refuse_contradiction(label_names, label_range, kind)
    seen = _distinct_labels(values, places)
    if len({BOOLEAN_IDS.get(key, key) for key in seen}) < 2:
        only = "".join(f", {label.spelling!r}" for label in seen.values())
        raise InputError(f"{places[0] if places else 'labels'}: only one label{only}; add rows or mend --label_column")
    if label_names is not None:
        scheme = _class_scheme(list(label_names), kind)
    elif label_range is not None or kind == "scores":
        scheme = _score_scheme(seen, label_range)
    else:
        scheme = _detect_scheme(seen, kind)
    for label in seen.values():
        scheme.encode(label.spelling, label.place)
    return scheme


def label_key(value: object, place: str) -> str:
    """The key under which two spellings of a label count as the same: ``1.0`` as ``1``, ``Yes `` as ``yes``.

    Raises ``InputError`` where the label is missing, not finite, or neither text nor number.

    >>> label_key(1.0, "a:1"), label_key(" 1.0 ", "a:1"), label_key(True, "a:1"), label_key("Same", "a:1")
    ('1', '1', 'true', 'same')
    """
    if value is not None and not isinstance(value, (str, Real, np.bool_)):
        raise InputError(f"{place}: label is of type {type(value).__name__}, not a number or text; fix the row")
    text = "" if value is None else str(value).strip().casefold()
    if not text:
        raise InputError(f"{place}: label is missing; fill it in or remove the row")
    number = _number(text)
    if number is None:
        return text
    if not math.isfinite(number):
        raise InputError(f"{place}: label is {number} (not a finite number); fix or remove the row")
    return str(int(number)) if number.is_integer() else repr(number)


def is_number(text: str) -> bool:
    """Whether a label's text is a number.

    >>> is_number(" 4.75"), is_number("same"), is_number("1_0")
    (True, False, False)
    """
    return _number(text) is not None


def _number(text: str) -> float | None:
    if "_" in text:  # Python reads 1_0 as 10; a file does not mean that
        return None
    try:
        return float(text)
    except ValueError:
        return None


@dataclass
class _DistinctLabel:
    spelling: str
    place: str
    rows: int


def _distinct_labels(values: Sequence[object], places: Sequence[str]) -> dict[str, _DistinctLabel]:
    """The distinct labels by key, in the order of their first row."""
    seen: dict[str, _DistinctLabel] = {}
    for value, place in zip(values, places):
        key = label_key(value, place)
        if key in seen:
            seen[key].rows += 1
        else:
            seen[key] = _DistinctLabel(str(value).strip(), place, 1)
    return seen


def _refuse_contradiction(
    label_names: Sequence[str] | None, label_range: tuple[float, float] | None, kind: LabelKind | None
) -> None:
    if label_names is not None and (label_range is not None or kind == "scores"):
        raise InputError("--class_names is for classes, --label_range and scores are not; give one of them")
    if label_range is not None and kind in ("binary", "classes"):
        raise InputError(f"--label_range is for scores, and the labels are said to be {kind}; give one of them")
    if label_range is not None and not label_range[0] < label_range[1]:
        raise InputError(f"--label_range {label_range[0]} {label_range[1]}: the first must be below the second")
    if label_names is not None:
        different = {label_key(name, "--class_names") for name in label_names}
        if len(different) < max(2, len(label_names)):
            raise InputError(f"--class_names {' '.join(label_names)}: at least two names, all different, are needed")


def _class_scheme(names: list[str], kind: LabelKind | None) -> LabelScheme:
    if kind == "binary" and len(names) != 2:
        raise InputError(f"{len(names)} labels ({_listing(names)}) are not binary; fix the rows or give --label_kind")
    return LabelScheme(kind or ("binary" if len(names) == 2 else "classes"), names)


def _score_scheme(seen: dict[str, _DistinctLabel], label_range: tuple[float, float] | None) -> LabelScheme:
    scores = {key: _number(key) for key in seen}
    for key, score in scores.items():
        if score is None:
            raise InputError(f"{seen[key].place}: label {seen[key].spelling!r} is not a number; scores need numbers")
    lowest, highest = min(scores.values()), max(scores.values())
    fitting = (usual for usual in USUAL_RANGES if usual[0] <= lowest and highest <= usual[1])
    found = label_range or next(fitting, None)
    if found is None:
        place = seen[max(scores, key=lambda key: abs(scores[key]))].place
        raise InputError(f"{place}: scores from {lowest:g} to {highest:g} fit no usual range; give --label_range")
    logger.info("labels are scores from %g to %g", *found)
    return LabelScheme("scores", [], float(found[0]), float(found[1]))


def _detect_scheme(seen: dict[str, _DistinctLabel], kind: LabelKind | None) -> LabelScheme:
    if all(key in BOOLEAN_IDS for key in seen):
        names = next((words for words in BOOLEANS if seen.keys() <= set(words)), BOOLEANS[0])
        return _class_scheme(list(names), kind)
    numbers = {key for key in seen if _number(key) is not None}
    if numbers and len(numbers) < len(seen):
        _refuse_mixture(seen, numbers)
    return _detect_numbers(seen, kind) if numbers else _detect_names(seen, kind)


def _refuse_mixture(seen: dict[str, _DistinctLabel], numbers: set[str]) -> None:
    number_rows = sum(seen[key].rows for key in numbers)
    text_rows = sum(label.rows for label in seen.values()) - number_rows
    text_is_odd = text_rows <= number_rows
    odd = next(label for key, label in seen.items() if (key in numbers) != text_is_odd)
    found, others = ("text", "numbers") if text_is_odd else ("a number", "text")
    raise InputError(
        f"{odd.place}: label {odd.spelling!r} is {found} where others are {others}; fix the row or give --class_names"
    )


def _detect_numbers(seen: dict[str, _DistinctLabel], kind: LabelKind | None) -> LabelScheme:
    names = sorted(seen, key=float)
    if kind is not None:
        return _class_scheme(names, kind)
    if not all(float(name).is_integer() for name in names):
        return _score_scheme(seen, None)
    if len(names) == 2:
        return _two_names(names)
    if len(names) <= MAX_CLASSES and names == [str(class_id) for class_id in range(len(names))]:
        return LabelScheme("classes", names)
    raise InputError(
        f"{seen[names[0]].place}: labels are {len(names)} whole numbers from {names[0]} to {names[-1]}, classes or "
        "scores; give --label_range for scores or --class_names for classes"
    )


def _detect_names(seen: dict[str, _DistinctLabel], kind: LabelKind | None) -> LabelScheme:
    names = [seen[key].spelling for key in sorted(seen)]
    if len(names) == 2 and kind != "classes":
        return _two_names(names)
    if len(names) > MAX_CLASSES and kind != "classes":
        raise InputError(
            f"{seen[next(iter(seen))].place}: {len(names)} different labels ({_listing(names)}); "
            "mend --label_column or give --class_names"
        )
    return _class_scheme(names, kind)


def _two_names(names: list[str]) -> LabelScheme:
    """Binary, the positive name last where the two are known opposites, else in the order given."""
    first, second = ("_".join(name.casefold().replace("-", " ").split()) for name in names)
    if _is_opposite(second, first):
        return LabelScheme("binary", names[::-1])
    if not _is_opposite(first, second):
        logger.warning("labels: %r is taken as negative, %r as positive; --class_names tells otherwise", *names)
    return LabelScheme("binary", names)


def _is_opposite(negative: str, positive: str) -> bool:
    negated = {f"{prefix}{joint}{positive}" for prefix in NEGATIONS for joint in ("", "_")}
    return (negative, positive) in OPPOSITES or negative in negated


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown}, ..." if len(names) > 5 else shown
