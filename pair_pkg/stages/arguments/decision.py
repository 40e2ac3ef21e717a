"""Flags of stage 2 about its decision: how a score becomes a yes or a no."""

from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.pairs.thresholds import ACCURACY, OBJECTIVES, PRECISION


@dataclass
class DecisionArguments:
    """Decision: from which probability on a pair is positive, fitted on the validation pairs."""

    decide_by: str = field(
        default=ACCURACY,
        metadata={
            "help": "what the threshold of binary labels is best for on the validation pairs; accuracy, because it "
            "favours neither label; precision takes the most recall that --wanted_precision leaves",
            "choices": list(OBJECTIVES),
        },
    )
    wanted_precision: float | None = field(
        default=None, metadata={"help": "least precision with --decide_by precision, 0 < p <= 1"}
    )

    def __post_init__(self) -> None:
        if (self.decide_by == PRECISION) != (self.wanted_precision is not None):
            raise InputError("--wanted_precision and --decide_by precision go together; give both, or neither")
        if self.wanted_precision is not None and not 0 < self.wanted_precision <= 1:
            raise InputError(f"--wanted_precision {self.wanted_precision} is no precision; give 0 < p <= 1")

    def settings(self, kind: str) -> dict[str, Any]:
        """What decides on the decision. Raises ``InputError`` where these labels have no threshold."""
        if kind != "binary" and self.decide_by != ACCURACY:
            raise InputError(f"--decide_by {self.decide_by}: {kind} labels have no threshold; leave it out")
        return {"decide_by": self.decide_by, "wanted_precision": self.wanted_precision} if kind == "binary" else {}
