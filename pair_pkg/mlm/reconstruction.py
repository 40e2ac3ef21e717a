"""Which rows are written again from the vectors of their segments, and what the encoder sees of them.

Two objectives make one vector of a segment hold what the segment says: TSDAE (Wang et al., 2021) deletes most words
and lets a decoder write the text again; RetroMAE (Xiao et al., 2022) predicts masked tokens as usual, and lets one
layer predict every token from the vector and a few other tokens. Every draw is a hash, as those of masks are.
"""

# S windows of the rows, T their tokens; K windows that are written again, N their tokens, special ones among them,
# W the longest; M predicted tokens

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pair_pkg.data.draws import uniform
from pair_pkg.data.texts import ranges
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.segments import Affixes, RowTokens
from pair_pkg.mlm.units import WHOLE_WORD
from pair_pkg.modeling.layout import Layout

MLM, TSDAE, RETROMAE = OBJECTIVES = ("mlm", "tsdae", "retromae")
DELETED = 0.6  # of a segment's tokens, in whole words (Wang et al., 2021)
VISIBLE = 0.5  # of the other tokens, for each token that RetroMAE's decoder predicts (Xiao et al., 2022)
MAX_WIDTH = 1 << 20  # places of a window, so that each pair of places has a draw of its own
_ROWS, _VISIBLE = 100, 101  # streams of draws, beside those of masks


@dataclass(frozen=True)
class Targets:
    """The text of some segments, and which vectors it is to be written from.

    ``visible`` says for RetroMAE which places of its own segment each token may look at.
    """

    segments: Tensor  # (K,) segments of the batch
    ids: Tensor  # (N,) their tokens as they are in the corpus, one segment after the other
    layout: Layout
    places: Tensor  # (M,) where in the (N,) a token is predicted
    visible: Tensor | None = None  # (M, W) bool

    def to(self, device: torch.device) -> "Targets":
        """The same on a device; the layout stays where it is."""
        moved: dict[str, Any] = {
            name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)


@dataclass(frozen=True)
class Reconstruction:
    """Which windows are written again, those of a ``share`` of the rows, other ones in each epoch, and how."""

    objective: str  # TSDAE or RETROMAE
    share: float
    seed: int

    def takes(self, tokens: RowTokens, epoch: int) -> np.ndarray:
        """Which windows are written again: all of a row, or none: (S,) bool."""
        first = np.flatnonzero(np.diff(tokens.row_of_window, prepend=-1))
        places = tokens.positions[tokens.begins[first]]
        return (uniform(self.seed, epoch, _ROWS, places) < self.share)[tokens.row_of_window]

    def may_be_masked(self, tokens: RowTokens, again: np.ndarray) -> np.ndarray:
        """Which tokens masks may take: not TSDAE's, whose rows have words deleted instead: (T,) bool."""
        return np.repeat(~again if self.objective == TSDAE else np.ones_like(again), tokens.lengths)

    def deleted(self, tokens: RowTokens, again: np.ndarray, epoch: int, never: int | None = None) -> np.ndarray:
        """Which tokens TSDAE's encoder does not see: (T,) bool; none of id ``never``, and not all of a window."""
        of_target = np.repeat(again, tokens.lengths)
        if self.objective != TSDAE or not again.any():
            return np.zeros_like(of_target)
        deletion = Masking(self.seed, 0, np.zeros(1, np.int64), DELETED, mode=WHOLE_WORD)
        words = {"ids": tokens.ids, "word_starts": tokens.word_starts}
        deleted = of_target & deletion.predicted(tokens.positions, tokens.row_of_token, epoch, **words)
        if never is not None:
            deleted &= tokens.ids != never
        emptied = np.logical_and.reduceat(deleted, tokens.begins)
        deleted[tokens.begins[emptied]] = False
        return deleted

    def targets(
        self, tokens: RowTokens, again: np.ndarray, order: np.ndarray, affixes: Affixes, epoch: int
    ) -> tuple[Targets, np.ndarray]:
        """The windows that are written again, longest first, and what is predicted of them, (M,) ids.

        ``order`` (S,) is how the windows lie in the batch. TSDAE predicts every token behind the first one, RetroMAE
        every one but the affixes.
        """
        place_in_batch = np.argsort(order)
        which = np.flatnonzero(again)
        which = which[np.argsort(-tokens.lengths[which], kind="stable")]
        own = ranges(tokens.begins[which], tokens.lengths[which])
        ids, _ = affixes.dress(tokens.ids[own], tokens.lengths[which], np.arange(len(which)))
        lengths = tokens.lengths[which] + affixes.count
        places = self.target_places(lengths, affixes)
        visible = None if self.objective == TSDAE else self._visible(tokens.positions[own], places, lengths, epoch)
        segments, ids_of_text = torch.from_numpy(place_in_batch[which]), torch.from_numpy(ids)
        targets = Targets(segments, ids_of_text, Layout(lengths.tolist()), torch.from_numpy(places), visible)
        return targets, ids[places + (self.objective == TSDAE)]

    def target_places(self, lengths: np.ndarray, affixes: Affixes) -> np.ndarray:
        """Of dressed windows of ``lengths`` (K,), the tokens at which the decoder predicts: (M,) places in the (N,)."""
        starts = np.cumsum(lengths) - lengths
        if self.objective == TSDAE:
            return ranges(starts, lengths - 1)
        return ranges(starts + len(affixes.prefix), lengths - affixes.count)

    def _visible(self, positions: np.ndarray, places: np.ndarray, lengths: np.ndarray, epoch: int) -> Tensor:
        """Which places of its window each of the M tokens looks at, itself never: (M, W) bool."""
        keys = np.arange(lengths.max(initial=0))
        draws = uniform(self.seed, epoch, _VISIBLE, positions[:, None] * MAX_WIDTH + keys)
        own, length = ranges(np.zeros_like(lengths), lengths)[places], np.repeat(lengths, lengths)[places]
        return torch.from_numpy((draws < VISIBLE) & (keys != own[:, None]) & (keys < length[:, None]))
