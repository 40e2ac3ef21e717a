"""Flags of stage 1 that give words of the domain entries of their own."""

from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.stages.arguments.aids import switched_on
from pair_pkg.training.arguments import refuse_below

DEFAULT_WARMUP_STEPS = 50


@dataclass
class VocabularyArguments:
    """Vocabulary: words of the domain that the tokenizer breaks up, as entries of their own."""

    extend_vocab: int | None = field(
        default=None,
        metadata={
            "help": "give so many words, or Chinese terms, entries of their own: those whose pieces are most "
            "tokens of the corpus; listed in new_words.tsv, which can be edited and given as --new_words; WordPiece "
            "only; unset: none"
        },
    )
    new_words: str | None = field(
        default=None,
        metadata={"help": "file of the words to add, the first column of a tsv or one a line, in place of mined ones"},
    )
    new_words_warmup_steps: int | None = field(
        default=None,
        metadata={
            "help": "first steps in which only the new rows learn; unset: 50, for they begin as the mean of their "
            "pieces, not far from where they end"
        },
    )

    def __post_init__(self) -> None:
        refuse_below(self, extend_vocab=1, new_words_warmup_steps=0)
        if self.extend_vocab is not None and self.new_words:
            raise InputError("--extend_vocab mines words and --new_words gives them; leave out one of the two")
        if self.new_words_warmup_steps is not None and not (self.extend_vocab or self.new_words):
            raise InputError("--new_words_warmup_steps is for new words; give --extend_vocab or --new_words with it")

    @property
    def warmup_steps(self) -> int:
        return DEFAULT_WARMUP_STEPS if self.new_words_warmup_steps is None else self.new_words_warmup_steps

    def given(self) -> dict[str, Any]:
        """What was asked for, defaults filled in; nothing for a flag that is off."""
        on = self.extend_vocab or self.new_words
        return switched_on(self) | ({"new_words_warmup_steps": self.warmup_steps} if on else {})
