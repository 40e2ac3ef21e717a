"""Which tokens are predicted, and what the model sees in their place: a function of (seed, epoch, row) only.

Every draw is a hash of (seed, epoch, place of the token in the corpus). No generator is kept, so batch size,
workers, processes and resuming cannot change a mask, and an epoch's masks are drawn without a loop over rows.
"""

# T tokens of the rows of a batch, R rows, U units: what is predicted together

from dataclasses import dataclass

import numpy as np

from pair_pkg.data.draws import uniform
from pair_pkg.mlm.terms import Terms
from pair_pkg.mlm.units import TOKEN, unit_starts

# Streams of draws: one for each question asked of a token or a row.
_CHOICE, _ACTION, _REPLACEMENT, _ROUNDING, _LENGTH = range(5)


@dataclass(frozen=True)
class Masking:
    """How tokens are masked: BERT's way (Devlin et al., 2019) unless said otherwise."""

    seed: int
    mask_token_id: int
    ordinary_ids: np.ndarray  # ids that a random replacement is drawn from: all but the special tokens
    probability: float = 0.15
    masked_fraction: float = 0.8  # of the predicted tokens: shown as the mask token
    random_fraction: float = 0.1  # of the predicted tokens: shown as another token; the rest is shown as it is
    mode: str = TOKEN  # one of units.MODES
    terms: Terms | None = None
    term_weight: float = 1.0  # a unit that holds a term is drawn as if there were so many of it
    start_probability: float | None = None  # at the first row of training, for a rate that changes
    num_epochs: float = 1.0  # over which the rate goes from there to ``probability``

    @property
    def needs_words(self) -> bool:
        """Whether ``predicted`` asks for ids and word starts."""
        return self.mode != TOKEN or self.terms is not None

    def rates(self, progress: np.ndarray) -> np.ndarray:
        """The share to predict of rows that are met after ``progress`` epochs: (R,) -> (R,)."""
        start = self.probability if self.start_probability is None else self.start_probability
        return start + (self.probability - start) * np.minimum(progress / self.num_epochs, 1.0)

    def predicted(
        self,
        positions: np.ndarray,
        row_of_token: np.ndarray,
        epoch: int,
        *,
        ids: np.ndarray | None = None,
        word_starts: np.ndarray | None = None,
        rates: np.ndarray | float | None = None,
    ) -> np.ndarray:
        """Which tokens are predicted: (T,) places in the corpus, (T,) ascending row numbers -> (T,) bool.

        Each row predicts ``rates`` (R,) of its tokens, or ``probability`` of them: whole units in an order that is
        drawn. The one that would go beyond the wish is taken or not by chance, so that the share is right on average
        also for short rows, and at least one unit is. Where even the first is longer than the wish, chance takes it
        or the shortest of the row, so that the share is right as far as the shortest one allows.
        """
        is_row_start = np.ones(len(positions), dtype=bool)
        np.not_equal(row_of_token[1:], row_of_token[:-1], out=is_row_start[1:])
        row_starts = np.flatnonzero(is_row_start)
        counts = np.diff(row_starts, append=len(positions))
        rates = self.probability if rates is None else rates
        wish = counts * rates
        rounding = self._uniform(_ROUNDING, epoch, positions[row_starts])
        units = unit_starts(
            self.mode, positions, is_row_start, word_starts, rates, lambda p: self._uniform(_LENGTH, epoch, p)
        )
        lengths = np.diff(units, append=len(positions))
        row_of_unit = (np.cumsum(is_row_start) - 1)[units]
        draws = self._draws(units, positions, epoch, ids, word_starts)
        # whole numbers: in row + draw the draw's last bits would depend on the row's place in the batch
        order = np.argsort((row_of_unit << 32) + (draws * (1 << 32)).astype(np.int64), kind="stable")
        chosen = np.zeros(len(units), dtype=bool)
        chosen[order[_take(lengths[order], row_of_unit, row_starts, wish, rounding)]] = True
        return np.repeat(chosen, lengths)

    def shown(self, ids: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        """What the model sees of predicted tokens: (M,) ids and places -> (M,) ids, 80/10/10 by default."""
        action = self._uniform(_ACTION, epoch, positions)
        draw = self._uniform(_REPLACEMENT, epoch, positions)
        replacement = self.ordinary_ids[(draw * len(self.ordinary_ids)).astype(np.int64)]
        random_below = self.masked_fraction + self.random_fraction
        return np.where(
            action < self.masked_fraction, self.mask_token_id, np.where(action < random_below, replacement, ids)
        )

    def _draws(
        self,
        units: np.ndarray,
        positions: np.ndarray,
        epoch: int,
        ids: np.ndarray | None,
        word_starts: np.ndarray | None,
    ) -> np.ndarray:
        """A draw for each unit, (U,): the lowest goes first. Terms draw lower (Efraimidis and Spirakis, 2006)."""
        draws = self._uniform(_CHOICE, epoch, positions[units])
        if self.terms is None:
            return draws
        holds_term = np.logical_or.reduceat(self.terms.marks(ids, word_starts, positions), units)
        return np.where(holds_term, 1 - (1 - draws) ** (1 / self.term_weight), draws)

    def _uniform(self, stream: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Uniform draws in [0, 1): one for each place, the same for the same (seed, epoch, stream, place)."""
        return uniform(self.seed, epoch, stream, positions)


def _take(
    lengths: np.ndarray, rows: np.ndarray, row_starts: np.ndarray, wish: np.ndarray, rounding: np.ndarray
) -> np.ndarray:
    """Which units are predicted, in the order that was drawn: (U,) lengths and rows -> (U,) bool.

    A unit that ends at token e of its row's order is taken where e <= wish + length * rounding: those before the wish
    all are, and one that crosses it with the probability of its part before it.
    """
    if not len(lengths):
        return np.zeros(0, dtype=bool)
    ends = np.cumsum(lengths) - row_starts[rows]
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    smallest = np.minimum.reduceat(lengths, first)
    # Between the first unit and the smallest: q * first + (1 - q) * smallest = wish, whose q is that of this offset.
    offset = np.where(lengths[first] > wish, smallest, 0)
    taken = ends - offset[rows] <= (wish - offset)[rows] + (lengths - offset[rows]) * rounding[rows]
    empty = ~np.logical_or.reduceat(taken, first)
    if empty.any():
        candidates = np.flatnonzero(empty[rows] & (lengths == smallest[rows]))
        taken[candidates[np.diff(rows[candidates], prepend=-1) != 0]] = True
    return taken
