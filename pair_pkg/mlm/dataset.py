"""Rows of the corpus as masked batches, flat for the padding-free forward or padded for a stock one."""

# B rows of a batch, S segments (windows with their special tokens), N tokens, M predicted tokens

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.rows import Rows
from pair_pkg.data.texts import ranges
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.terms import Terms
from pair_pkg.modeling.layout import Layout


class MaskedRows(Dataset):
    """Batches of masked rows; ``build_batch`` is the DataLoader's ``collate_fn``.

    ``affixes`` are the special tokens before and after each window; they are never predicted. With ``flat`` a batch
    is ``{input_ids (N,), position_ids (N,), layout, predicted (M,), labels (M,)}``, its segments longest first and
    nothing padded. Else it is ``{input_ids (S, T), attention_mask (S, T), predicted (M,), labels (M,)}``, one
    segment a line, which every stock forward understands; ``predicted`` then counts in the flattened (S * T,). With
    ``with_rows`` (evaluation), ``rows (B,)`` names the rows and ``row_of_label (M,)`` the place in ``rows`` of each
    label, and with ``terms`` also ``is_term (M,)`` which labels are part of one.
    A token ``unpredicted`` inside rows, such as [SEP] between the sentences of a pair, is never chosen.
    """

    def __init__(
        self,
        store: TokenStore,
        rows: Rows,
        masking: Masking,
        affixes: tuple[Sequence[int], Sequence[int]],
        pad_token_id: int,
        *,
        flat: bool,
        with_rows: bool = False,
        terms: Terms | None = None,
        unpredicted: int | None = None,
    ):
        self.store = store
        self.rows = rows
        self.masking = masking
        self.prefix, self.suffix = (np.array(affix, dtype=np.int64) for affix in affixes)
        self.pad_token_id = pad_token_id
        self.flat = flat
        self.with_rows = with_rows
        self.terms = terms
        self.unpredicted = unpredicted

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, item: Item) -> Item:
        return item

    def row_tokens(self) -> np.ndarray:
        """Tokens of each row, for batches of like length: (R,)."""
        return self.rows.row_tokens()

    def build_batch(self, items: Sequence[Item]) -> dict[str, Any]:
        """The batch of some rows, all of one epoch."""
        windows, row_of_window = self._windows_of(items)
        positions, row_of_token = self._tokens_of(windows, row_of_window)
        ids = self.store.ids[positions].astype(np.int64)
        chosen = self._choose(items, positions, row_of_token, ids)
        if self.unpredicted is not None:
            chosen &= ids != self.unpredicted
        if items[0].is_filler:
            chosen[:] = False
        labels = ids[chosen]
        is_term = self._find_terms(ids, positions)[chosen] if self.terms is not None else None
        ids[chosen] = self.masking.shown(labels, positions[chosen], items[0].epoch)
        row_of_label = row_of_token[chosen]

        lengths = self.rows.lengths[windows]
        longest_first = np.argsort(-lengths, kind="stable")
        segments, place_of_token = self._dress(ids, lengths, longest_first)
        predicted = place_of_token[chosen]
        ascending = np.argsort(predicted, kind="stable")
        batch = {"predicted": predicted[ascending], "labels": labels[ascending]}
        if self.with_rows:
            batch["rows"] = np.array([item.row for item in items])
            batch["row_of_label"] = row_of_label[ascending]
            if is_term is not None:
                batch["is_term"] = is_term[ascending]
        segment_lengths = lengths[longest_first] + len(self.prefix) + len(self.suffix)
        arrange = self._arrange_flat if self.flat else self._arrange_padded
        tensors = {name: torch.from_numpy(values) for name, values in batch.items()}
        return tensors | arrange(torch.from_numpy(segments), segment_lengths, tensors["predicted"])

    def _choose(
        self, items: Sequence[Item], positions: np.ndarray, row_of_token: np.ndarray, ids: np.ndarray
    ) -> np.ndarray:
        """Which tokens of the rows are predicted: (T,) bool."""
        epoch, inputs = items[0].epoch, {}
        if self.masking.needs_words:
            inputs = {"ids": ids, "word_starts": self.store.word_starts[positions]}
        if epoch != FROZEN:
            inputs["rates"] = self.masking.rates(np.array([item.progress for item in items]))
        return self.masking.predicted(positions, row_of_token, epoch, **inputs)

    def _find_terms(self, ids: np.ndarray, positions: np.ndarray) -> np.ndarray:
        return self.terms.marks(ids, self.store.word_starts[positions], positions)

    def _windows_of(self, items: Sequence[Item]) -> tuple[np.ndarray, np.ndarray]:
        """Window numbers of the rows, and the place in the batch of each one's row: (S,), (S,)."""
        rows = np.array([self.rows.row_at(item.row, item.epoch) for item in items])
        begins = self.rows.row_offsets[rows]
        counts = self.rows.row_offsets[rows + 1] - begins
        return ranges(begins, counts), np.repeat(np.arange(len(items)), counts)

    def _tokens_of(self, windows: np.ndarray, row_of_window: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places in the corpus of all tokens of the windows, and their rows."""
        lengths = self.rows.lengths[windows]
        return ranges(self.rows.starts[windows], lengths), np.repeat(row_of_window, lengths)

    def _dress(self, ids: np.ndarray, lengths: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lay windows in ``order``, special tokens around each: (N,) ids, and where each input token went."""
        full = lengths + len(self.prefix) + len(self.suffix)
        starts = np.empty_like(full)
        starts[order] = np.cumsum(full[order]) - full[order]
        place_of_token = ranges(starts + len(self.prefix), lengths)
        dressed = np.empty(full.sum(), dtype=np.int64)
        dressed[place_of_token] = ids
        for affix, begin in ((self.prefix, starts), (self.suffix, starts + len(self.prefix) + lengths)):
            dressed[begin[:, None] + np.arange(len(affix))] = affix
        return dressed, place_of_token

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
