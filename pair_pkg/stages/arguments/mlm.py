"""Flags of stage 1 about its corpus and its training, and all flags of stage 1 together."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pair_pkg.errors import InputError
from pair_pkg.stages.arguments.aids import LayerArguments
from pair_pkg.stages.arguments.masking import MaskingArguments
from pair_pkg.stages.arguments.model import ModelArguments, ScratchArguments
from pair_pkg.training.arguments import StageTrainingArguments, refuse_below


@dataclass
class CorpusArguments:
    """Corpus: the text to learn from, and how it is cut and masked."""

    train_file: list[str] | None = field(
        default=None,
        metadata={
            "help": "files, folders or globs: txt, csv, tsv, json, jsonl, parquet, each also as gz",
            "nargs": "+",
        },
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "the same for validation; unset: drawn from the corpus", "nargs": "+"}
    )
    dataset_name: str | None = field(default=None, metadata={"help": "data set on the Hub, in place of files"})
    dataset_config_name: str | None = field(default=None, metadata={"help": "its configuration"})
    streaming: bool = field(default=False, metadata={"help": "read the Hub's data set without storing its files"})
    text_column: str | None = field(
        default=None, metadata={"help": "column of the text; unset: text, content, document, ..."}
    )
    encoding: str | None = field(default=None, metadata={"help": "encoding of the files; unset: detected"})
    document_per: str = field(
        default="auto",
        metadata={"help": "in txt files a document is a line, or ends at a blank line; auto looks at the file",
                  "choices": ["auto", "line", "blank_line"]},
    )  # fmt: skip
    keep_duplicates: bool = field(
        default=False, metadata={"help": "keep exact duplicates of a document; dropped by default, they are memorized"}
    )
    validation_split_percentage: float = field(
        default=5, metadata={"help": "share of the documents drawn for validation, in percent, 0 < p < 100"}
    )
    max_seq_length: int | None = field(
        default=None,
        metadata={"help": "tokens of a row, special tokens included; unset: 512, or the model's positions"},
    )
    line_by_line: bool = field(
        default=False, metadata={"help": "one document, or window of one, a row; else rows are packed full"}
    )
    pad_to_max_length: bool = field(
        default=False, metadata={"help": "kept for old command lines: rows are not padded at all"}
    )
    mlm_probability: float = field(
        default=0.15, metadata={"help": "share of the tokens to predict, 0 < p < 1 (Devlin et al., 2019)"}
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "rows to train on, for a trial"})
    max_eval_samples: int | None = field(default=None, metadata={"help": "rows to evaluate on, for a trial"})
    preprocessing_num_workers: int | None = field(
        default=None, metadata={"help": "kept for old command lines: all cores tokenize"}
    )
    overwrite_cache: bool = field(default=False, metadata={"help": "tokenize again what is in the cache"})
    token_cache_dir: str = field(
        default="~/.cache/pair_pkg", metadata={"help": "where tokenized corpora are kept, found again by content"}
    )
    dry_run: bool = field(
        default=False,
        metadata={"help": "print tokens, steps, expected time and memory and three masked rows; train nothing"},
    )

    def __post_init__(self) -> None:
        if not self.train_file and not self.dataset_name:
            raise InputError("no corpus: give --train_file or --dataset_name")
        if self.train_file and self.dataset_name:
            raise InputError("two corpora: give --train_file or --dataset_name, not both")
        refuse_below(self, max_train_samples=1, max_eval_samples=1)
        if not 0 < self.mlm_probability < 1:
            raise InputError(f"--mlm_probability {self.mlm_probability} is no share; give 0 < p < 1, such as 0.15")
        if not 0 < self.validation_split_percentage < 100:
            raise InputError(
                f"--validation_split_percentage {self.validation_split_percentage} is no share; give 0 < p < 100"
            )


@dataclass(repr=False)
class MlmTrainingArguments(StageTrainingArguments):
    """Training: the library's arguments, with our defaults where they differ."""

    eval_strategy: str = field(
        default="steps", metadata={"help": "when to evaluate: no, steps (every eval_steps) or epoch"}
    )
    prediction_loss_only: bool = field(
        default=True, metadata={"help": "loss and perplexity only; false: accuracy of the predicted tokens too"}
    )

    def __post_init__(self) -> None:
        if not (self.do_train or self.do_eval):
            self.do_train = self.do_eval = True
        if not self.do_eval:
            self.eval_strategy = "no"
        super().__post_init__()


class MlmFlags(NamedTuple):
    """Everything that the command line of stage 1 says, a group of ``--help`` each; another group is a line here."""

    corpus: CorpusArguments
    model: ModelArguments
    scratch: ScratchArguments
    masking: MaskingArguments
    layers: LayerArguments
    training: MlmTrainingArguments
