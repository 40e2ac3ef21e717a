"""Both orders of a pair: which one training sees, the average that is scored, and how far the two lie apart."""

# R pairs, C classes

from typing import Any

import numpy as np

from pair_pkg.data.draws import uniform
from pair_pkg.pairs.decision import Decision

_ORDER = 0  # the stream of draws


def is_swapped(seed: int, epoch: int, rows: np.ndarray) -> np.ndarray:
    """Whether training reads a pair as (B, A) in an epoch: (R,) bool, the same whenever and wherever it is asked.

    Half of the pairs begin swapped, drawn from (seed, row), and the order then changes with every epoch: so any two
    epochs in a row show both orders of every pair, which independent draws would not.
    """
    return (uniform(seed, 0, _ORDER, rows) < 0.5) ^ bool(epoch % 2)


def fold_orders(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Columns over the pairs and then over the swapped pairs, (2R,) each -> their means over both orders, (R,) each.

    What is known of a pair, its row and its label, is that of the first order.
    """
    half = len(columns["row"]) // 2
    known = ("row", "label")
    return {
        name: values[:half] if name in known else (values[:half] + values[half:]) / 2
        for name, values in columns.items()
    }


def asymmetry(decision: Decision | None, orders: np.ndarray) -> dict[str, Any]:
    """How far the answers to (A, B) and (B, A) lie apart: scores (2, R), or logits (2, R, C) of classes.

    ``mean_difference`` and ``max_difference`` are of the probabilities (of classes: half the sum over them, the total
    variation), and of the scores themselves where there is no decision. ``flipped`` pairs, ``flipped_fraction`` of
    all, have another verdict in the other order.
    """
    judged = orders if decision is None else decision.probability(orders)
    differences = np.abs(judged[0] - judged[1])
    if differences.ndim == 2:
        differences = differences.sum(1) / 2
    report = {"mean_difference": float(differences.mean()), "max_difference": float(differences.max())}
    if decision is not None:
        first, second = (decision.decide(order) for order in judged)
        flipped = int((first != second).sum())
        report |= {"flipped": flipped, "flipped_fraction": flipped / len(first)}
    return report
