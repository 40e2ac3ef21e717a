"""The words of a text, in scripts with and without spaces, and how many of them two texts share."""

import re
import unicodedata
from collections.abc import Sequence

import numpy as np

# Scripts written without spaces: Han (with its extensions) and kana. Hangul puts spaces between words.
_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af"
_WORD = re.compile(rf"[{_CJK}]|[^\W{_CJK}]+")


def split_words(text: str) -> list[str]:
    """The words of a text in their order, without case and punctuation; a Chinese or Japanese character is a word.

    >>> split_words("Is WiFi, 无线 the same?")
    ['is', 'wifi', '无', '线', 'the', 'same']
    """
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


def word_overlaps(left: Sequence[str], right: Sequence[str]) -> np.ndarray:
    """The Jaccard overlap of the two word sets of each pair, (N,) in [0, 1]; 0 where neither text has a word.

    >>> word_overlaps(["How old is she?", "花呗怎么还款"], ["How OLD is he", "花呗还款"]).round(2).tolist()
    [0.6, 0.67]
    """
    overlaps = []
    for one, other in zip(left, right, strict=True):
        one_words, other_words = set(split_words(one)), set(split_words(other))
        overlaps.append(len(one_words & other_words) / max(1, len(one_words | other_words)))
    return np.array(overlaps)
