"""Which masked tokens a model fills in rightly: by how often they stand in the corpus, and of domain terms."""

# M predicted tokens, V vocabulary, B rows of a batch, R rows, S slices

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from pair_pkg.mlm.head import PredictedLogits

# By the rank of a token among those of the corpus. Zipf: each band of English text holds roughly as much of it.
BANDS = {"the 100 most frequent": 100, "101 to 1,000": 1_000, "1,001 to 5,000": 5_000, "rarer": None}
TERMS = "domain terms"
TOP = 5
COUNT_AT_A_TIME = 1 << 24  # token ids read at a time


def frequency_bands(ids: Iterable[np.ndarray], num_ids: int) -> np.ndarray:
    """The band (its number in ``BANDS``) of each id by its rank in the corpus, whose ids come part by part: (V,)."""
    counts = np.zeros(num_ids, dtype=np.int64)
    for part in ids:
        counts += np.bincount(part, minlength=num_ids)
    ranks = np.empty(num_ids, dtype=np.int64)
    ranks[np.argsort(-counts, kind="stable")] = np.arange(num_ids)
    return np.searchsorted([end for end in BANDS.values() if end], ranks, side="right")


def score_slices(
    outputs: PredictedLogits, labels: Tensor, rows: Tensor, row_of_label: Tensor, bands: Tensor, is_term: Tensor | None
) -> dict[str, Tensor]:
    """Counts of each row by slice, the bands and then the terms: ``row`` (B,), ``counts`` (B, S, 3).

    The three are tokens, those whose label has the highest logit, and those whose label is among the five highest;
    labels that tie count as the higher. ``bands`` (V,) and ``is_term`` (M,).
    """
    logits = outputs.logits[: len(labels)]
    higher = (logits > logits.gather(1, labels.unsqueeze(1))).sum(1)
    slices = torch.nn.functional.one_hot(bands[labels], len(BANDS)).bool()
    terms = torch.zeros_like(slices[:, :1]) if is_term is None else is_term.unsqueeze(1)
    slices = torch.cat([slices, terms], dim=1)  # (M, S)
    outcomes = torch.stack([torch.ones_like(higher), higher < 1, higher < TOP], dim=1)  # (M, 3)
    counts = (slices.unsqueeze(2) * outcomes.unsqueeze(1)).long()
    zero = torch.zeros(len(rows), *counts.shape[1:], dtype=torch.long, device=rows.device)
    return {"row": rows, "counts": zero.index_add(0, row_of_label, counts)}


def slice_metrics(counts: np.ndarray) -> dict[str, dict[str, float | int]]:
    """Accuracy at 1 and at 5 of each slice that has tokens, and of all: from counts (R, S, 3)."""
    totals = counts.sum(0)
    named = dict(zip((*BANDS, TERMS), totals))
    named["all"] = totals[: len(BANDS)].sum(0)
    return {
        name: {"tokens": int(tokens), "accuracy_at_1": first / tokens, f"accuracy_at_{TOP}": top / tokens}
        for name, (tokens, first, top) in ((name, values.tolist()) for name, values in named.items())
        if tokens
    }
