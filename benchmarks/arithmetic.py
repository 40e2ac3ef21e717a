"""Useful operations of a training step, counted by hand: what the model must do, whatever path does it."""

# T tokens of a sequence, h hidden size, i intermediate size, V vocabulary

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedConfig

FORWARD_AND_BACKWARD = 3  # a backward pass costs two forward ones


@dataclass(frozen=True)
class Shape:
    """What decides on an encoder's cost."""

    num_layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    gated: bool = False  # a gated feed-forward (GeGLU) has three matrices in place of two
    windows: tuple[int | None, ...] = ()  # of each layer: keys that a token sees at most; empty: all keys everywhere

    @classmethod
    def of(cls, config: PreTrainedConfig) -> "Shape":
        """The shape of a BERT, RoBERTa or ModernBERT configuration."""
        kinds = getattr(config, "layer_types", None) or []
        windows = tuple(config.local_attention + 1 if kind == "sliding_attention" else None for kind in kinds)
        return cls(
            config.num_hidden_layers,
            config.hidden_size,
            config.intermediate_size,
            config.vocab_size,
            gated=config.model_type == "modernbert",
            windows=windows,
        )

    @property
    def feed_forward_flops(self) -> int:
        """Forward operations of one layer's feed-forward, a token."""
        return (6 if self.gated else 4) * self.hidden_size * self.intermediate_size


def mean_attended(lengths: Sequence[int] | np.ndarray) -> float:
    """Keys that a token sees on average in segments of these lengths: sum of squares over sum.

    >>> mean_attended([4, 4]), mean_attended([2, 6])
    (4.0, 5.0)
    """
    lengths = np.asarray(lengths, dtype=np.float64)
    return float((lengths**2).sum() / lengths.sum())


def training_flops_per_token(
    shape: Shape,
    attended: float,
    predicted_fraction: float,
    *,
    sparse_head: bool = True,
    sparse_last_layer: bool = True,
) -> float:
    """Operations of one training step, forward and backward, a token of the input.

    ``attended``: keys that a token sees (``mean_attended``). With ``sparse_head`` the head, and with
    ``sparse_last_layer`` the last layer's queries, output and feed-forward, count on predicted tokens only.
    """
    h = shape.hidden_size
    seen = [min(attended, window or attended) for window in shape.windows or [None] * shape.num_layers]
    last = predicted_fraction if sparse_last_layer else 1.0
    shares = [1.0] * (shape.num_layers - 1) + [last]
    keys_and_values = 4 * h * h * shape.num_layers
    per_row = sum(share * (4 * h * h + shape.feed_forward_flops + 4 * h * keys) for share, keys in zip(shares, seen))
    head = (predicted_fraction if sparse_head else 1.0) * (2 * h * h + 2 * h * shape.vocab_size)
    return FORWARD_AND_BACKWARD * (keys_and_values + per_row + head)
