"""What is predicted together under each way of masking: tokens, words, or runs of words."""

# T tokens of the rows of a batch, W words, U units, S stretches of text (a row, or a window in it)

from collections.abc import Callable

import numpy as np

TOKEN, WHOLE_WORD, SPAN, NGRAM = MODES = ("token", "whole_word", "span", "ngram")
SPAN_END, MAX_SPAN = 0.2, 10  # share of spans that end behind each word, and most words (Joshi et al., 2020: 3.8 words)
# Share of units of 1, 2, ... words. N-grams: Cui et al. (MacBERT, 2020).
UNIT_WORDS = {
    WHOLE_WORD: np.ones(1),
    SPAN: SPAN_END * (1 - SPAN_END) ** np.arange(MAX_SPAN) / (1 - (1 - SPAN_END) ** MAX_SPAN),
    NGRAM: np.array([0.4, 0.3, 0.2, 0.1]),
}

Draw = Callable[[np.ndarray], np.ndarray]  # places in the corpus -> uniform draws in [0, 1)


def unit_starts(
    mode: str,
    positions: np.ndarray,
    is_row_start: np.ndarray,
    word_starts: np.ndarray | None,
    rates: np.ndarray | float,
    draw: Draw,
) -> np.ndarray:
    """Where the units of some rows begin: (T,) places in the corpus, (T,) bool, (T,) bool -> (U,) token numbers.

    Every row is cut into units without a gap. Those of several words have lengths drawn anew in each epoch, one of
    ``UNIT_WORDS`` after the other; none goes on from one stretch of text into another, and none has more words than
    the row is to predict by its rate (R,), one at least. A word that a window has cut counts as two.
    """
    if mode == TOKEN:
        return np.arange(len(positions))
    breaks = is_row_start.copy()
    breaks[1:] |= np.diff(positions) != 1
    words = np.flatnonzero(word_starts | breaks)
    shares = UNIT_WORDS[mode]
    if len(shares) == 1 or not len(words):
        return words
    row_of_word = (np.cumsum(is_row_start) - 1)[words]
    most = np.maximum(1, (np.bincount(row_of_word) * rates).astype(np.int64))
    lengths = 1 + np.searchsorted(np.cumsum(shares[:-1]), draw(positions[words]), side="right")
    lengths = np.minimum(lengths, most[row_of_word])
    return words[_tile(np.flatnonzero(breaks[words]), lengths)]


def _tile(stretch_starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Which words begin a unit: the first of each stretch (S,), and from each such word w the word w + lengths[w].

    The walks of all stretches are done at once, by jumps whose reach doubles.

    >>> _tile(np.array([0, 4]), np.array([2, 1, 1, 3, 9, 1])).tolist()
    [0, 2, 3, 4]
    """
    count = len(lengths)
    ends = np.append(stretch_starts[1:], count)
    stretch_end = np.repeat(ends, np.diff(np.append(stretch_starts, count)))
    jump = np.arange(count) + lengths
    jump = np.append(np.where(jump < stretch_end, jump, count), count)  # the last place is the end of every walk
    begins = np.zeros(count + 1, dtype=bool)
    begins[stretch_starts] = True
    while (jump < count).any():
        begins[jump[begins]] = True
        jump = jump[jump]
    return np.flatnonzero(begins[:-1])
