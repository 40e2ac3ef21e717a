"""Sentence pairs as batches of the cross-encoder, flat for the padding-free forward or padded for a stock one."""

# R pairs, B pairs of a batch, N tokens, T the longest pair of a batch, P pieces of a pair (special tokens and texts)

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.batches import Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.texts import ranges
from pair_pkg.modeling.embedding import arrange_tokens, padding_of
from pair_pkg.pairs.batches import PairBatches
from pair_pkg.pairs.symmetry import is_swapped

CHUNK_TEXTS = 10_000  # tokenized in one call: keeps all cores busy, and memory flat


class PairRows(PairBatches):
    """Batches of sentence pairs; ``build_batch`` is the DataLoader's ``collate_fn``.

    A pair is what the tokenizer makes of it, truncated longest first; every text is tokenized once, here. With
    ``flat`` a batch is ``{input_ids (N,), position_ids (N,), token_type_ids (N,), layout, wanted (B,)}``, longest
    pair first and nothing padded; ``wanted`` is the place of each pair's first token. Else it is ``{input_ids (B, T),
    attention_mask (B, T), wanted (B,)}`` and ``token_type_ids`` where the tokenizer has them; ``wanted`` then names
    the lines. ``labels (B,)`` are the targets of the loss (see ``pair_targets``), absent without labels. With
    ``with_rows`` (evaluation), ``rows (B,)`` names the pairs. A filler wants nothing and has no label. With ``copies``
    above 1 (R-Drop) a pair stands that often in its batch, its copies next to each other, and its label once.

    With ``both_orders`` (evaluation) the rows are the R pairs and then the R swapped ones; with ``swap_seed``
    (training) half of the pairs are read swapped, as ``is_swapped`` draws it.
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
        copies: int = 1,
        both_orders: bool = False,
        swap_seed: int | None = None,
    ):
        super().__init__(pairs, scheme, with_rows=with_rows, both_orders=both_orders)
        self.swap_seed = swap_seed
        self.copies = copies
        self.template = pair_template(tokenizer)
        self.padding = None if flat else padding_of(tokenizer)

        texts = pairs.texts()
        text_ids, offsets = tokenize_texts(texts, tokenizer)
        chosen = pairs.sentences(texts)  # (R, 2)
        chosen = np.concatenate([chosen, chosen[:, ::-1]])  # (2R, 2): the pairs, and the pairs swapped
        whole = np.diff(offsets)[chosen]
        num_special = sum(piece.sentence is None for piece in self.template)
        kept = truncate_longest_first(whole, max_seq_length - num_special)
        cut = whole - kept if tokenizer.truncation_side == "left" else 0
        self.num_truncated = int((kept < whole).any(1)[: len(pairs)].sum())
        # special tokens stand before the texts in one array, so that every piece of a pair is a range of it
        self.ids = np.concatenate([[piece.token_id for piece in self.template], text_ids]).astype(np.int32)
        self.starts = offsets[chosen] + cut + len(self.template)  # (2R, 2)
        self.lengths = kept  # (2R, 2)
        self.num_tokens = kept.sum(1) + num_special  # (2R,), the same for both orders

    def row_tokens(self) -> np.ndarray:
        """Tokens of each row, special tokens included: (R,), or (2R,) with ``both_orders``."""
        return self.num_tokens[: len(self)]

    def build_batch(self, items: Sequence[Item]) -> dict[str, Any]:
        """The batch of some pairs."""
        rows = np.array([item.row for item in items])
        if self.swap_seed is not None:
            rows = rows + self.num_pairs * is_swapped(self.swap_seed, items[0].epoch, rows)
        rows = rows[np.argsort(-self.num_tokens[rows], kind="stable")]
        counted = rows[:0] if items[0].is_filler else rows
        rows = np.repeat(rows, self.copies)
        starts, counts = self._pieces_of(rows)
        input_ids = self.ids[ranges(starts.ravel(), counts.ravel())].astype(np.int64)
        types = np.tile([piece.token_type for piece in self.template], len(rows))
        token_type_ids = np.repeat(types, counts.ravel())
        lengths = self.num_tokens[rows]
        batch = arrange_tokens(torch.from_numpy(input_ids), torch.from_numpy(token_type_ids), lengths, self.padding)
        firsts = np.cumsum(lengths) - lengths if self.padding is None else np.arange(len(rows))
        return batch | self.known(counted) | {"wanted": torch.from_numpy(firsts[: self.copies * len(counted)])}

    def _pieces_of(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the pieces of the pairs lie in ``ids``, and how long they are: (B, P) each."""
        starts = np.tile(np.arange(len(self.template)), (len(rows), 1))
        counts = np.ones_like(starts)
        for place, piece in enumerate(self.template):
            if piece.sentence is not None:
                starts[:, place] = self.starts[rows, piece.sentence]
                counts[:, place] = self.lengths[rows, piece.sentence]
        return starts, counts


class Piece(NamedTuple):
    """A special token of a pair, or the place of its sentence 0 or 1."""

    token_type: int
    token_id: int = 0
    sentence: int | None = None


def pair_template(tokenizer: PreTrainedTokenizerFast) -> list[Piece]:
    """How a tokenizer dresses two sentences, such as [CLS] A [SEP] B [SEP] with their token types."""
    encoding = tokenizer("a", "a", return_token_type_ids=True)
    has_token_types = "token_type_ids" in tokenizer.model_input_names
    template: list[Piece] = []
    for token_id, token_type, sentence in zip(
        encoding["input_ids"], encoding["token_type_ids"], encoding.sequence_ids(0)
    ):
        piece = Piece(token_type if has_token_types else 0, token_id if sentence is None else 0, sentence)
        if sentence is None or piece not in template:
            template.append(piece)
    return template


def tokenize_texts(texts: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of all texts, one after the other and without special tokens, (N,), and their offsets, (texts + 1,)."""
    chunks, lengths = [np.empty(0, dtype=np.int32)], [0]
    for start in range(0, len(texts), CHUNK_TEXTS):
        chunk = list(texts[start : start + CHUNK_TEXTS])
        encoded = tokenizer(
            chunk,
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            verbose=False,  # a text may be longer than the model: it is truncated later
        )["input_ids"]
        lengths += map(len, encoded)
        chunks.append(np.concatenate([np.array(ids, dtype=np.int32) for ids in encoded]))
    return np.concatenate(chunks), np.cumsum(lengths)


def truncate_longest_first(lengths: np.ndarray, capacity: int) -> np.ndarray:
    """What is kept of pairs of lengths (R, 2) that share ``capacity`` tokens: as ``longest_first`` of tokenizers.

    The longer text is cut first; where both are cut, an odd token goes to the longer, or to the second of equals.

    >>> truncate_longest_first(np.array([[2, 9], [9, 9], [9, 8], [3, 4]]), 7).tolist()
    [[2, 5], [3, 4], [4, 3], [3, 4]]
    """
    shorter = np.minimum(lengths.min(1), capacity // 2)
    longer = np.minimum(lengths.max(1), capacity - shorter)
    first_is_longer = lengths[:, 0] > lengths[:, 1]
    first = np.where(first_is_longer, longer, shorter)
    return np.stack([first, shorter + longer - first], axis=1)
