"""What labelled pairs imply: A = B and B = C make A = C, and A = B and B != C make A != C."""

# N pairs, T distinct texts, K known pairs, G groups of equal texts, L links: a group with itself or with an unequal one

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import normalize_text

MAX_DERIVED_PER_LINK = 100  # closes groups of up to 14 equal texts; of a bigger one the n^2 / 2 pairs drown the rest


@dataclass(frozen=True)
class AugmentationAudit:
    """What became of the pairs that others imply.

    ``derived_positives`` and ``derived_negatives`` were added. ``dropped_for_ratio`` were left out to keep the share
    of positives, ``dropped_for_cap`` beyond ``MAX_DERIVED_PER_LINK``. ``contradictions`` are given pairs that say
    "different" of two texts which other pairs make equal; nothing is derived from their ``contradictory_groups``.
    """

    derived_positives: int
    derived_negatives: int
    dropped_for_ratio: int
    dropped_for_cap: int
    contradictions: int
    contradictory_groups: int


@dataclass(frozen=True)
class Derived:
    """Pairs of texts by number, that known pairs imply: (P, 2) equal and (M, 2) different, smaller number first."""

    positives: np.ndarray
    negatives: np.ndarray
    dropped_for_cap: int
    contradictions: int
    contradictory_groups: int


def augment_pairs(train: Pairs, held_out: Sequence[Pairs], seed: int) -> tuple[Pairs, AugmentationAudit]:
    """Binary training pairs with what they imply behind them; a derived pair's place names the rows of its texts.

    Texts are compared by ``splits.normalize_text`` and written as they stand first. A pair that is given already, or
    stands in ``held_out`` in either order, is not derived. Of the derived pairs as many are kept, drawn by ``seed``,
    as leave the share of positives what it is. For labels that mean equality: an entailment has a direction.
    """
    number: dict[str, int] = {}
    texts: list[str] = []
    places: list[str] = []
    ends = np.empty((len(train), 2), dtype=np.int64)
    for row, pair in enumerate(zip(train.sentence1, train.sentence2)):
        for column, text in enumerate(pair):
            ends[row, column] = text_id = number.setdefault(normalize_text(text), len(number))
            if text_id == len(texts):
                texts.append(text)
                places.append(train.places[row])
    held = np.array(
        [
            [number.get(normalize_text(text), -1) for text in pair]
            for part in held_out
            for pair in zip(part.sentence1, part.sentence2)
        ],
        dtype=np.int64,
    ).reshape(-1, 2)
    rng = np.random.default_rng(seed)
    derived = derive_pairs(ends, train.labels, held[(held >= 0).all(1)], rng)
    num_positives = int((train.labels == 1).sum())
    kept = keep_ratio(num_positives, len(train) - num_positives, len(derived.positives), len(derived.negatives))
    parts = [_draw(part, count, rng) for part, count in zip((derived.positives, derived.negatives), kept)]
    rows = np.concatenate(parts)
    added = Pairs(
        [texts[text] for text in rows[:, 0]],
        [texts[text] for text in rows[:, 1]],
        np.repeat([1, 0], kept),
        [f"derived from {places[first]} and {places[second]}" for first, second in rows],
    )
    audit = AugmentationAudit(
        derived_positives=kept[0],
        derived_negatives=kept[1],
        dropped_for_ratio=len(derived.positives) + len(derived.negatives) - sum(kept),
        dropped_for_cap=derived.dropped_for_cap,
        contradictions=derived.contradictions,
        contradictory_groups=derived.contradictory_groups,
    )
    return train.joined(added), audit


def derive_pairs(
    ends: np.ndarray,
    labels: np.ndarray,
    held_out: np.ndarray,
    rng: np.random.Generator,
    max_per_link: int = MAX_DERIVED_PER_LINK,
) -> Derived:
    """All pairs that follow from pairs of texts ``ends`` (N, 2) with labels (N,) 1 and 0, but for known ones.

    Known are the given pairs and ``held_out`` (H, 2). A group of equal texts gives up to ``max_per_link`` pairs, and
    so do two groups that one given pair holds apart, each drawn evenly from all; so work grows with N and not with
    the square of a group. A group with a contradiction gives none.

    >>> derived = derive_pairs(np.array([[0, 1], [1, 2], [2, 3]]), np.array([1, 1, 0]), np.empty((0, 2), int),
    ...                        np.random.default_rng(0))
    >>> derived.positives.tolist(), sorted(derived.negatives.tolist())
    ([[0, 2]], [[0, 3], [1, 3]])
    """
    num_texts = int(ends.max(initial=-1)) + 1
    group = _equal_groups(ends[labels == 1], num_texts)
    apart = group[ends[labels != 1]]  # (.., 2) the groups of unequal texts
    inside = apart[:, 0] == apart[:, 1]
    contradictory = np.unique(apart[inside, 0])
    known = np.unique(_codes(np.concatenate([ends, held_out]), num_texts))
    links = _links(group, np.unique(np.sort(apart[~inside], axis=1), axis=0), contradictory)
    members = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1]) if num_texts else []
    found: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
    dropped = 0
    for (first, second), num_known in zip(links.tolist(), _known_per_link(known, group, links, num_texts).tolist()):
        total = _num_pairs(members[first], members[second])
        wanted = min(total - num_known, max_per_link)
        # no more than num_known of those drawn are known, so enough are left
        pairs = _draw_link(members[first], members[second], min(total, wanted + num_known), rng)
        found[first != second].append(pairs[~_contains(known, _codes(pairs, num_texts))][:wanted])
        dropped += total - num_known - wanted
    none = np.empty((0, 2), dtype=np.int64)
    positives, negatives = (np.concatenate([none, *parts]) for parts in found)
    return Derived(positives, negatives, dropped, int(inside.sum()), len(contradictory))


def keep_ratio(num_positives: int, num_negatives: int, positives: int, negatives: int) -> tuple[int, int]:
    """How many derived positives and negatives to keep: the most that stand to each other as the given ones do.

    >>> keep_ratio(10, 20, 5, 100), keep_ratio(10, 20, 50, 3), keep_ratio(10, 20, 0, 7)
    ((5, 10), (2, 3), (0, 0))
    """
    if not num_positives:
        return 0, 0  # nothing is equal, so nothing follows
    if positives * num_negatives <= negatives * num_positives:
        return positives, round(positives * num_negatives / num_positives)
    return round(negatives * num_positives / num_negatives), negatives


def _equal_groups(equal: np.ndarray, num_texts: int) -> np.ndarray:
    """Group of each text, (T,): texts that chains of equal pairs join."""
    graph = coo_array((np.ones(len(equal), dtype=bool), equal.T), shape=(num_texts, num_texts))
    return connected_components(graph, directed=False)[1]


def _links(group: np.ndarray, apart: np.ndarray, contradictory: np.ndarray) -> np.ndarray:
    """Pairs of groups that can imply something, (L, 2): with itself from three texts on, apart from three together."""
    sizes = np.bincount(group)
    alone = np.flatnonzero(sizes > 2)
    links = np.concatenate([np.stack([alone, alone], axis=1), apart[sizes[apart].prod(1) > 1]])
    return links[~np.isin(links, contradictory).any(1)]


def _codes(pairs: np.ndarray, num_texts: int) -> np.ndarray:
    """One number a pair, the same in either order."""
    return pairs.min(1) * num_texts + pairs.max(1)


def _known_per_link(known: np.ndarray, group: np.ndarray, links: np.ndarray, num_texts: int) -> np.ndarray:
    """Known pairs, of two texts, that lie in each link: (L,)."""
    pairs = np.stack(np.divmod(known, max(num_texts, 1)), axis=1)
    of_groups = np.sort(_codes(group[pairs[pairs[:, 0] != pairs[:, 1]]], num_texts))
    wanted = _codes(links, num_texts)
    return np.searchsorted(of_groups, wanted, "right") - np.searchsorted(of_groups, wanted, "left")


def _num_pairs(first: np.ndarray, second: np.ndarray) -> int:
    return len(first) * (len(first) - 1) // 2 if first is second else len(first) * len(second)


def _draw_link(first: np.ndarray, second: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` different pairs between the texts of two groups, or within one: (count, 2), smaller number first."""
    drawn = rng.choice(_num_pairs(first, second), size=count, replace=False)
    if first is second:  # pair 0 is (0, 1), then (0, 2), (1, 2), (0, 3), ...
        larger = ((1 + np.sqrt(1 + 8 * drawn)) // 2).astype(np.int64)
        places = drawn - larger * (larger - 1) // 2, larger
    else:
        places = np.divmod(drawn, len(second))
    return np.sort(np.stack([first[places[0]], second[places[1]]], axis=1), axis=1)


def _contains(ascending: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Which values are among ascending ones, of which there is at least one; ``np.isin`` would sort them each time."""
    return ascending[np.searchsorted(ascending, values).clip(max=len(ascending) - 1)] == values


def _draw(pairs: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` of the pairs, in their order."""
    return pairs[np.sort(rng.choice(len(pairs), size=count, replace=False))]
