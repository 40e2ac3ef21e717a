"""The model of stage 2: to train from a checkpoint, or as a finished run left it."""

from typing import Any

import torch
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.labels import LabelScheme
from pair_pkg.stages.arguments.architecture import CROSS_ENCODER
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.bi_model import build_bi_encoder, load_bi_encoder
from pair_pkg.stages.cross_model import build_cross_encoder, load_cross_encoder
from pair_pkg.stages.pair_model import PairModel
from pair_pkg.stages.pair_setup import PairSetup


def build_pair_model(flags: PairFlags, setup: PairSetup) -> PairModel:
    """The model to train, its new weights drawn from ``--seed``. Raises ``InputError``."""
    torch.manual_seed(flags.training.seed)
    build = build_cross_encoder if setup.architecture == CROSS_ENCODER else build_bi_encoder
    return build(flags, setup)


def load_pair_model(
    name: str, record: dict[str, Any], scheme: LabelScheme, tokenizer: PreTrainedTokenizerFast
) -> PairModel:
    """The model of a finished run, whose folder is ``name``. Raises ``InputError``."""
    load = load_cross_encoder if record["architecture"] == CROSS_ENCODER else load_bi_encoder
    return load(name, record, scheme, tokenizer)
