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
    """R pairs whose ``build_batch`` is the DataLoader's ``collate_fn``; an item is handed on to it as it is."""

    def __init__(self, pairs: Pairs, scheme: LabelScheme, *, with_rows: bool):
        self.num_pairs = len(pairs)
        self.targets = None if pairs.labels is None else pair_targets(scheme, pairs.labels)
        self.with_rows = with_rows

    def __len__(self) -> int:
        return self.num_pairs

    def __getitem__(self, item: Item) -> Item:
        return item

    def known(self, rows: np.ndarray) -> dict[str, Tensor]:
        """``labels (B,)`` of some pairs, absent without labels, and with ``with_rows`` their numbers ``rows (B,)``."""
        columns: dict[str, Any] = {}
        if self.targets is not None:
            columns["labels"] = torch.from_numpy(self.targets[rows])
        if self.with_rows:
            columns["rows"] = torch.from_numpy(rows)
        return columns
