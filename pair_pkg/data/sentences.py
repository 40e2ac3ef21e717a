"""Sentences of documents: cut at stops, and a fair sample of the different ones in memory of one size."""

import hashlib
import heapq
import re
from collections.abc import Callable, Collection, Iterable, Iterator

from pair_pkg.data.splits import normalize_text

# A stop ends a sentence before a space and no small letter (a capital, a figure, a list's dash); a Chinese or Japanese
# stop, and a line, always do.
_END = re.compile(r"[.!?]+[\"'”’)\]]*\s+(?=[\"'“‘(\[]?[^\W_a-z]|- )|[。！？；…]+[”’」』）]*\s*|\s*\n\s*")
# A stop behind these, or behind one capital letter, belongs to the word.
_ABBREVIATION = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Z]|(?:[A-Z]\.)+[A-Z]|dr|mr|mrs|ms|prof|st|vs|e\.g|i\.e|cf|fig)\.$", re.I
)


def split_sentences(text: str) -> Iterator[str]:
    """The sentences of a text, English or Chinese, without space around them; empty ones are left out.

    >>> list(split_sentences("See Dr. Who (e.g. Monday). It helps? Yes.\\n发烧了。怎么办？多喝水"))
    ['See Dr. Who (e.g. Monday).', 'It helps?', 'Yes.', '发烧了。', '怎么办？', '多喝水']
    """
    start = 0
    for end in _END.finditer(text):
        piece = text[start : end.end()].strip()
        if _ABBREVIATION.search(piece):
            continue
        if piece:
            yield piece
        start = end.end()
    if last := text[start:].strip():
        yield last


def sample_sentences(
    texts: Iterable[str],
    limit: int,
    seed: int,
    *,
    excluded: Collection[str] = (),
    serves: Callable[[str], bool] = lambda sentence: True,
) -> list[str]:
    """Up to ``limit`` different sentences of texts that ``serves`` accepts, drawn evenly by ``seed``.

    Sentences are told apart by ``normalize_text``; those whose normalised text is in ``excluded`` are left out. They
    come in the order of a hash, which the order of the texts does not change; no more than ``limit`` are held.
    """
    key = str(seed).encode()
    kept: dict[int, str] = {}
    largest: list[int] = []  # a heap of negated hashes
    for sentence in (sentence for text in texts for sentence in split_sentences(text)):
        if not serves(sentence):
            continue
        normalized = normalize_text(sentence)
        digest = hashlib.blake2b(normalized.encode(), digest_size=8, key=key).digest()
        rank = int.from_bytes(digest, "big")
        full = len(kept) == limit
        if rank in kept or normalized in excluded or (full and rank > -largest[0]):
            continue
        kept[rank] = sentence
        if full:
            del kept[-heapq.heappushpop(largest, -rank)]
        else:
            heapq.heappush(largest, -rank)
    return [kept[rank] for rank in sorted(kept)]
