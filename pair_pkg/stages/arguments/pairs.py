"""Flags of stage 2 about its pairs and its training, and all flags of stage 2 together."""

from dataclasses import dataclass, field
from typing import NamedTuple

from pair_pkg.errors import InputError
from pair_pkg.stages.arguments.aids import AidArguments, LayerArguments
from pair_pkg.stages.arguments.architecture import ArchitectureArguments
from pair_pkg.stages.arguments.decision import DecisionArguments
from pair_pkg.stages.arguments.evaluation import EvaluationArguments
from pair_pkg.stages.arguments.model import ModelArguments
from pair_pkg.training.arguments import StageTrainingArguments, refuse_below


@dataclass
class PairArguments:
    """Pairs: the labelled sentences, their columns, labels and splits."""

    train_file: list[str] | None = field(
        default=None,
        metadata={"help": "labelled pairs: csv, tsv, json, jsonl or parquet, each also as gz", "nargs": "+"},
    )
    validation_file: list[str] | None = field(
        default=None, metadata={"help": "the same for validation; unset: split off by connected text", "nargs": "+"}
    )
    test_file: list[str] | None = field(
        default=None, metadata={"help": "the same for the test; unset: split off by connected text", "nargs": "+"}
    )
    predict_file: list[str] | None = field(
        default=None, metadata={"help": "pairs to score with --do_predict; a label is not needed", "nargs": "+"}
    )
    sentence1_column: str | None = field(default=None, metadata={"help": "unset: sentence1, question1, text_a, ..."})
    sentence2_column: str | None = field(default=None, metadata={"help": "unset: sentence2, question2, text_b, ..."})
    label_column: str | None = field(default=None, metadata={"help": "unset: label, score, is_duplicate, ..."})
    header: bool | None = field(default=None, metadata={"help": "the first row names the columns; unset: detected"})
    delimiter: str | None = field(default=None, metadata={"help": "one character; unset: by the file's suffix"})
    encoding: str | None = field(default=None, metadata={"help": "encoding of the files; unset: detected"})
    label_kind: str | None = field(
        default=None,
        metadata={"help": "what labels are; unset: detected", "choices": ["binary", "classes", "scores"]},
    )
    class_names: list[str] | None = field(
        default=None, metadata={"help": "labels in the order of their ids, the positive one last", "nargs": "+"}
    )
    label_range: list[float] | None = field(
        default=None, metadata={"help": "lowest and highest score, such as 0 5; unset: detected", "nargs": 2}
    )
    strict: bool = field(
        default=False, metadata={"help": "refuse rows with an empty sentence instead of skipping them"}
    )
    validation_split_percentage: float = field(
        default=10, metadata={"help": "share of the pairs split off for validation, in percent"}
    )
    test_split_percentage: float = field(
        default=10, metadata={"help": "share of the pairs split off for the test where only --train_file is given"}
    )
    split_seed: int = field(
        default=42, metadata={"help": "seed of the splits, apart from --seed so that several seeds share them"}
    )
    allow_leaks: bool = field(
        default=False, metadata={"help": "go on, with a warning, where a text stands in two splits"}
    )
    augment_graph: bool = field(
        default=False,
        metadata={
            "help": "add the pairs that the training pairs imply: A = B and B = C make A = C, A = B and B != C make "
            "A != C; at the training pairs' own share of positives, drawn by --split_seed, none where they contradict "
            "each other. For binary labels that mean equality (an entailment has a direction)"
        },
    )
    text_normalization: str = field(
        default="nfkc",
        metadata={
            "help": "what the saved tokenizer does to a text first: nfkc makes one of composed and decomposed "
            "characters and of full-width and plain forms (Chinese commas become ,), and strips the blanks around it, "
            "so that texts which look alike score alike wherever the folder is loaded; none changes nothing",
            "choices": ["nfkc", "none"],
        },
    )
    max_seq_length: int | None = field(
        default=None,
        metadata={"help": "tokens of a pair (bi_encoder: a text), special ones included; unset: 256, or the model's"},
    )
    max_train_samples: int | None = field(default=None, metadata={"help": "pairs to train on, for a trial"})
    max_eval_samples: int | None = field(default=None, metadata={"help": "pairs to evaluate on, for a trial"})
    dry_run: bool = field(
        default=False, metadata={"help": "print splits, steps, expected time and memory; train nothing"}
    )

    def __post_init__(self) -> None:
        refuse_below(self, max_train_samples=1, max_eval_samples=1, split_seed=0)
        if self.label_range and len(self.label_range) != 2:
            raise InputError(f"--label_range {self.label_range}: give the lowest and the highest score, such as 0 5")
        for flag in ("validation_split_percentage", "test_split_percentage"):
            if not 0 < getattr(self, flag) < 50:
                raise InputError(f"--{flag} {getattr(self, flag)} is out of range; give 0 < p < 50")


@dataclass(repr=False)
class PairTrainingArguments(StageTrainingArguments):
    """Training: what this project adds to the library's arguments, or gives another default."""

    eval_strategy: str = field(
        default="epoch", metadata={"help": "when to evaluate: no, steps (every eval_steps) or epoch"}
    )
    seeds: list[int] | None = field(
        default=None,
        metadata={
            "help": "train once with each seed, in output_dir/seed-N: mean and spread of the test figures, and in "
            "output_dir the model that is best on validation (average precision, macro F1 of classes, Spearman of "
            "scores); seeds can be added later, finished runs are kept",
            "nargs": "+",
        },
    )
    k_folds: int | None = field(
        default=None,
        metadata={
            "help": "train K models, in output_dir/fold-N, each with another K-th of the training and validation pairs "
            "for validation, cut by connected text; output_dir is then the ensemble of them, with the mean of their "
            "calibrated probabilities and a decision fitted on the pairs that each did not see: for few pairs, at K "
            "times the cost of training and of scoring (Hastie et al., 2009, section 7.10, take 5 or 10)"
        },
    )

    def __post_init__(self) -> None:
        if not (self.do_train or self.do_eval or self.do_predict):
            self.do_train: bool = True
            self.do_eval: bool = True
        if self.seeds is not None:
            self._check_seeds()
        if self.k_folds is not None:
            self._check_folds()
        if not (self.do_eval and self.do_train):
            self.eval_strategy = "no"
        super().__post_init__()

    def _check_folds(self) -> None:
        refuse_below(self, k_folds=2)
        if self.seeds is not None:
            raise InputError("--k_folds and --seeds: give one of them")
        if self.push_to_hub:
            raise InputError(
                "--k_folds makes an ensemble, which is no model to push; push one of its fold-N afterwards"
            )
        self._check_runs(f"--k_folds {self.k_folds}")

    def _check_seeds(self) -> None:
        words = " ".join(map(str, self.seeds))
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise InputError(f"--seeds {words}: give different whole numbers from 0 on; equal runs add no evidence")
        self._check_runs(f"--seeds {words}")

    def _check_runs(self, flag: str) -> None:
        if not (self.do_train and self.do_eval):
            raise InputError(f"{flag} trains, and needs the validation pairs; add --do_train and --do_eval")
        if self.resume_from_checkpoint is not None:
            raise InputError(f"{flag}: every run resumes by itself; leave --resume_from_checkpoint out")


class PairFlags(NamedTuple):
    """Everything that the command line of stage 2 says, a group of ``--help`` each; another group is a line here."""

    pairs: PairArguments
    architecture: ArchitectureArguments
    decision: DecisionArguments
    evaluation: EvaluationArguments
    model: ModelArguments
    layers: LayerArguments
    aids: AidArguments
    training: PairTrainingArguments
