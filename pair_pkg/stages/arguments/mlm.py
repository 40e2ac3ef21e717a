"""Flags of stage 1 about its corpus and its training, and all flags of stage 1 together."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pair_pkg.errors import InputError
from pair_pkg.stages.arguments.aids import LayerArguments
from pair_pkg.stages.arguments.forgetting import ForgettingArguments
from pair_pkg.stages.arguments.masking import MaskingArguments
from pair_pkg.stages.arguments.model import ModelArguments, ScratchArguments
from pair_pkg.stages.arguments.objective import ObjectiveArguments
from pair_pkg.stages.arguments.task import TaskArguments
from pair_pkg.stages.arguments.vocabulary import VocabularyArguments
from pair_pkg.training.arguments import StageTrainingArguments, refuse_below

STOP_RULES = {  # of each the last one says which checkpoint is best
    "perplexity": {"eval_loss": False},
    "probe": {"eval_probe": True},
    "both": {"eval_loss": False, "eval_probe": True},
}
DEFAULT_PATIENCE = 3
DEFAULT_VALIDATION_PERCENTAGE = 5.0


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
    streaming: bool = field(
        default=False,
        metadata={
            "help": "for a corpus larger than the disk: read the files, or the Hub's data set, while training, and "
            "store nothing of them; needs --max_steps"
        },
    )
    stream_buffer: int | None = field(
        default=None,
        metadata={
            "help": "with --streaming: characters of text that each process packs into rows and shuffles at a time; "
            "unset: 8,000,000, about 2 million tokens"
        },
    )
    stream_validation: int | None = field(
        default=None,
        metadata={
            "help": "with --streaming: documents to validate on, the first of the Hub's validation split, or of the "
            "corpus, which then are not trained on; unset: 1,000; --validation_file names others"
        },
    )
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
    near_duplicates: float | None = field(
        default=None,
        metadata={
            "help": "drop documents that share this part of their three-word (Chinese: three-character) runs with one "
            "before them, by MinHash, such as 0.8 (Lee et al., 2022); unset: none, for templates of a domain look alike"
        },
    )
    validation_split_percentage: float | None = field(
        default=None,
        metadata={"help": "share of the documents drawn for validation, in percent, 0 < p < 100; unset: 5"},
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
        default=None, metadata={"help": "kept for old command lines: the cores decide"}
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
        refuse_below(self, max_train_samples=1, max_eval_samples=1, stream_buffer=1, stream_validation=1)
        if not 0 < self.mlm_probability < 1:
            raise InputError(f"--mlm_probability {self.mlm_probability} is no share; give 0 < p < 1, such as 0.15")
        if self.near_duplicates is not None and not 0 < self.near_duplicates < 1:
            raise InputError(f"--near_duplicates {self.near_duplicates} is no share; give 0 < share < 1, such as 0.8")
        if not 0 < self.validation_percentage < 100:
            raise InputError(
                f"--validation_split_percentage {self.validation_split_percentage} is no share; give 0 < p < 100"
            )
        for name in ("stream_buffer", "stream_validation"):
            if getattr(self, name) is not None and not self.streaming:
                raise InputError(f"--{name} is of streams; give --streaming with it, or leave it out")

    @property
    def validation_percentage(self) -> float:
        """Share of the documents to validate on, where no others are named, in percent."""
        given = self.validation_split_percentage
        return DEFAULT_VALIDATION_PERCENTAGE if given is None else given


@dataclass(repr=False)
class MlmTrainingArguments(StageTrainingArguments):
    """Training: what this project adds to the library's arguments, or gives another default."""

    eval_strategy: str = field(
        default="steps", metadata={"help": "when to evaluate: no, steps (every eval_steps) or epoch"}
    )
    prediction_loss_only: bool = field(
        default=True, metadata={"help": "loss and perplexity only; false: accuracy of the predicted tokens too"}
    )

    report_slices: bool = field(
        default=True,
        metadata={
            "help": "look at masked tokens by frequency and of --term_list before and after, in adaptation.md; costs "
            "two evaluations"
        },
    )
    stop_by: str | None = field(
        default=None,
        metadata={
            "help": "the result is the best checkpoint by the validation perplexity, or by the probe of --pair_file, "
            "and training ends after --patience evaluations without a gain; both: where neither has gained, and the "
            "best is the probe's; a checkpoint is saved at each evaluation; unset: the last weights",
            "choices": list(STOP_RULES),
        },
    )
    patience: int | None = field(
        default=None,
        metadata={"help": "evaluations without a gain that end a run of --stop_by; unset: 3, so that one dip does not"},
    )

    def __post_init__(self) -> None:
        if not (self.do_train or self.do_eval):
            self.do_train: bool = True
            self.do_eval: bool = True
        if not self.do_eval:
            self.eval_strategy = "no"
        refuse_below(self, patience=1)
        if self.patience is not None and self.stop_by is None:
            raise InputError("--patience is for --stop_by; give it, or leave --patience out")
        if self.stop_by is not None:
            self._keep_the_best()
        super().__post_init__()

    def stop_metrics(self) -> dict[str, bool]:
        """The metrics that a run is stopped by, and of each whether higher is better."""
        return STOP_RULES[self.stop_by]

    def _keep_the_best(self) -> None:
        """Save a checkpoint at each evaluation, and load the best at the end, by the library's own arguments."""
        if self.eval_strategy == "no":
            raise InputError("--stop_by asks the evaluations; give --eval_strategy steps or epoch, and --do_eval")
        if self.metric_for_best_model is not None:
            raise InputError("--stop_by chooses the metric of the best model; leave out --metric_for_best_model")
        self.load_best_model_at_end = True
        self.save_strategy = self.eval_strategy
        self.save_steps = self.eval_steps or self.logging_steps
        name, higher_is_better = list(self.stop_metrics().items())[-1]
        self.metric_for_best_model: str | None = name
        self.greater_is_better: bool | None = higher_is_better


class MlmFlags(NamedTuple):
    """Everything that the command line of stage 1 says, a group of ``--help`` each; another group is a line here."""

    corpus: CorpusArguments
    model: ModelArguments
    scratch: ScratchArguments
    masking: MaskingArguments
    objective: ObjectiveArguments
    forgetting: ForgettingArguments
    task: TaskArguments
    vocabulary: VocabularyArguments
    layers: LayerArguments
    training: MlmTrainingArguments
