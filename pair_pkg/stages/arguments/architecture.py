"""Flags of stage 2 about its model: what is put on the encoder."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import POOLINGS
from pair_pkg.pairs.embedding_loss import LOSSES, choose_loss

CROSS_ENCODER, BI_ENCODER = "cross_encoder", "bi_encoder"


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

    def __post_init__(self) -> None:
        is_bi_encoder = self.architecture == BI_ENCODER
        for flag in ("num_labels",) if is_bi_encoder else ("pooling", "loss", "matryoshka_dims"):
            if getattr(self, flag) is not None:
                other = CROSS_ENCODER if is_bi_encoder else BI_ENCODER
                raise InputError(f"--{flag} is for --architecture {other}; leave it out, or take that")

    def settings(self, scheme: LabelScheme, labels: np.ndarray) -> dict[str, Any]:
        """What decides on the architecture, defaults filled in by the training labels. Raises ``InputError``."""
        if self.architecture == CROSS_ENCODER:
            return {"num_labels": self.num_labels, "head_norm": self.head_norm}
        return {
            "pooling": self.pooling or POOLINGS[0],
            "loss": choose_loss(scheme.kind, labels, self.loss),
            "matryoshka_dims": self.matryoshka_dims or [],
            "head_norm": self.head_norm,
        }
