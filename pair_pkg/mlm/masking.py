"""Which tokens are predicted, and what the model sees in their place: a function of (seed, epoch, row) only.

Every draw is a hash of (seed, epoch, place of the token in the corpus). No generator is kept, so batch size,
workers, processes and resuming cannot change a mask, and an epoch's masks are drawn without a loop over rows.
"""

# T tokens of the rows of a batch, R rows

from dataclasses import dataclass

import numpy as np

from pair_pkg.data.draws import uniform

# Streams of draws: one for each question asked of a token or a row.
_CHOICE, _ACTION, _REPLACEMENT, _ROUNDING = range(4)


@dataclass(frozen=True)
class Masking:
    """How tokens are masked: BERT's way (Devlin et al., 2019) unless said otherwise."""

    seed: int
    mask_token_id: int
    ordinary_ids: np.ndarray  # ids that a random replacement is drawn from: all but the special tokens
    probability: float = 0.15
    masked_fraction: float = 0.8  # of the predicted tokens: shown as the mask token
    random_fraction: float = 0.1  # of the predicted tokens: shown as another token; the rest is shown as it is

    def predicted(self, positions: np.ndarray, row_of_token: np.ndarray, epoch: int) -> np.ndarray:
        """Which tokens are predicted: (T,) places in the corpus, (T,) ascending row numbers -> (T,) bool.

        Each row predicts ``probability`` of its tokens, rounded up or down by chance so that the share is right on
        average also for short rows, and at least one.
        """
        rows, first, counts = np.unique(row_of_token, return_index=True, return_counts=True)
        wish = counts * self.probability
        rounding = self._uniform(_ROUNDING, epoch, positions[first])
        num_predicted = np.clip(np.floor(wish + rounding).astype(np.int64), 1, counts)
        row_index = np.repeat(np.arange(len(rows)), counts)
        # whole numbers: in row_index + draw the draw's last bits would depend on the row's place in the batch
        draws = (self._uniform(_CHOICE, epoch, positions) * (1 << 32)).astype(np.int64)
        order = np.argsort((row_index << 32) + draws, kind="stable")
        rank = np.arange(len(positions)) - np.repeat(first, counts)
        chosen = np.zeros(len(positions), dtype=bool)
        chosen[order[rank < num_predicted[row_index]]] = True
        return chosen

    def shown(self, ids: np.ndarray, positions: np.ndarray, epoch: int) -> np.ndarray:
        """What the model sees of predicted tokens: (M,) ids and places -> (M,) ids, 80/10/10 by default."""
        action = self._uniform(_ACTION, epoch, positions)
        draw = self._uniform(_REPLACEMENT, epoch, positions)
        replacement = self.ordinary_ids[(draw * len(self.ordinary_ids)).astype(np.int64)]
        random_below = self.masked_fraction + self.random_fraction
        return np.where(
            action < self.masked_fraction, self.mask_token_id, np.where(action < random_below, replacement, ids)
        )

    def _uniform(self, stream: int, epoch: int, positions: np.ndarray) -> np.ndarray:
        """Uniform draws in [0, 1): one for each place, the same for the same (seed, epoch, stream, place)."""
        return uniform(self.seed, epoch, stream, positions)
