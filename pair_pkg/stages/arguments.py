"""What the doors can be asked for, beside the library's training arguments."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import POOLINGS
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.pairs.embedding_loss import LOSSES, choose_loss
from pair_pkg.training.arguments import StageTrainingArguments, refuse_below

FEWEST_ENTRIES = 10  # of a vocabulary: five are special tokens, and something has to be left to draw from


@dataclass
class ModelArguments:
    """Model: where the weights, the tokenizer and the configuration come from."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "checkpoint to start from: a folder, package:NAME/FOLDER in an installed package, or a Hub name"
        },
    )
    config_name: str | None = field(default=None, metadata={"help": "configuration, if not the checkpoint's own"})
    tokenizer_name: str | None = field(default=None, metadata={"help": "tokenizer, if not the checkpoint's own"})
    hidden_dropout_prob: float | None = field(
        default=None, metadata={"help": "dropout of hidden states, 0 <= p < 1; unset: the model's own"}
    )
    attention_probs_dropout_prob: float | None = field(
        default=None,
        metadata={
            "help": "dropout of attention weights, 0 <= p < 1; unset: 0 on the padding-free path, where its draws cost "
            "more than they bring to short training, else the model's own"
        },
    )
    cache_dir: str | None = field(default=None, metadata={"help": "where downloads from the Hub are kept"})
    model_revision: str = field(default="main", metadata={"help": "branch, tag or commit on the Hub"})
    token: str | None = field(default=None, metadata={"help": "Hub token; unset: the login's or the environment's"})
    trust_remote_code: bool = field(default=False, metadata={"help": "refused: no code from a checkpoint is run"})
    use_fast_tokenizer: bool = field(default=True, metadata={"help": "kept for old command lines: always fast"})
    low_cpu_mem_usage: bool = field(default=False, metadata={"help": "kept for old command lines: always low"})
    dtype: str | None = field(
        default=None, metadata={"help": "kept for old command lines: weights are trained in float32, see --bf16"}
    )

    def __post_init__(self) -> None:
        self.model_name_or_path = resolve_package(self.model_name_or_path)
        if self.trust_remote_code:
            raise InputError("--trust_remote_code: code from a checkpoint is never run; use a built-in architecture")
        if self.dtype not in (None, "auto", "float32"):
            raise InputError(f"--dtype {self.dtype}: weights are trained in float32; ask for half precision by --bf16")

    def hub(self) -> dict[str, str | None]:
        """What transformers' loaders want to know about the Hub."""
        return {"cache_dir": self.cache_dir, "revision": self.model_revision, "token": self.token}


@dataclass
class ScratchArguments:
    """Model from scratch: an architecture with new weights."""

    model_type: str | None = field(
        default=None, metadata={"help": "architecture for a model from scratch, such as bert or modernbert"}
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": "its settings, such as hidden_size=128,num_hidden_layers=2"}
    )
    vocab_size: int = field(
        default=8000, metadata={"help": "entries of a tokenizer trained on the corpus, when none is given"}
    )

    def __post_init__(self) -> None:
        refuse_below(self, vocab_size=FEWEST_ENTRIES)


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


@dataclass
class ArchitectureArguments:
    """Architecture: what is put on the encoder."""

    architecture: str = field(
        default="cross_encoder",
        metadata={
            "help": "both sentences read together, or each by itself",
            "choices": ["cross_encoder", "bi_encoder"],
        },
    )
    num_labels: int | None = field(
        default=None,
        metadata={"help": "outputs of a cross_encoder; unset: 2 for binary labels (1: a sigmoid), 1 for scores"},
    )
    pooling: str | None = field(
        default=None,
        metadata={
            "help": "what of its tokens is a text's vector in a bi_encoder; unset: mean (Reimers and Gurevych, 2019)",
            "choices": list(POOLINGS),
        },
    )
    loss: str | None = field(
        default=None,
        metadata={
            "help": "loss of a bi_encoder; unset: cosent for scores, online_contrastive for binary labels",
            "choices": list(LOSSES),
        },
    )
    matryoshka_dims: list[int] | None = field(
        default=None,
        metadata={"help": "leading dimensions of a bi_encoder that are to serve by themselves too", "nargs": "+"},
    )
    head_norm: str = field(
        default="none",
        metadata={
            "help": "normalization of the pooled vector; batch is folded into a linear layer at saving",
            "choices": ["none", "batch"],
        },
    )

    def __post_init__(self) -> None:
        is_bi_encoder = self.architecture == "bi_encoder"
        for flag in ("num_labels",) if is_bi_encoder else ("pooling", "loss", "matryoshka_dims"):
            if getattr(self, flag) is not None:
                other = "cross_encoder" if is_bi_encoder else "bi_encoder"
                raise InputError(f"--{flag} is for --architecture {other}; leave it out, or take that")

    def settings(self, scheme: LabelScheme, labels: np.ndarray) -> dict[str, Any]:
        """What decides on the architecture, defaults filled in by the training labels. Raises ``InputError``."""
        if self.architecture == "cross_encoder":
            return {"num_labels": self.num_labels, "head_norm": self.head_norm}
        return {
            "pooling": self.pooling or POOLINGS[0],
            "loss": choose_loss(scheme.kind, labels, self.loss),
            "matryoshka_dims": self.matryoshka_dims or [],
            "head_norm": self.head_norm,
        }


@dataclass(repr=False)
class PairTrainingArguments(StageTrainingArguments):
    """Training: the library's arguments, with our defaults where they differ."""

    eval_strategy: str = field(
        default="epoch", metadata={"help": "when to evaluate: no, steps (every eval_steps) or epoch"}
    )

    def __post_init__(self) -> None:
        if not (self.do_train or self.do_eval or self.do_predict):
            self.do_train = self.do_eval = True
        if not (self.do_eval and self.do_train):
            self.eval_strategy = "no"
        super().__post_init__()
