"""Rows of the corpus as masked batches, flat for the padding-free forward or padded for a stock one."""

# B rows of a batch, S segments (windows with their special tokens), N tokens, M predicted tokens

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.rows import Rows
from pair_pkg.data.stream import StreamRow
from pair_pkg.data.texts import ranges
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.reconstruction import Reconstruction
from pair_pkg.mlm.segments import Affixes, RowTokens
from pair_pkg.mlm.terms import Terms
from pair_pkg.modeling.layout import Layout


class MaskedBatches(Dataset):
    """Batches of masked rows, kept (``MaskedRows``) or not; ``build_batch`` is the DataLoader's ``collate_fn``.

    ``affixes`` are the special tokens before and after each window; they are never predicted. With ``flat`` a batch
    is ``{input_ids (N,), position_ids (N,), layout, predicted (M,), labels (M,)}``, its segments longest first and
    nothing padded. Else it is ``{input_ids (S, T), attention_mask (S, T), predicted (M,), labels (M,)}``, one
    segment a line, which every stock forward understands; ``predicted`` then counts in the flattened (S * T,). With
    ``with_rows`` (evaluation), ``rows (B,)`` names the rows and ``row_of_label (M,)`` the place in ``rows`` of each
    label, and with ``terms`` also ``is_term (M,)`` which labels are part of one.
    A token ``unpredicted`` inside rows, such as [SEP] between the sentences of a pair, is never chosen.

    With ``reconstruction`` (flat batches only) some windows are written again from their vectors: a batch then has
    ``targets``, and behind the labels of its masks stand those of the targets.
    """

    def __init__(
        self,
        masking: Masking,
        affixes: tuple[Sequence[int], Sequence[int]],
        pad_token_id: int,
        *,
        flat: bool,
        with_rows: bool = False,
        terms: Terms | None = None,
        unpredicted: int | None = None,
        reconstruction: Reconstruction | None = None,
    ):
        self.masking = masking
        self.affixes = Affixes.of(*affixes)
        self.pad_token_id = pad_token_id
        self.flat = flat
        self.with_rows = with_rows
        self.terms = terms
        self.unpredicted = unpredicted
        self.reconstruction = reconstruction

    def __getitem__(self, item: Any) -> Any:
        return item

    @abstractmethod
    def read(self, items: Sequence[Any]) -> RowTokens:
        """The tokens of some rows."""

    def build_batch(self, items: Sequence[Any]) -> dict[str, Any]:
        """The batch of some rows, all of one epoch."""
        epoch, how = items[0].epoch, self.reconstruction
        tokens = self.read(items)
        chosen, is_seen = self._choose(items, tokens), np.ones(len(tokens.ids), dtype=bool)
        if how is not None:
            again = how.takes(tokens, epoch) & (not items[0].is_filler)
            chosen &= how.may_be_masked(tokens, again)
            is_seen = ~how.deleted(tokens, again, epoch, self.unpredicted)
        ids = tokens.ids.copy()
        ids[chosen] = self.masking.shown(ids[chosen], tokens.positions[chosen], epoch)

        lengths = np.add.reduceat(is_seen, tokens.begins, dtype=np.int64)
        longest_first = np.argsort(-lengths, kind="stable")
        segments, place_of_token = self.affixes.dress(ids[is_seen], lengths, longest_first)
        predicted = place_of_token[chosen[is_seen]]
        ascending = np.argsort(predicted, kind="stable")
        batch = {"predicted": predicted[ascending], "labels": tokens.ids[chosen][ascending]}
        if self.with_rows:
            batch |= {
                "rows": np.array([item.row for item in items]),
                "row_of_label": tokens.row_of_token[chosen][ascending],
            }
            if self.terms is not None:
                marks = self.terms.marks(tokens.ids, tokens.word_starts, tokens.positions)
                batch["is_term"] = marks[chosen][ascending]
        targets = {}
        if how is not None:
            targets["targets"], labels = how.targets(tokens, again, longest_first, self.affixes, epoch)
            batch["labels"] = np.concatenate([batch["labels"], labels])
        arrange = self._arrange_flat if self.flat else self._arrange_padded
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        segment_lengths = lengths[longest_first] + self.affixes.count
        return tensors | targets | arrange(torch.from_numpy(segments), segment_lengths, tensors["predicted"])

    def _choose(self, items: Sequence[Any], tokens: RowTokens) -> np.ndarray:
        """Which tokens of the rows are predicted by masks: (T,) bool; none of a filler's."""
        if items[0].is_filler:
            return np.zeros(len(tokens.ids), dtype=bool)
        epoch, inputs = items[0].epoch, {}
        if self.masking.needs_words:
            inputs = {"ids": tokens.ids, "word_starts": tokens.word_starts}
        if epoch != FROZEN:
            inputs["rates"] = self.masking.rates(np.array([item.progress for item in items]))
        chosen = self.masking.predicted(tokens.positions, tokens.row_of_token, epoch, **inputs)
        return chosen if self.unpredicted is None else chosen & (tokens.ids != self.unpredicted)

    def _arrange_flat(self, ids: Tensor, lengths: np.ndarray, predicted: Tensor) -> dict[str, Any]:
        position_ids = torch.from_numpy(ranges(np.zeros_like(lengths), lengths))
        return {"input_ids": ids, "position_ids": position_ids, "layout": Layout(lengths.tolist())}

    def _arrange_padded(self, ids: Tensor, lengths: np.ndarray, predicted: Tensor) -> dict[str, Tensor]:
        width = int(lengths.max())
        real = torch.arange(width) < torch.from_numpy(lengths).unsqueeze(1)  # (S, T)
        padded = torch.full((len(lengths), width), self.pad_token_id)
        padded[real] = ids
        places = real.flatten().nonzero().squeeze(1)  # of the flat tokens in (S * T,)
        return {"input_ids": padded, "attention_mask": real.long(), "predicted": places[predicted]}


class MaskedRows(MaskedBatches):
    """Batches of rows over a store; an item is an ``Item``."""

    def __init__(
        self,
        store: TokenStore,
        rows: Rows,
        masking: Masking,
        affixes: tuple[Sequence[int], Sequence[int]],
        pad_token_id: int,
        **settings: Any,
    ):
        super().__init__(masking, affixes, pad_token_id, **settings)
        self.store = store
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def row_tokens(self) -> np.ndarray:
        """Tokens of each row, for batches of like length: (R,)."""
        return self.rows.row_tokens()

    def read(self, items: Sequence[Item]) -> RowTokens:
        numbers = np.array([self.rows.row_at(item.row, item.epoch) for item in items])
        return RowTokens.read(self.store, self.rows, numbers)


class MaskedStream(MaskedBatches):
    """Batches of rows that bring their tokens along; an item is a ``StreamRow``."""

    def read(self, items: Sequence[StreamRow]) -> RowTokens:
        return RowTokens.join(items)
