"""Flags of stage 1 that hold on to what the base model knows."""

from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.stages.arguments.aids import switched_on
from pair_pkg.training.arguments import refuse_below

DEFAULT_REPLAY_SHARE = 0.05


@dataclass
class ForgettingArguments:
    """Forgetting: what keeps the base model's knowledge, and shows what is lost."""

    replay_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "general text, as --train_file takes it: a part is held out and its perplexity told beside the "
            "domain's, before and after; the rest is mixed into training by --replay_share",
            "nargs": "+",
        },
    )
    replay_share: float | None = field(
        default=None,
        metadata={
            "help": "share of the training rows that are general text, 0 <= share < 1, other rows in each epoch; 0 "
            "only measures; unset: 0.05, which kept most under a mild shift (Ibrahim et al., 2024)"
        },
    )
    l2_sp: float | None = field(
        default=None,
        metadata={
            "help": "pull the encoder's weights back to the base's: this times half of their squared distance is added "
            "to the loss (L2-SP, Li et al., 2018: 0.001 to 1, by validation); unset: none"
        },
    )
    merge_alpha: list[float] | None = field(
        default=None,
        metadata={
            "help": "what is kept lies between the base's encoder (0) and the adapted one (1), as WiSE-FT (Wortsman et "
            "al., 2022: 0.5 where nothing is known); of several the one that the pair probe finds best, all of them "
            "told in run.json; unset: the adapted one",
            "nargs": "+",
        },
    )

    def __post_init__(self) -> None:
        refuse_below(self, l2_sp=0)
        if self.replay_share is not None and not self.replay_file:
            raise InputError("--replay_share is of general text; give --replay_file with it, or leave it out")
        if self.replay_share is not None and not 0 <= self.replay_share < 1:
            raise InputError(f"--replay_share {self.replay_share} is no share; give 0 <= share < 1, such as 0.05")
        for alpha in self.merge_alpha or ():
            if not 0 <= alpha <= 1:
                raise InputError(f"--merge_alpha {alpha} is out of range; give 0 <= alpha <= 1, such as 0.5")

    @property
    def share(self) -> float:
        """The share of replayed rows; 0 without general text."""
        if not self.replay_file:
            return 0.0
        return DEFAULT_REPLAY_SHARE if self.replay_share is None else self.replay_share

    def given(self) -> dict[str, Any]:
        """What was asked for, defaults filled in; nothing for a flag that is off."""
        return switched_on(self) | ({"replay_share": self.share} if self.replay_file else {})
