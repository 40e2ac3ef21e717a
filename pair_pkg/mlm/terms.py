"""Domain terms among the tokens of a batch."""

# T tokens of the rows of a batch, K places where a term may begin

from collections.abc import Iterable, Sequence

import numpy as np
from transformers import PreTrainedTokenizerFast

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd: ids are told apart in every place of a sequence


class Terms:
    """Finds terms, given as sequences of token ids, where they stand between word boundaries.

    Sequences are told apart by 64 bits of a polynomial in their ids.
    """

    def __init__(self, sequences: Iterable[Sequence[int]]):
        by_length: dict[int, list[np.ndarray]] = {}
        for sequence in sequences:
            by_length.setdefault(len(sequence), []).append(np.array(sequence, dtype=np.int64))
        self._hashes = {
            length: np.unique(sequence_hashes(np.concatenate(part), np.arange(len(part)) * length, length))
            for length, part in sorted(by_length.items())
        }
        firsts = np.array([part[0] for parts in by_length.values() for part in parts], dtype=np.int64)
        self._may_begin = np.zeros(firsts.max() + 1 if len(firsts) else 1, dtype=bool)
        self._may_begin[firsts] = True

    def __len__(self) -> int:
        return sum(map(len, self._hashes.values()))

    def marks(self, ids: np.ndarray, word_starts: np.ndarray, positions: np.ndarray) -> np.ndarray:
        """Which tokens are part of a term: (T,) ids, (T,) bool, (T,) places in the corpus -> (T,) bool."""
        begins = word_starts.copy()
        begins[1:] |= np.diff(positions) != 1
        known = ids < len(self._may_begin)
        candidates = np.flatnonzero(begins & known & self._may_begin[np.where(known, ids, 0)])
        change = np.zeros(len(ids) + 1, dtype=np.int64)
        for length, hashes in self._hashes.items():
            places = candidates[candidates + length <= len(ids)]
            ends = places + length
            whole = positions[ends - 1] - positions[places] == length - 1
            whole &= np.append(begins, True)[ends]
            places = places[whole]
            found = places[np.isin(sequence_hashes(ids, places, length), hashes)]
            change[found] += 1
            change[found + length] -= 1
        return np.cumsum(change[:-1]) > 0


def tokenize_terms(terms: Sequence[str], tokenizer: PreTrainedTokenizerFast) -> tuple[Terms, int]:
    """Terms as a tokenizer writes them, behind a blank too; and how many it does not know, which are left out."""
    sequences: set[tuple[int, ...]] = set()
    unknown = 0
    for term in terms:
        written = tokenizer([term, f" {term}"], add_special_tokens=False)["input_ids"]
        known = {tuple(ids) for ids in written if ids and tokenizer.unk_token_id not in ids}
        unknown += not known
        sequences |= known
    return Terms(sorted(sequences)), unknown


def sequence_hashes(ids: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    """A number for the ``length`` ids from each of the ``places`` (K,) on: (K,) uint64."""
    total = np.zeros(len(places), dtype=np.uint64)
    for step in range(length):
        total = total * _BASE + ids[places + step].astype(np.uint64) + np.uint64(1)
    return total
