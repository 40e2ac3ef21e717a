"""Flags that change how a model learns: its layers (both stages), and aids for few labelled pairs (stage 2)."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.training.arguments import refuse_below
from pair_pkg.training.averaging import KINDS

DEFAULT_EMA_DECAY = 0.999
DEFAULT_LORA_DROPOUT = 0.0


@dataclass
class LayerArguments:
    """Layers: which of the encoder's weights learn, and how fast."""

    layer_decay: float | None = field(
        default=None,
        metadata={
            "help": "each layer learns at this share of the rate of the layer above, the head at --learning_rate, the "
            "embeddings slowest, 0 < share <= 1; 0.95 in Zhang et al. (2021), 0.8 in ELECTRA (2020); unset: all alike"
        },
    )
    freeze_layers: int | None = field(
        default=None,
        metadata={
            "help": "the embeddings and this many of the lowest layers do not learn, and cost no backward pass (Lee et "
            "al., 2019: a quarter of the layers is enough to learn); unset: all learn"
        },
    )
    lora_rank: int | None = field(
        default=None,
        metadata={
            "help": "learn low-rank changes of the layers' linear maps, and the head, in place of all weights; merged "
            "at the end (Hu et al., 2021, rank 8, at about ten times the usual --learning_rate); unset: all learn"
        },
    )
    lora_alpha: float | None = field(
        default=None, metadata={"help": "scale of the low-rank changes, alpha / rank; unset: twice the rank"}
    )
    lora_dropout: float | None = field(
        default=None, metadata={"help": "dropout in front of the low-rank changes, 0 <= p < 1; unset: 0, as in peft"}
    )

    def __post_init__(self) -> None:
        refuse_below(self, freeze_layers=0, lora_rank=1)
        if self.layer_decay is not None and not 0 < self.layer_decay <= 1:
            raise InputError(f"--layer_decay {self.layer_decay} is out of range; give 0 < share <= 1, such as 0.95")
        if self.lora_rank is None and (self.lora_alpha, self.lora_dropout) != (None, None):
            raise InputError(
                "--lora_alpha and --lora_dropout shape LoRA; give --lora_rank with them, or leave them out"
            )
        if self.lora_rank is not None and self.freeze_layers is not None:
            raise InputError("--lora_rank freezes the encoder's weights itself; leave out --freeze_layers")
        if self.lora_alpha is not None and not 0 < self.lora_alpha < float("inf"):
            raise InputError(f"--lora_alpha {self.lora_alpha} is out of range; give more than 0")
        if self.lora_dropout is not None and not 0 <= self.lora_dropout < 1:
            raise InputError(f"--lora_dropout {self.lora_dropout} is no probability; give 0 <= p < 1")

    def given(self) -> dict[str, Any]:
        """What was asked for, defaults filled in; nothing for a flag that is off."""
        lora = {}
        if self.lora_rank is not None:
            lora["lora_alpha"] = 2.0 * self.lora_rank if self.lora_alpha is None else self.lora_alpha
            lora["lora_dropout"] = DEFAULT_LORA_DROPOUT if self.lora_dropout is None else self.lora_dropout
        return switched_on(self) | lora


@dataclass
class AidArguments:
    """Aids for few pairs, all off by default: docs/results.md says what each of them brought."""

    fgm_epsilon: float | None = field(
        default=None,
        metadata={
            "help": "train on each batch twice, the second time with the word embeddings of each text moved by this "
            "length in the direction that raises its loss (FGM, Miyato et al., 2017); the gradient is the mean of both "
            "passes, so that the learning rate keeps its meaning; unset: once. Twice the time"
        },
    )
    rdrop_alpha: float | None = field(
        default=None,
        metadata={
            "help": "each pair twice in a batch of a cross_encoder, under two dropout draws, and this weight on how "
            "far the two predictions lie apart (R-Drop, Liang et al., 2021: 0.1 to 1 on GLUE); unset: once. Twice "
            "the time"
        },
    )
    weight_averaging: str = field(
        default="none",
        metadata={
            "help": "evaluate and keep an average of the weights: ema, exponential over the steps, or swa, the mean of "
            "the last quarter of the steps, for a rate that stays high there (Izmailov et al., 2018), as under "
            "--lr_scheduler_type constant_with_warmup",
            "choices": list(KINDS),
        },
    )
    ema_decay: float | None = field(
        default=None,
        metadata={
            "help": "share of the average that stays at a step, 0 <= d < 1, at most (1 + n) / (10 + n) after n steps "
            "as in TensorFlow, so that the average of a short run is not its start; unset: 0.999, as in torch"
        },
    )
    reinit_layers: int | None = field(
        default=None,
        metadata={
            "help": "draw this many of the top layers, and the pooler, anew from --seed before training (Zhang et al., "
            "2021: 1 to 6 of 24); unset: none"
        },
    )

    def __post_init__(self) -> None:
        refuse_below(self, fgm_epsilon=0, rdrop_alpha=0, reinit_layers=1)
        if self.ema_decay is not None and self.weight_averaging != "ema":
            raise InputError("--ema_decay is for --weight_averaging ema; leave it out, or take that")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise InputError(f"--ema_decay {self.ema_decay} is out of range; give 0 <= d < 1, such as 0.99")

    def given(self) -> dict[str, Any]:
        """What was asked for, defaults filled in; nothing for a flag that is off."""
        decay = {} if self.weight_averaging != "ema" or self.ema_decay is not None else {"ema_decay": DEFAULT_EMA_DECAY}
        return switched_on(self) | decay


def switched_on(arguments: Any) -> dict[str, Any]:
    """The flags that differ from their defaults."""
    values = {item.name: getattr(arguments, item.name) for item in dataclasses.fields(arguments)}
    return {item.name: values[item.name] for item in dataclasses.fields(arguments) if values[item.name] != item.default}
