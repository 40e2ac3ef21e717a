"""The rows that an export is proven on: a user's pairs, made ones beside them, and the extremes of length."""

# R rows (pairs of a cross-encoder, texts of a bi-encoder), P pairs, B rows of a batch, T tokens of the longest

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerFast

from pair_pkg.columns import CROSS_ENCODER
from pair_pkg.export.source import Finished
from pair_pkg.modeling.embedding import Padding, padding_of

logger = logging.getLogger("pair_pkg")

NUM_PAIRS = 1000  # at least: an error that one row in 500 shows is then missed once in seven proofs
BATCH_SIZES = (1, 3, 7, 32, 2, 19)  # by turns: one row, odd numbers, full batches
WINDOW = 256  # rows sorted by length within: batches of like length, some padding in each
SEED = 42

Encoded = tuple[list[int], list[int]]  # token ids and token types of one row
TextPair = tuple[str, str]


@dataclass(frozen=True)
class ProofRows:
    """Rows in the batches they are scored in; ``pairs`` and ``labels`` say what is compared."""

    encoded: list[Encoded]
    batches: list[np.ndarray]  # row numbers of each batch
    pairs: np.ndarray  # (P, 2) rows of both texts; (P, 1) the row of the pair
    labels: np.ndarray | None  # (L,) of the first pairs, where the user's have some
    kind: str | None  # of the labels: binary, classes or scores
    padding: Padding
    with_types: bool

    def collate(self, rows: np.ndarray) -> tuple[np.ndarray, ...]:
        """The graph's inputs of some rows, padded on the right: (B, T) int64 each."""
        return pad_rows([self.encoded[row] for row in rows], self.padding, self.with_types)


def build_proof_rows(
    finished: Finished,
    pairs: Sequence[TextPair] = (),
    labels: np.ndarray | None = None,
    kind: str | None = None,
    num_pairs: int = NUM_PAIRS,
) -> ProofRows:
    """The given pairs, made ones up to ``num_pairs``, and the shortest and longest texts there can be.

    How many of the given ones are longer than the graph takes is told.
    """
    tokenizer = standalone_tokenizer(finished.tokenizer, finished.max_seq_length)
    tokenizer.no_padding()
    draw = np.random.default_rng(SEED)
    makers = _MadeTexts(finished.tokenizer, tokenizer, finished.max_seq_length, draw)
    extremes = makers.extremes()
    texts = [*pairs, *(makers.pair() for _ in range(num_pairs - len(pairs))), *extremes]
    rows: list[Any]
    if finished.architecture == CROSS_ENCODER:
        rows, members = texts, np.arange(len(texts))[:, None]
    else:
        number = {text: row for row, text in enumerate(dict.fromkeys(text for pair in texts for text in pair))}
        rows, members = [*number], np.array([[number[one], number[other]] for one, other in texts])
    encodings = tokenizer.encode_batch(rows)
    num_given = int(members[: len(pairs)].max(initial=-1)) + 1
    warn_of_cut(encodings[:num_given], finished.architecture, finished.max_seq_length)
    encoded = [(encoding.ids, encoding.type_ids) for encoding in encodings]
    alone = [np.array([row]) for row in members[-len(extremes) :].ravel()]
    mixed = [np.unique(members[-len(extremes) :])]  # the shortest beside the longest
    lengths = np.array([len(ids) for ids, _ in encoded])
    padding = padding_of(finished.tokenizer)
    with_types = "token_type_ids" in finished.input_names
    return ProofRows(encoded, [*mixed, *alone, *_batches(lengths)], members, labels, kind, padding, with_types)


def standalone_tokenizer(tokenizer: PreTrainedTokenizerFast, max_seq_length: int) -> Tokenizer:
    """The tokenizer that ``tokenizers`` alone loads, in any language: it cuts and pads as the graph wants."""
    standalone = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    standalone.enable_truncation(max_seq_length, strategy="longest_first", direction=tokenizer.truncation_side)
    standalone.enable_padding(
        direction="right",
        pad_id=tokenizer.pad_token_id,
        pad_type_id=tokenizer.pad_token_type_id,
        pad_token=tokenizer.pad_token,
    )
    return standalone


def warn_of_cut(encodings: Sequence[Encoding], architecture: str, max_seq_length: int) -> None:
    """Say how many texts, or pairs of a cross-encoder, were longer than a graph takes."""
    num_cut = sum(bool(encoding.overflowing) for encoding in encodings)
    if num_cut:
        what = "pairs" if architecture == CROSS_ENCODER else "texts"
        logger.warning(
            "%d of %d %s are longer than the model's %d tokens; their ends are not read",
            num_cut, len(encodings), what, max_seq_length,
        )  # fmt: skip


def pad_rows(encoded: Sequence[Encoded], padding: Padding, with_types: bool) -> tuple[np.ndarray, ...]:
    """Rows as arrays (B, T) int64: ids, mask and, with ``with_types``, token types; padded on the right."""
    shape = len(encoded), max(len(ids) for ids, _ in encoded)
    ids, types = np.full(shape, padding.token_id, np.int64), np.full(shape, padding.token_type_id or 0, np.int64)
    mask = np.zeros(shape, np.int64)
    for row, (row_ids, row_types) in enumerate(encoded):
        ids[row, : len(row_ids)], types[row, : len(row_ids)], mask[row, : len(row_ids)] = row_ids, row_types, 1
    return (ids, mask, types) if with_types else (ids, mask)


class _MadeTexts:
    """Texts of ordinary tokens, drawn; the second text of a pair shares some of the first's."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerFast, standalone: Tokenizer, max_seq_length: int, draw: np.random.Generator
    ):
        self.tokenizer, self.standalone, self.max_seq_length, self.draw = tokenizer, standalone, max_seq_length, draw
        self.ordinary = np.setdiff1d(list(tokenizer.get_vocab().values()), tokenizer.all_special_ids)

    def pair(self) -> TextPair:
        """Two texts whose lengths are drawn on a logarithmic scale: short ones are the rule, long ones occur."""
        length = int(np.exp(self.draw.uniform(0, np.log(self.max_seq_length))))
        first = self.draw.choice(self.ordinary, max(1, length // 2))
        second = np.where(self.draw.random(len(first)) < self.draw.random(), first, self.draw.permutation(first))
        others = self.draw.choice(self.ordinary, len(second))
        second = np.where(self.draw.random(len(second)) < self.draw.random(), second, others)
        return self._text(first), self._text(second)

    def extremes(self) -> list[TextPair]:
        """One token beside one, the longest beside the longest, and one beside the longest."""
        longest = self._text(self.draw.choice(self.ordinary, 2 * self.max_seq_length))
        one = self._one_token()
        return [(one, one), (longest, longest), (one, longest)]

    def _text(self, ids: np.ndarray) -> str:
        return self.tokenizer.decode(ids.tolist()).strip() or self._one_token()

    def _one_token(self) -> str:
        """A text of one token, or the shortest of some."""
        words = [self.tokenizer.decode([token_id]).strip() for token_id in self.draw.choice(self.ordinary, 50).tolist()]
        encodings = self.standalone.encode_batch([word for word in words if word], add_special_tokens=False)
        lengths = [len(encoding.ids) for encoding in encodings]
        return [word for word in words if word][int(np.argmin(lengths))]


def _batches(lengths: np.ndarray) -> list[np.ndarray]:
    """All rows in batches whose sizes take turns."""
    windows = (np.arange(start, min(start + WINDOW, len(lengths))) for start in range(0, len(lengths), WINDOW))
    order = np.concatenate([window[np.argsort(lengths[window], kind="stable")] for window in windows])
    batches: list[np.ndarray] = []
    start = 0
    while start < len(order):
        size = BATCH_SIZES[len(batches) % len(BATCH_SIZES)]
        batches.append(order[start : start + size])
        start += size
    return batches
