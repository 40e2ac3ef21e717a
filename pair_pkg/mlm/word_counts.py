"""How often each word stands in a corpus, from its tokens alone; and which words mark it beside another corpus."""

# N tokens of the corpus, W distinct words of some number of tokens

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import IDEOGRAPH
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.terms import sequence_hashes

MAX_PIECES = 10  # of a word: longer ones are codes and addresses
MIN_COUNT = 5  # of a word that is mined: a rarer one is chance
SHORTEST_TERM, SHORTEST_CHINESE = 3, 2  # letters, characters


class WordCounts(NamedTuple):
    """The distinct words of one number of tokens: by hash, how often, and where one of them begins: (W,) each."""

    length: int
    hashes: np.ndarray
    counts: np.ndarray
    places: np.ndarray


def count_words(store: TokenStore) -> Iterator[WordCounts]:
    """The words of a corpus, those of one token first, up to ``MAX_PIECES``."""
    begins = np.flatnonzero(np.asarray(store.word_starts))
    lengths = np.diff(begins, append=len(store.ids))
    for length in range(1, MAX_PIECES + 1):
        places = begins[lengths == length]
        hashes = sequence_hashes(store.ids, places, length)
        distinct, first, counts = np.unique(hashes, return_index=True, return_counts=True)
        yield WordCounts(length, distinct, counts, places[first])


def mine_terms(
    domain: TokenStore, general: TokenStore, tokenizer: PreTrainedTokenizerFast, limit: int
) -> list[tuple[int, ...]]:
    """The ids of the words that tell the domain from general text most, the most first.

    By count x log of how many times as frequent a word is in the domain, one more counted in the general text: its
    part of the divergence of the two (Kullback-Leibler). Words of letters only, three or more, or two Chinese ones.
    """
    size = {"domain": domain.num_tokens, "general": max(general.num_tokens, 1)}
    scores, found = [], []
    for here, there in zip(count_words(domain), count_words(general)):
        index = np.searchsorted(there.hashes, here.hashes)
        known = index < len(there.hashes)
        known[known] = there.hashes[index[known]] == here.hashes[known]
        elsewhere = np.ones(len(here.hashes))
        elsewhere[known] += there.counts[index[known]]
        score = here.counts * np.log(here.counts / size["domain"] * size["general"] / elsewhere)
        wanted = (here.counts >= MIN_COUNT) & (score > 0)
        scores.append(score[wanted])
        found += [(place, here.length) for place in here.places[wanted].tolist()]
    order = np.argsort(-np.concatenate(scores), kind="stable")
    terms: list[tuple[int, ...]] = []
    for place, length in (found[number] for number in order):
        ids = domain.ids[place : place + length].tolist()
        if len(terms) < limit and tokenizer.unk_token_id not in ids and _is_term(tokenizer.decode(ids)):
            terms.append(tuple(ids))
    return terms


def _is_term(text: str) -> bool:
    word = text.replace(" ", "")
    return word.isalpha() and len(word) >= (SHORTEST_CHINESE if IDEOGRAPH.search(word) else SHORTEST_TERM)
