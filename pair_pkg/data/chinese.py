"""Where words begin in Chinese text, which does not say it itself: by jieba's dictionary and a user's."""

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version

import numpy as np
import rjieba

from pair_pkg.records import fingerprint

IDEOGRAPHS = r"\x{3400}-\x{4dbf}\x{4e00}-\x{9fff}"  # some of those that BERT's normalizer sets apart
IDEOGRAPH = re.compile("[\u3400-\u4dbf\u4e00-\u9fff]")


class ChineseWords:
    """Chinese words by rjieba (jieba's dictionary and algorithm), with words of a user that it may not know.

    >>> ChineseWords().cut("花呗怎么还款"), ChineseWords(["花呗"]).cut("花呗怎么还款")
    (['花', '呗', '怎么', '还款'], ['花呗', '怎么', '还款'])
    """

    def __init__(self, user_words: Iterable[str] = ()):
        self._user_words = sorted(set(user_words))
        self._jieba = rjieba.Jieba()
        for word in self._user_words:
            self._jieba.add_word(word, None, None)
        self.fingerprint = fingerprint(["rjieba", version("rjieba"), self._user_words])

    def __reduce__(self) -> tuple:
        return ChineseWords, (self._user_words,)  # the dictionary is read anew in another process

    def cut(self, text: str) -> list[str]:
        """The words of a text, one after the other; all its characters are in one of them."""
        words = self._jieba.cut(text)
        assert sum(map(len, words)) == len(text), "the segmenter lost a character"
        return words

    def word_starts(self, text: str, begins: Sequence[int], starts: Sequence[bool]) -> list[bool]:
        """Which tokens begin a word: tokens that begin with an ideograph as ``cut`` says, others as ``starts`` does.

        ``begins`` is the character at which each token begins; of several tokens of one character the first counts.
        """
        is_start = np.zeros(len(text) + 1, dtype=bool)
        is_start[np.cumsum([0, *map(len, self.cut(text))])] = True
        found, before = [], -1
        for begin, start in zip(begins, starts):
            chinese = begin < len(text) and IDEOGRAPH.match(text[begin])
            found.append(bool(is_start[begin] and begin != before) if chinese else bool(start))
            before = begin
        return found
