"""Flags of stage 1 about what is learnt beside masked tokens."""

from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.mlm.decoders import VECTORS
from pair_pkg.mlm.reconstruction import MLM, OBJECTIVES
from pair_pkg.stages.arguments.aids import switched_on


@dataclass
class ObjectiveArguments:
    """Objective: what makes the vector of a text hold the text, for encoders that become bi-encoders."""

    objective: str = field(
        default=MLM,
        metadata={
            "help": "mlm: masked tokens only. tsdae: words are deleted, and a decoder writes the text again from one "
            "vector (Wang et al., 2021). retromae: masked tokens, and one layer predicts all tokens from one vector "
            "(Xiao et al., 2022). The decoder is thrown away",
            "choices": list(OBJECTIVES),
        },
    )
    objective_share: float | None = field(
        default=None,
        metadata={
            "help": "share of the training rows that --objective is for, other rows in each epoch, 0 < share <= 1; the "
            "rest is learnt by masked tokens alone; unset: 1"
        },
    )
    objective_pooling: str | None = field(
        default=None,
        metadata={
            "help": "how the vector is made; take that of the bi-encoder to come (--pooling of stage 2); unset: mean",
            "choices": list(VECTORS),
        },
    )

    def __post_init__(self) -> None:
        for name in ("objective_share", "objective_pooling"):
            if getattr(self, name) is not None and self.objective == MLM:
                raise InputError(f"--{name} is for --objective tsdae or retromae; give one, or leave it out")
        if self.objective_share is not None and not 0 < self.objective_share <= 1:
            raise InputError(f"--objective_share {self.objective_share} is no share; give 0 < share <= 1, such as 0.5")

    @property
    def is_on(self) -> bool:
        return self.objective != MLM

    @property
    def share(self) -> float:
        return 1.0 if self.objective_share is None else self.objective_share

    @property
    def pooling(self) -> str:
        return self.objective_pooling or VECTORS[0]

    def given(self) -> dict[str, Any]:
        """What was asked for, defaults filled in; nothing where masked tokens are all."""
        if not self.is_on:
            return {}
        return switched_on(self) | {"objective_share": self.share, "objective_pooling": self.pooling}
