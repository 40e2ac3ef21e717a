"""Chinese terms of a corpus, by counts alone: runs of characters that hold together and stand in many contexts."""

# N tokens of the corpus, P places where a run may begin

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import IDEOGRAPH
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.terms import sequence_hashes
from pair_pkg.mlm.word_counts import MIN_COUNT

LONGEST = 4  # characters of a term
MIN_COHESION = 0.5  # normalized pointwise mutual information (Bouma, 2009): 0 by chance, 1 never apart
MOSTLY = 0.5  # share of a run's places inside one longer run, from which on it is a part of that one and no term


@dataclass(frozen=True)
class Run:
    """A run of characters: how often it stands in the corpus, and where first."""

    text: str
    count: int
    place: int


def mine_chinese_terms(store: TokenStore, tokenizer: PreTrainedTokenizerFast) -> list[Run]:
    """The runs of two to four characters that are terms, those that save most tokens first.

    A run begins and ends where the corpus's Chinese words do (``store.word_starts``, by the segmenter), stands
    ``MIN_COUNT`` times, holds together wherever it may be parted, and is no part of one longer run most of the time.
    """
    characters = _characters(tokenizer)
    ids, stretches = np.asarray(store.ids), _Stretches(store, characters)
    counts = {length: _Counts(ids, stretches.places(length), length) for length in range(1, LONGEST + 2)}
    frequent: dict[str, Run] = {}
    for length in range(2, LONGEST + 2):
        for place, count in counts[length].frequent():
            text = "".join(characters[number] for number in ids[place : place + length].tolist())
            frequent[text] = Run(text, count, place)
    parts = {part for run in frequent.values() for part in _parts(run.text) if _belongs(part, run, frequent)}
    terms = [
        run
        for run in frequent.values()
        if len(run.text) <= LONGEST and run.text not in parts and _holds_together(store, counts, run)
    ]
    return sorted(terms, key=lambda run: (-run.count * (len(run.text) - 1), run.text))


class _Stretches:
    """Where ideographs stand, and where words and documents begin among them."""

    def __init__(self, store: TokenStore, characters: dict[int, str]):
        is_character = np.zeros(int(store.ids.max(initial=0)) + 1, dtype=bool)
        known = np.fromiter(characters, np.int64, len(characters))
        is_character[known[known < len(is_character)]] = True
        self.is_ideograph = is_character[store.ids]  # (N,)
        self.begins = np.append(np.asarray(store.word_starts) | ~self.is_ideograph, True)  # (N + 1,)
        self.begins[np.asarray(store.offsets)] = True  # a document's end ends a word
        self.document = np.repeat(np.arange(store.num_documents), np.diff(store.offsets))  # (N,)

    def places(self, length: int) -> np.ndarray:
        """Where ``length`` ideographs of one document stand from one word's begin to another's end: (P,)."""
        places = np.flatnonzero(self.is_ideograph & self.begins[:-1])
        places = places[places + length <= len(self.is_ideograph)]
        whole = self.begins[places + length] & (self.document[places] == self.document[places + length - 1])
        for step in range(1, length):
            whole &= self.is_ideograph[places + step]
        return places[whole]


class _Counts:
    """How often each distinct run of one length stands at some places (P,)."""

    def __init__(self, ids: np.ndarray, places: np.ndarray, length: int):
        hashes = sequence_hashes(ids, places, length)
        self.ids, self.length = ids, length
        self.hashes, first, self.counts = np.unique(hashes, return_index=True, return_counts=True)
        self.places = places[first]

    def frequent(self) -> Iterator[tuple[int, int]]:
        often = self.counts >= MIN_COUNT
        return zip(self.places[often].tolist(), self.counts[often].tolist())

    def of(self, place: int) -> int:
        """The count of the run that stands at a place."""
        wanted = sequence_hashes(self.ids, np.array([place]), self.length)[0]
        number = np.searchsorted(self.hashes, wanted)
        known = number < len(self.hashes) and self.hashes[number] == wanted
        return int(self.counts[number]) if known else 1


def _characters(tokenizer: PreTrainedTokenizerFast) -> dict[int, str]:
    """The entries that are one ideograph, by id."""
    entries = tokenizer.get_vocab().items()
    return {number: entry for entry, number in entries if len(entry) == 1 and IDEOGRAPH.match(entry)}


def _holds_together(store: TokenStore, counts: dict[int, _Counts], run: Run) -> bool:
    """Whether the parts of a run meet more often than by chance, at each word boundary inside it."""
    total, length = store.num_tokens, len(run.text)
    for split in range(1, length):
        if store.word_starts[run.place + split]:
            apart = counts[split].of(run.place) * counts[length - split].of(run.place + split)
            if np.log(run.count * total / apart) < MIN_COHESION * np.log(total / run.count):
                return False
    return True


def _parts(text: str) -> set[str]:
    """The shorter runs of two or more characters inside a run.

    >>> sorted(_parts("abcd"))
    ['ab', 'abc', 'bc', 'bcd', 'cd']
    """
    sizes = range(2, len(text))
    return {text[start : start + size] for size in sizes for start in range(len(text) - size + 1)}


def _belongs(part: str, run: Run, frequent: dict[str, Run]) -> bool:
    return part in frequent and run.count >= MOSTLY * frequent[part].count
