"""Pairs that stand in the data with more than one label."""

from collections.abc import Mapping

from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import conflicting_rows, pair_keys

Place = tuple[str, int]  # the split, and the row in it


def list_conflicts(splits: Mapping[str, Pairs]) -> list[list[Place]]:
    """Where each pair with more than one label stands, every row of it, in all splits together.

    Pairs are compared by ``splits.normalize_text`` and in either order, as leaks are.
    """
    places = [(name, row) for name, pairs in splits.items() for row in range(len(pairs))]
    keys = [key for pairs in splits.values() for key in pair_keys(pairs.sentence1, pairs.sentence2)]
    labels = [label for pairs in splits.values() for label in pairs.labels.tolist()]
    return [[places[row] for row in rows] for rows in conflicting_rows(keys, labels)]
