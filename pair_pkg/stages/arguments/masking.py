"""Flags of stage 1 about which tokens are predicted."""

from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.mlm.units import MODES, TOKEN
from pair_pkg.stages.arguments.aids import switched_on
from pair_pkg.training.arguments import refuse_below

DEFAULT_TERM_WEIGHT = 3.0


@dataclass
class MaskingArguments:
    """Masking: which tokens are predicted together, which more often, and how many at a time."""

    masking: str = field(
        default=TOKEN,
        metadata={
            "help": "what is predicted together: token (Devlin et al., 2019), whole_word, span (1 to 10 words, 3.8 on "
            "average, Joshi et al., 2020) or ngram (1 to 4 words, Cui et al., 2020), at the same share of tokens and "
            "80/10/10 in each; evaluated by single tokens always, so that perplexities compare; token, as the "
            "base was trained in most cases",
            "choices": list(MODES),
        },
    )
    word_dictionary: str | None = field(
        default=None,
        metadata={
            "help": "file of Chinese words, one a line, that the segmenter (jieba's dictionary, by rjieba) may not know"
        },
    )
    term_list: str | None = field(
        default=None,
        metadata={"help": "file of domain terms, one a line, that are predicted more often than other words"},
    )
    mine_terms: int | None = field(
        default=None,
        metadata={
            "help": "so many terms from the corpus itself, in place of a list: the words that tell it most from the "
            "general text of --replay_file; listed in terms.txt"
        },
    )
    term_weight: float | None = field(
        default=None,
        metadata={
            "help": "how many times as likely a term is to be drawn as another word, 1 or more; unset: 3, which at 15 "
            "percent of all tokens predicts about two terms in five, and leaves them context"
        },
    )
    mlm_probability_start: float | None = field(
        default=None,
        metadata={
            "help": "share to predict at the first step, from which it goes evenly to --mlm_probability at the last "
            "(Yang et al., 2023: from 0.3 down to 0.15); unset: the same share throughout"
        },
    )

    def __post_init__(self) -> None:
        if self.word_dictionary and self.masking == TOKEN:
            raise InputError("--word_dictionary tells words apart; give --masking whole_word with it, or leave it out")
        refuse_below(self, mine_terms=1)
        if self.term_list and self.mine_terms:
            raise InputError("--term_list gives terms and --mine_terms finds them; leave out one of the two")
        if self.term_weight is not None and not (self.term_list or self.mine_terms):
            raise InputError("--term_weight is for terms; give --term_list with it, or leave it out")
        if self.term_weight is not None and not 1 <= self.term_weight < float("inf"):
            raise InputError(f"--term_weight {self.term_weight} is out of range; give 1 or more, such as 3")
        if self.mlm_probability_start is not None and not 0 < self.mlm_probability_start < 1:
            raise InputError(
                f"--mlm_probability_start {self.mlm_probability_start} is no share; give 0 < p < 1, such as 0.3"
            )

    def given(self) -> dict[str, Any]:
        """What was asked for, defaults filled in; nothing for a flag that is off."""
        terms = self.term_list or self.mine_terms
        weight = {"term_weight": self.term_weight or DEFAULT_TERM_WEIGHT} if terms else {}
        return switched_on(self) | weight
