"""Flags of stage 2 about its evaluation."""

from dataclasses import dataclass, field


@dataclass
class EvaluationArguments:
    """Evaluation: what the test figures stand beside."""

    frozen_baseline: bool = field(
        default=True,
        metadata={
            "help": "score the test pairs with the untrained encoder too (cosine, threshold from up to 5,000 training "
            "pairs); false saves its one pass over the texts, which counts where test pairs are many and epochs few"
        },
    )
