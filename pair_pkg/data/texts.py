"""Single texts as token ids: tokenized with their special tokens, cut to a length, gathered into batches."""

# T texts, N tokens of them all

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from pair_pkg.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast  # seconds of import that a process that cuts texts does not need

CHUNK_TEXTS = 10_000  # tokenized in one call: keeps all cores busy, and memory flat


@dataclass(frozen=True)
class TextTokens:
    """Token ids of T texts, one text after the other, special tokens included."""

    ids: np.ndarray  # (N,) int32
    token_types: np.ndarray  # (N,) int8
    lengths: np.ndarray  # (T,) int64
    num_truncated: int  # texts that were cut

    def take(self, texts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids and token types of some texts, one text after the other."""
        places = ranges(self._begins[texts], self.lengths[texts])
        return self.ids[places], self.token_types[places]

    @cached_property
    def _begins(self) -> np.ndarray:
        return np.cumsum(self.lengths) - self.lengths


def refuse_single_text(texts: Sequence[str], name: str) -> None:
    """Raise ``InputError`` where one string stands for a list of texts: its characters would be taken for them.

    >>> refuse_single_text(["a text"], "texts")
    """
    if isinstance(texts, str):
        raise InputError(f"{name}: one string where a list of texts belongs; give [{texts[:20]!r}]")


def tokenize_singles(texts: Sequence[str], tokenizer: "PreTrainedTokenizerFast", max_seq_length: int) -> TextTokens:
    """Tokenize texts by themselves, each at most ``max_seq_length`` tokens long with its special tokens.

    Token types are the tokenizer's where it gives them, else 0.
    """
    ids, token_types, lengths, num_truncated = [np.empty(0, np.int32)], [np.empty(0, np.int8)], [], 0
    for start in range(0, len(texts), CHUNK_TEXTS):
        chunk = list(texts[start : start + CHUNK_TEXTS])
        encodings = tokenizer(chunk, truncation=True, max_length=max_seq_length).encodings
        for encoding in encodings:
            ids.append(np.array(encoding.ids, dtype=np.int32))
            token_types.append(np.array(encoding.type_ids, dtype=np.int8))
            lengths.append(len(ids[-1]))
            num_truncated += bool(encoding.overflowing)
    return TextTokens(np.concatenate(ids), np.concatenate(token_types), np.array(lengths, np.int64), num_truncated)


def cut_by_tokens(lengths: np.ndarray, batch_tokens: int, *, padded: bool) -> Iterator[slice]:
    """Slices of texts in their order, each of at most ``batch_tokens`` tokens, or of one text that is longer.

    With ``padded``, every text of a slice counts as its longest.

    >>> lengths = np.array([5, 4, 4, 2, 2])
    >>> list(cut_by_tokens(lengths, 10, padded=False)), list(cut_by_tokens(lengths, 10, padded=True))
    ([slice(0, 2, None), slice(2, 5, None)], [slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)])
    """
    start, total, widest = 0, 0, 0
    for text, length in enumerate(lengths.tolist()):
        total, widest = total + length, max(widest, length)
        cost = widest * (text + 1 - start) if padded else total
        if cost > batch_tokens and text > start:
            yield slice(start, text)
            start, total, widest = text, length, length
    if len(lengths):
        yield slice(start, len(lengths))


def ranges(begins: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The integers begins[i], begins[i] + 1, ... counts[i] of them, one run after the other.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    ends = np.cumsum(counts)
    return np.arange(counts.sum()) + np.repeat(begins - (ends - counts), counts)
