"""The model that stage 2 trains, from a checkpoint."""

from dataclasses import replace

import torch

from pair_pkg.stages.aids import add_aids
from pair_pkg.stages.arguments.architecture import CROSS_ENCODER
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.bi_model import build_bi_encoder
from pair_pkg.stages.cross_model import build_cross_encoder
from pair_pkg.stages.pair_model import PairModel
from pair_pkg.stages.pair_setup import PairSetup


def build_pair_model(flags: PairFlags, setup: PairSetup) -> PairModel:
    """The model to train with its aids, its new weights drawn from ``--seed``. Raises ``InputError``."""
    torch.manual_seed(flags.training.seed)
    build = build_cross_encoder if setup.architecture == CROSS_ENCODER else build_bi_encoder
    pair_model = build(flags, setup)
    return replace(pair_model, aids=add_aids(pair_model.model, flags.training, flags.layers, flags.aids))
