"""Sentence pairs as batches of the bi-encoder: the distinct texts of a step once, and where each pair finds its own."""

# R pairs, B pairs of a batch, U distinct texts of a batch, N tokens

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.batches import Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import connected_components
from pair_pkg.data.texts import tokenize_singles
from pair_pkg.modeling.embedding import build_text_batch, padding_of
from pair_pkg.pairs.batches import PairBatches


class PairTexts(PairBatches):
    """Batches of sentence pairs; ``build_batch`` is the DataLoader's ``collate_fn``.

    A batch holds the inputs of its U distinct texts, longest first, as ``build_text_batch`` makes them (without
    ``flat``: padded), the texts' numbers ``sentence1 (B,)`` and ``sentence2 (B,)``, and ``labels (B,)``, the targets
    of the loss (see ``pair_targets``), absent without labels. ``with_rows`` (evaluation) adds ``rows (B,)``, and
    ``with_groups`` (in-batch negatives) adds ``groups (B,)``: pairs that texts connect, over all R pairs, are one
    group. A filler has texts and no pair.
    """

    def __init__(
        self,
        pairs: Pairs,
        scheme: LabelScheme,
        tokenizer: PreTrainedTokenizerFast,
        max_seq_length: int,
        *,
        flat: bool,
        with_rows: bool = False,
        with_groups: bool = False,
    ):
        super().__init__(pairs, scheme, with_rows=with_rows)
        self.padding = None if flat else padding_of(tokenizer)
        self.groups = connected_components(pairs.sentence1, pairs.sentence2) if with_groups else None
        texts = pairs.texts()
        self.sentences = pairs.sentences(texts)  # (R, 2)
        self.tokens = tokenize_singles(texts, tokenizer, max_seq_length)
        self.num_truncated = self.tokens.num_truncated

    def row_tokens(self) -> np.ndarray:
        """Tokens of both sentences of each pair: (R,)."""
        return self.tokens.lengths[self.sentences].sum(1)

    def build_batch(self, items: Sequence[Item]) -> dict[str, Any]:
        """The batch of some pairs."""
        rows = np.array([item.row for item in items])
        counted = rows[:0] if items[0].is_filler else rows
        texts = np.unique(self.sentences[rows])
        order = np.argsort(-self.tokens.lengths[texts], kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        sentence1, sentence2 = place[np.searchsorted(texts, self.sentences[counted])].T
        batch = {"sentence1": torch.from_numpy(sentence1), "sentence2": torch.from_numpy(sentence2)}
        if self.groups is not None:
            batch["groups"] = torch.from_numpy(self.groups[counted])
        return batch | self.known(counted) | build_text_batch(self.tokens, texts[order], self.padding)
