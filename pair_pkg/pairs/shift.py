"""Whether the test pairs look like the training pairs: lengths, labels and words, against random splits of both."""

# N pairs, C components of connected texts, S random splits, B bins (lengths, labels or words)

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.sparse import coo_array

from pair_pkg.columns import SENTENCE1, SENTENCE2
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import connected_components
from pair_pkg.pairs.words import split_words

NUM_SPLITS = 499  # random splits: the smallest p is 1/500
SPLITS_PER_CHUNK = 25
MAX_P = 0.01  # four measures: a split that is random is called shifted in under 4 of 100 cases
# A difference that is certain and small changes no reading of the figures; these are about what a reader would mind.
MIN_LENGTH_DISTANCE = 0.1  # Kolmogorov and Smirnov's distance: 10 % of the texts are shorter than any in the other set
MIN_LABEL_DISTANCE = 0.05  # 5 % of the pairs would have to change their label
MIN_UNSEEN_EXCESS = 0.02  # 2 % of the words more than a random split leaves unseen
MIN_MOVABLE_SHARE = 2  # random splits need at least so many times the test pairs in components small enough to move

# (S, B) counts of the test and of the training pairs -> (S,) distances
Distance = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Shift:
    """One property of the pairs in both sets.

    ``distance`` is between train and test, ``random_distance`` the median of random splits of the same pairs,
    ``p_value`` the share of splits at least as far apart, this one counted; both None where too few pairs can move
    between the sets. ``train`` and ``test`` are what a reader compares: median words of a text, share of a label
    (``of``), mean score, or share of words that do not stand in train.
    """

    what: str  # "length of sentence1", "length of sentence2", "labels" or "vocabulary"
    of: str  # the label whose share is told, else empty
    train: float
    test: float
    distance: float
    random_distance: float | None
    p_value: float | None
    differs: bool


def measure_shifts(train: Pairs, test: Pairs, scheme: LabelScheme, *, seed: int = 0) -> list[Shift]:
    """Compare the lengths of either sentence, the labels and the words of two sets of pairs.

    They differ where the distance is above a floor (``MIN_...``) and at most 1 % of random splits are as far apart.
    Of texts a random split draws whole components, as large a test as ``test``: texts that come again prove nothing.
    Of labels it draws single pairs: another share of labels moves thresholds and precision even where it comes from
    few texts.
    """
    pairs = train.joined(test)
    is_test = np.arange(len(pairs)) >= len(train)
    component = connected_components(pairs.sentence1, pairs.sentence2)
    splits = _RandomSplits(component, len(test), seed)
    columns = [[split_words(text) for text in column] for column in (pairs.sentence1, pairs.sentence2)]
    lengths = [np.array([len(words) for words in column]) for column in columns]
    rows = np.repeat(np.tile(np.arange(len(pairs)), 2), np.concatenate(lengths))
    words = _numbered([word for column in columns for text in column for word in text])
    return [
        *(_length_shift(name, of_text, is_test, splits) for name, of_text in zip((SENTENCE1, SENTENCE2), lengths)),
        _label_shift(pairs.labels, is_test, scheme, seed),
        _word_shift(rows, words, is_test, splits),
    ]


class _RandomSplits:
    """Random test sets of whole components, as large as the real one."""

    def __init__(self, component: np.ndarray, num_test: int, seed: int):
        self.component = component
        self.sizes = np.bincount(component)
        self.num_test = num_test
        self.movable = np.flatnonzero(self.sizes <= num_test)  # a giant component is no test set
        self.seed = seed

    def can_tell(self) -> bool:
        return self.sizes[self.movable].sum() >= MIN_MOVABLE_SHARE * self.num_test

    def chunks(self) -> Iterator[np.ndarray]:
        """Which components are drawn: (S, C) 0 or 1; all splits in several chunks, the same at every call."""
        rng = np.random.default_rng(self.seed)
        for start in range(0, NUM_SPLITS, SPLITS_PER_CHUNK):
            drawn = np.zeros((min(SPLITS_PER_CHUNK, NUM_SPLITS - start), len(self.sizes)))
            for row in drawn:
                order = rng.permutation(self.movable)
                filled = np.cumsum(self.sizes[order]) - self.sizes[order]  # before this component
                row[order[filled < self.num_test]] = 1
            yield drawn


def _length_shift(name: str, lengths: np.ndarray, is_test: np.ndarray, splits: _RandomSplits) -> Shift:
    observed, random = _of_components(np.arange(len(lengths)), lengths, is_test, splits, _largest_gap)
    medians = np.median(lengths[~is_test]), np.median(lengths[is_test])
    return _shift(f"length of {name}", medians, observed, random, floor=MIN_LENGTH_DISTANCE)


def _word_shift(rows: np.ndarray, words: np.ndarray, is_test: np.ndarray, splits: _RandomSplits) -> Shift:
    observed, random = _of_components(rows, words, is_test, splits, _unseen_share)
    usual = 0.0 if random is None else float(np.median(random))
    return _shift("vocabulary", (0.0, observed), observed, random, floor=usual + MIN_UNSEEN_EXCESS)


def _label_shift(labels: np.ndarray, is_test: np.ndarray, scheme: LabelScheme, seed: int) -> Shift:
    bins = np.unique(labels, return_inverse=True)[1] if scheme.kind == "scores" else labels
    total = np.bincount(bins, minlength=len(scheme.names))
    in_test = np.bincount(bins[is_test], minlength=len(total))
    drawn = np.random.default_rng(seed).multivariate_hypergeometric(total, is_test.sum(), size=NUM_SPLITS)
    distance = _largest_gap if scheme.kind == "scores" else _moved_share
    observed, *random = distance(np.vstack([in_test, drawn]), total - np.vstack([in_test, drawn]))
    if scheme.kind == "scores":
        of, compared = "", (labels[~is_test].mean(), labels[is_test].mean())
    else:
        shares = (total - in_test) / (~is_test).sum(), in_test / is_test.sum()
        moved = 1 if scheme.kind == "binary" else int(np.abs(shares[1] - shares[0]).argmax())
        of, compared = scheme.names[moved], (shares[0][moved], shares[1][moved])
    return _shift("labels", compared, observed, np.array(random), floor=MIN_LABEL_DISTANCE, of=of)


def _of_components(
    rows: np.ndarray, bins: np.ndarray, is_test: np.ndarray, splits: _RandomSplits, distance: Distance
) -> tuple[float, np.ndarray | None]:
    """The distance of the sets, and those of the random splits, (S,) or None.

    What falls in ``bins[i]`` belongs to pair ``rows[i]``.
    """
    num_bins = int(bins.max(initial=0)) + 1
    total = np.bincount(bins, minlength=num_bins)
    in_test = np.bincount(bins[is_test[rows]], minlength=num_bins)
    observed = float(distance(in_test[None], (total - in_test)[None])[0])
    if not splits.can_tell():
        return observed, None
    places = splits.component[rows], bins
    counts = coo_array((np.ones(len(bins)), places), shape=(len(splits.sizes), num_bins)).tocsr()
    drawn = (chunk @ counts for chunk in splits.chunks())
    return observed, np.concatenate([distance(tests, total - tests) for tests in drawn])


def _shift(
    what: str,
    compared: Sequence[float],
    observed: float,
    random: np.ndarray | None,
    *,
    floor: float,
    of: str = "",
) -> Shift:
    train, test = map(float, compared)
    if random is None:
        return Shift(what, of, train, test, float(observed), None, None, False)
    p_value = (1 + int((random >= observed).sum())) / (1 + len(random))
    differs = p_value <= MAX_P and bool(observed >= floor)
    return Shift(what, of, train, test, float(observed), float(np.median(random)), p_value, differs)


def _largest_gap(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Kolmogorov and Smirnov's distance of two sets of ordered bins."""
    below = [counts.cumsum(1) / counts.sum(1, keepdims=True) for counts in (test, train)]
    return np.abs(below[0] - below[1]).max(1)


def _moved_share(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The share of pairs that would have to change their bin (the total variation distance)."""
    shares = [counts / counts.sum(1, keepdims=True) for counts in (test, train)]
    return np.abs(shares[0] - shares[1]).sum(1) / 2


def _unseen_share(test: np.ndarray, train: np.ndarray) -> np.ndarray:
    """The share of the test's running words that do not stand in train."""
    return np.where(train == 0, test, 0).sum(1) / np.maximum(test.sum(1), 1)


def _numbered(words: Sequence[str]) -> np.ndarray:
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(word, len(numbers)) for word in words], dtype=np.int64)
