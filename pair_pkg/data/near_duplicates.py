"""Documents that are nearly those before them, by MinHash (rensa)."""

import re
from collections.abc import Iterable, Iterator
from itertools import islice

from rensa import RMinHash, RMinHashDeduplicator

from pair_pkg.data.corpus import CorpusAudit, Document

NUM_PERMUTATIONS = 128  # of the signature: a Jaccard share to about 0.04 (1 / (2 sqrt(128)))
SHINGLE = 3  # words, or Chinese characters: their order within counts, and a changed word costs three of them
CHUNK = 1_000  # documents whose signatures are made in one call
SEED = 1
_WORD = re.compile(
    "[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|[^\\W_\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+"
)


def drop_near_duplicates(documents: Iterable[Document], threshold: float, audit: CorpusAudit) -> Iterator[Document]:
    """The documents but for those whose shingles are, by ``threshold`` of all, those of one that was kept before.

    The share (Jaccard's) is estimated, as MinHash does. ``audit`` counts what is dropped. About a kilobyte of memory a
    document.
    """
    known = RMinHashDeduplicator(threshold, NUM_PERMUTATIONS, use_lsh=True, seed=SEED)
    documents = iter(documents)
    number = 0
    while chunk := list(islice(documents, CHUNK)):
        signatures = RMinHash.from_token_sets([shingles(part.text) for part in chunk], NUM_PERMUTATIONS, SEED)
        for document, signature in zip(chunk, signatures):
            number += 1
            if known.add(str(number), signature):
                yield document
            else:
                audit.near_duplicates += 1
                audit.documents_kept -= 1
                audit.characters -= len(document.text)


def shingles(text: str) -> list[str]:
    """Runs of three words, of Chinese, Japanese and Korean of three characters; a shorter text is one run.

    >>> shingles("The old pump, leaks"), shingles("花呗还款"), shingles("A b")
    (['the old pump', 'old pump leaks'], ['花 呗 还', '呗 还 款'], ['a b'])
    """
    words = _WORD.findall(text.casefold())
    return [" ".join(words[start : start + SHINGLE]) for start in range(max(1, len(words) - SHINGLE + 1))]
