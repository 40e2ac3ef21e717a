"""Splits that share no text, and the leaks between splits that do: texts and integers only."""

import logging
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components as graph_components

from pair_pkg.errors import InputError

logger = logging.getLogger(__name__)

SCORE_BINS = 5  # scores are kept alike in every split by their quintiles
GIANT_FRACTION = 0.5
MAX_EXAMPLES = 5

PairKey = tuple[str, str]


@dataclass(frozen=True)
class Leak:
    """Pairs (``kind="pair"``, in either order) or texts (``kind="text"``) that stand in two splits.

    ``count`` is the number of distinct pairs or texts, ``first_rows`` and ``second_rows`` the number of rows
    that hold one, and ``examples`` up to five rows of each, (index in the first split, index in the second).
    """

    first: str
    second: str
    kind: str
    count: int
    first_rows: int
    second_rows: int
    examples: list[tuple[int, int]]


def normalize_text(text: str) -> str:
    """The key under which two texts count as the same: NFKC, casefolded, whitespace collapsed.

    NFKC follows casefold once more, which leaves some letters decomposed in one case and composed in the other.

    >>> normalize_text("  Ｗhat is\\tFLU？ ")
    'what is flu?'
    """
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


def pair_keys(left: Iterable[str], right: Iterable[str]) -> list[PairKey]:
    """The normalised texts of every pair, in sorted order, so that a swapped pair has the same key.

    >>> pair_keys(["b"], ["A"]) == pair_keys(["a"], ["B"])
    True
    """
    return [(a, b) if a <= b else (b, a) for a, b in zip(_text_keys(left), _text_keys(right))]


def conflicting_rows(keys: Sequence[PairKey], labels: Sequence[int | float | None]) -> list[list[int]]:
    """The rows of every pair that has more than one label, in the order of their first rows.

    >>> conflicting_rows([("a", "b"), ("a", "c"), ("a", "b"), ("a", "b")], [0, 1, 0, 1])
    [[0, 2, 3]]
    """
    labels_of: dict[PairKey, set[int | float | None]] = {}
    for key, label in zip(keys, labels, strict=True):
        labels_of.setdefault(key, set()).add(label)
    rows: dict[PairKey, list[int]] = {key: [] for key, found in labels_of.items() if len(found) > 1}
    for row, key in enumerate(keys):
        if key in rows:
            rows[key].append(row)
    return list(rows.values())


def connected_components(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """Component of each pair, (N,) int: pairs that share a normalised text in any column are one component.

    >>> connected_components(["a", "x", "c"], ["b", "y", "B "]).tolist()
    [0, 1, 0]
    """
    ids: dict[str, int] = {}
    nodes = np.array([ids.setdefault(key, len(ids)) for key in _text_keys([*left, *right])], dtype=np.int64)
    starts, ends = nodes[: len(left)], nodes[len(left) :]
    edges = np.ones(len(starts), dtype=bool)
    graph = coo_array((edges, (starts, ends)), shape=(len(ids), len(ids)))
    return graph_components(graph, directed=False)[1][starts]


def split_by_component(
    pairs_left: Sequence[str],
    pairs_right: Sequence[str],
    labels: np.ndarray | None,
    fractions: dict[str, float],
    seed: int,
) -> dict[str, np.ndarray]:
    """Row indices of each split, ascending, such that no normalised text stands in two splits.

    Components go from the biggest to the smallest, those of one size in an order drawn from ``seed``, each whole to
    the split that stays the furthest below its share. The share is counted for each class by itself (for scores,
    each quintile), so that every split has about the label shares of the whole. Every split asks for at least one
    pair of each class.

    Raises ``InputError`` where a split stays empty or, for integer labels of several classes, has a single one.
    """
    if min(fractions.values()) <= 0 or abs(sum(fractions.values()) - 1) > 1e-6:
        raise InputError(f"split fractions {fractions}: each must be above 0, and their sum 1; mend the fractions")
    if not len(pairs_left):
        raise InputError("no pairs to split; give more data")
    component = connected_components(pairs_left, pairs_right)
    _warn_of_giant(component)
    class_ids = _label_bins(labels, len(component))
    split_of_component = _assign_components(component, class_ids, np.array(list(fractions.values())), seed)
    split_of_pair = split_of_component[component]
    splits = {name: np.flatnonzero(split_of_pair == i) for i, name in enumerate(fractions)}
    for name, rows in splits.items():
        _refuse_poor_split(name, rows, labels, component)
    return splits


def find_leaks(splits: Mapping[str, tuple[Sequence[str], Sequence[str]]]) -> list[Leak]:
    """Pairs and texts that stand in two of the splits; each split is its (left, right) columns.

    Texts are compared by ``normalize_text``. A shared pair also shows as its two shared texts.
    """
    keys_of_split = {name: pair_keys(left, right) for name, (left, right) in splits.items()}
    leaks = []
    for first, second in combinations(splits, 2):
        for kind in ("pair", "text"):
            leak = _find_leak(first, second, kind, keys_of_split[first], keys_of_split[second])
            if leak is not None:
                leaks.append(leak)
    return leaks


def refuse_leaks(leaks: Sequence[Leak], allow: bool, places: Mapping[str, Sequence[str]] | None = None) -> None:
    """Raise ``InputError`` for leaks, or log them as a warning where ``allow``.

    ``places`` holds the place of every row of each split, so that the message names one instead of a row index.
    """
    if not leaks:
        return
    found = "; ".join(_describe_leak(leak, places) for leak in leaks)
    if not allow:
        raise InputError(
            f"leak between splits: {found}; remove these rows, let the splits be cut from one file, "
            "or accept them with --allow_leaks"
        )
    logger.warning("leak between splits, accepted by --allow_leaks: %s", found)


def _text_keys(texts: Iterable[str]) -> list[str]:
    """Normalised texts; a text that comes again is normalised once and shares its memory."""
    cache: dict[str, str] = {}
    keys = []
    for text in texts:
        key = cache.get(text)
        if key is None:
            key = cache[text] = normalize_text(text)
        keys.append(key)
    return keys


def _warn_of_giant(component: np.ndarray) -> None:
    share = np.bincount(component).max() / len(component)
    if share > GIANT_FRACTION:
        logger.warning(
            "one component of connected texts holds %.0f %% of the pairs: it stays in one split", 100 * share
        )


def _label_bins(labels: np.ndarray | None, num_pairs: int) -> np.ndarray:
    """Class of each pair from 0 without gaps, (N,): integer labels as they are, scores by quantile, one for None."""
    if labels is None:
        return np.zeros(num_pairs, dtype=np.int64)
    if np.issubdtype(labels.dtype, np.floating):
        inner = np.quantile(labels, np.linspace(0, 1, SCORE_BINS + 1)[1:-1])
        labels = np.digitize(labels, inner)
    return np.unique(labels, return_inverse=True)[1]


def _assign_components(component: np.ndarray, class_ids: np.ndarray, fractions: np.ndarray, seed: int) -> np.ndarray:
    """Split of each component, (C,): greedy, the split with the largest relative deficit after taking it."""
    num_components, num_classes = component.max() + 1, class_ids.max() + 1
    flat = np.bincount(component * num_classes + class_ids, minlength=num_components * num_classes)
    counts = flat.reshape(num_components, num_classes)  # (C, K) pairs of each class
    targets = np.maximum(fractions[:, None] * counts.sum(0), 1)  # (S, K)
    deficits = targets.copy()
    order = np.random.default_rng(seed).permutation(num_components)
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    splits = np.full(num_components, -1)
    empty = np.ones(len(fractions), dtype=bool)
    for position, index in enumerate(order):
        taken = counts[index]
        # Relative, so that all splits fill at one pace; after taking, so that no small split is one big component.
        scores = ((deficits - taken) / targets) @ taken
        if num_components - position <= empty.sum():  # the smallest components go to splits that are still empty
            scores[~empty] = -np.inf
        splits[index] = chosen = scores.argmax()
        deficits[chosen] -= taken
        empty[chosen] = False
    return splits


def _refuse_poor_split(name: str, rows: np.ndarray, labels: np.ndarray | None, component: np.ndarray) -> None:
    cure = f"give more data, or a file of its own (--{name}_file)"
    origin = f"{len(component)} pairs in {component.max() + 1} components of shared texts"
    if not len(rows):
        raise InputError(f"split '{name}' is empty, cut from {origin}; {cure}")
    are_classes = labels is not None and np.issubdtype(labels.dtype, np.integer)
    if are_classes and len(np.unique(labels[rows])) < min(2, len(np.unique(labels))):
        raise InputError(f"split '{name}' has a single class in its {len(rows)} pairs, cut from {origin}; {cure}")


def _find_leak(
    first: str, second: str, kind: str, first_keys: list[PairKey], second_keys: list[PairKey]
) -> Leak | None:
    first_row, second_row = _first_rows(first_keys, kind), _first_rows(second_keys, kind)
    shared = [key for key in first_row if key in second_row]
    if not shared:
        return None
    return Leak(
        first=first,
        second=second,
        kind=kind,
        count=len(shared),
        first_rows=_count_rows(first_keys, kind, set(shared)),
        second_rows=_count_rows(second_keys, kind, set(shared)),
        examples=[(first_row[key], second_row[key]) for key in shared[:MAX_EXAMPLES]],
    )


def _first_rows(keys: list[PairKey], kind: str) -> dict[str | PairKey, int]:
    """The first row of every pair or text, in the order of the rows."""
    rows: dict[str | PairKey, int] = {}
    for row, key in enumerate(keys):
        for part in (key,) if kind == "pair" else key:
            rows.setdefault(part, row)
    return rows


def _count_rows(keys: list[PairKey], kind: str, shared: set) -> int:
    if kind == "pair":
        return sum(key in shared for key in keys)
    return sum(a in shared or b in shared for a, b in keys)


def _describe_leak(leak: Leak, places: Mapping[str, Sequence[str]] | None) -> str:
    row, other = leak.examples[0]
    first = places[leak.first][row] if places else f"row {row + 1} of {leak.first}"
    second = places[leak.second][other] if places else f"row {other + 1} of {leak.second}"
    noun = leak.kind if leak.count == 1 else f"{leak.kind}s"
    example = f"such as {first} and {second}"
    return f"{leak.count} {noun} of {leak.first} in {leak.second_rows} rows of {leak.second} ({example})"
