"""Flags of stage 2 about its model: what is put on the encoder."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pair_pkg.columns import BI_ENCODER, CROSS_ENCODER
from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import POOLINGS
from pair_pkg.pairs.embedding_loss import IN_BATCH_NEGATIVES, LOSSES, choose_loss
from pair_pkg.pairs.imbalance import choose_class_weights
from pair_pkg.training.arguments import refuse_below


@dataclass
class ArchitectureArguments:
    """Architecture: what is put on the encoder."""

    architecture: str = field(
        default=CROSS_ENCODER,
        metadata={
            "help": "both sentences read together, or each by itself",
            "choices": [CROSS_ENCODER, BI_ENCODER],
        },
    )
    num_labels: int | None = field(
        default=None,
        metadata={"help": "outputs of a cross_encoder; unset: 2 for binary labels (1: a sigmoid), 1 for scores"},
    )
    pooling: str | None = field(
        default=None,
        metadata={
            "help": "what of its tokens is a text's vector in a bi_encoder; unset: mean (Reimers and Gurevych, 2019)",
            "choices": list(POOLINGS),
        },
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "loss of a bi_encoder; unset: cosent for scores, online_contrastive for binary labels",
            "choices": list(LOSSES),
        },
    )
    matryoshka_dims: list[int] | None = field(
        default=None,
        metadata={"help": "leading dimensions of a bi_encoder that are to serve by themselves too", "nargs": "+"},
    )
    head_norm: str = field(
        default="none",
        metadata={
            "help": "normalization of the pooled vector; batch is folded into a linear layer at saving",
            "choices": ["none", "batch"],
        },
    )
    symmetric: bool | None = field(
        default=None,
        metadata={
            "help": "a cross_encoder learns from both orders of a pair and is scored by their average, at twice the "
            "cost of scoring: read in one order, the score of (A, B) is not that of (B, A), which users rightly take "
            "for an error; unset: on, but off for classes, whose order mostly means something, as in entailment"
        },
    )
    class_weights: list[str] | None = field(
        default=None,
        metadata={
            "help": "weights of a cross_encoder's classes in the loss: auto (inverse frequency), or name=weight for "
            "every class, of which only the ratios count; unset: alike. Logits move by log(w1 / w0), so that raw "
            "probabilities no longer are frequencies; the decision fitted on validation takes it back (Elkan, 2001)",
            "nargs": "+",
        },
    )
    focal_gamma: float | None = field(
        default=None,
        metadata={
            "help": "easy pairs of a cross_encoder count less, by (1 - p)^gamma with p the probability of their label; "
            "2 in the source, where classes are 1 to 1000 (Lin et al., 2017); unset: alike. Probabilities draw "
            "towards one half, which the temperature fitted on validation takes back"
        },
    )

    def __post_init__(self) -> None:
        refuse_below(self, focal_gamma=0)
        is_bi_encoder = self.architecture == BI_ENCODER
        other_flags = ("pooling", "loss", "matryoshka_dims")
        for flag in ("num_labels", "class_weights", "focal_gamma") if is_bi_encoder else other_flags:
            if getattr(self, flag) is not None:
                other = CROSS_ENCODER if is_bi_encoder else BI_ENCODER
                raise InputError(f"--{flag} is for --architecture {other}; leave it out, or take that")
        if is_bi_encoder and self.symmetric is False:
            raise InputError("--no_symmetric is for --architecture cross_encoder; a bi_encoder has one order only")

    @property
    def positives_suffice(self) -> bool:
        """Whether the loss learns from positive pairs alone, so that they need no label."""
        return self.loss in IN_BATCH_NEGATIVES

    def settings(self, scheme: LabelScheme, labels: np.ndarray) -> dict[str, Any]:
        """What decides on the architecture, defaults filled in by the training labels. Raises ``InputError``."""
        if self.architecture == CROSS_ENCODER:
            symmetric = scheme.kind != "classes" if self.symmetric is None else self.symmetric
            shape = {"num_labels": self.num_labels, "head_norm": self.head_norm, "symmetric": symmetric}
            return shape | {"class_weights": self._class_weights(scheme, labels), "focal_gamma": self.focal_gamma}
        return {
            "pooling": self.pooling or POOLINGS[0],
            "loss": choose_loss(scheme.kind, labels, self.loss),
            "matryoshka_dims": self.matryoshka_dims or [],
            "head_norm": self.head_norm,
        }

    def _class_weights(self, scheme: LabelScheme, labels: np.ndarray) -> list[float] | None:
        if scheme.kind == "scores" and (self.class_weights or self.focal_gamma):
            flag = "class_weights" if self.class_weights else "focal_gamma"
            raise InputError(f"--{flag} is for classes, and these labels are scores; leave it out")
        return choose_class_weights(self.class_weights, scheme.names, labels) if self.class_weights else None
