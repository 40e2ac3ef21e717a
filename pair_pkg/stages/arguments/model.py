"""Flags that name the model: a checkpoint, or an architecture with new weights."""

from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.training.arguments import refuse_below

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

    def hub(self) -> dict[str, Any]:
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
