"""Flags of stage 1 that tell it of the labelled pairs of stage 2."""

import json
from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.stages.arguments.aids import switched_on
from pair_pkg.stages.arguments.pairs import PairArguments
from pair_pkg.training.arguments import refuse_below

PAIR_SETTINGS = (  # flags of stage 2 that decide how pairs are read and split
    "sentence1_column", "sentence2_column", "label_column", "header", "delimiter", "encoding", "label_kind",
    "class_names", "label_range", "strict", "validation_split_percentage", "test_split_percentage", "split_seed",
    "max_train_samples",
)  # fmt: skip


@dataclass
class TaskArguments:
    """Task: the labelled pairs of stage 2, for the probe, for selection, and to keep their held-out texts apart."""

    pair_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "labelled pairs, as stage 2 takes them with --train_file, split as stage 2 splits them; the "
            "validation pairs are the probe at each evaluation, and texts of validation and test pairs are cut out of "
            "the corpus; the pipeline gives stage 2's own",
            "nargs": "+",
        },
    )
    pair_validation_file: list[str] | None = field(
        default=None, metadata={"help": "stage 2's --validation_file", "nargs": "+"}
    )
    pair_test_file: list[str] | None = field(default=None, metadata={"help": "stage 2's --test_file", "nargs": "+"})
    pair_settings: str | None = field(
        default=None,
        metadata={"help": 'other flags of stage 2 about its pairs, as JSON, such as {"label_column": "same"}'},
    )
    select_by: list[str] | None = field(
        default=None, metadata={"help": "the same as --pair_file, for --select_top", "nargs": "+"}
    )
    select_top: int | None = field(
        default=None,
        metadata={
            "help": "learn only from the passages (rows of the corpus) that are among so many nearest ones of a "
            "training pair's sentence, by the base encoder (kNN-TAPT, Gururangan et al., 2020: 50 to 500); unset: all"
        },
    )
    include_pair_text: bool = field(
        default=False,
        metadata={"help": "learn from the training pairs' sentences too, never from held-out ones (TAPT)"},
    )
    pair_text_format: str = field(
        default="sentences",
        metadata={
            "help": "a sentence a document, or the training pairs as a cross-encoder reads them, A [SEP] B, whose "
            "middle is never predicted; sentences, as in TAPT",
            "choices": ["sentences", "pairs"],
        },
    )
    pair_text_share: float | None = field(
        default=None,
        metadata={"help": "share of the training rows that are the pairs' text; unset: all of it once in an epoch"},
    )
    transductive: bool = field(
        default=False,
        metadata={
            "help": "select by, learn from and leave in the corpus the texts of validation and test pairs too (without "
            "labels): the figures then are of texts that were seen, and the record says so"
        },
    )

    def __post_init__(self) -> None:
        refuse_below(self, select_top=1)
        if self.pair_file and self.select_by and self.pair_file != self.select_by:
            raise InputError("--pair_file and --select_by name different pairs; give one of the two")
        self.pair_file = self.pair_file or self.select_by
        needs = ("select_top", "include_pair_text", "transductive", "pair_validation_file", "pair_test_file")
        needy = next((name for name in (*needs, "pair_settings") if getattr(self, name)), None)
        if needy and not self.pair_file:
            raise InputError(f"--{needy} is about pairs; give --pair_file with it, or leave it out")
        if self.select_by and self.select_top is None:
            raise InputError("--select_by chooses passages; say how many for each sentence by --select_top")
        if self.pair_text_format != "sentences" and not self.include_pair_text:
            raise InputError("--pair_text_format is of the pairs' text; give --include_pair_text with it")
        if self.pair_text_share is not None and not self.include_pair_text:
            raise InputError("--pair_text_share is of the pairs' text; give --include_pair_text with it")
        if self.pair_text_share is not None and not 0 < self.pair_text_share < 1:
            raise InputError(f"--pair_text_share {self.pair_text_share} is no share; give 0 < share < 1, such as 0.1")
        self.pairs = self._pair_arguments() if self.pair_file else None

    def given(self) -> dict[str, Any]:
        """What was asked for; nothing for a flag that is off."""
        return {name: value for name, value in switched_on(self).items() if name != "select_by"}

    def _pair_arguments(self) -> PairArguments:
        """The pairs as stage 2 reads them; leaks are stage 2's to refuse."""
        try:
            settings = json.loads(self.pair_settings or "{}")
        except json.JSONDecodeError as error:
            raise InputError(f'--pair_settings: not valid JSON ({error}); write it as {{"flag": value}}') from error
        if not isinstance(settings, dict) or set(settings) - set(PAIR_SETTINGS):
            raise InputError(f"--pair_settings takes {', '.join(PAIR_SETTINGS)}; found {settings!r:.80}")
        files = (self.pair_file, self.pair_validation_file, self.pair_test_file)
        try:
            return PairArguments(*files, **settings, allow_leaks=True)
        except TypeError as error:
            raise InputError(f"--pair_settings {settings!r:.80}: {error}; give values of the flags' types") from error
