"""What the batches of both architectures share: pairs by row, their targets, and their places."""

# R pairs, B pairs of a batch

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pair_pkg.data.batches import Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.loss import pair_targets


class PairBatches(Dataset):
    """R pairs whose ``build_batch`` is the DataLoader's ``collate_fn``; an item is handed on to it as it is.

    With ``both_orders`` there are 2R rows: the pairs, and then the same pairs swapped.
    """

    def __init__(self, pairs: Pairs, scheme: LabelScheme, *, with_rows: bool, both_orders: bool = False):
        self.num_pairs = len(pairs)
        self.both_orders = both_orders
        self.targets = None if pairs.labels is None else pair_targets(scheme, pairs.labels)
        self.with_rows = with_rows

    def __len__(self) -> int:
        return 2 * self.num_pairs if self.both_orders else self.num_pairs

    def __getitem__(self, item: Item) -> Item:
        return item

    def known(self, rows: np.ndarray) -> dict[str, Tensor]:
        """``labels (B,)`` of some rows, absent without labels, and with ``with_rows`` their numbers ``rows (B,)``."""
        columns: dict[str, Any] = {}
        if self.targets is not None:
            columns["labels"] = torch.from_numpy(self.targets[rows % self.num_pairs])
        if self.with_rows:
            columns["rows"] = torch.from_numpy(rows)
        return columns
