"""The cross-encoder as stage 2 trains it."""

import functools
from typing import Any

import numpy as np
from transformers import AutoModelForSequenceClassification

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.loading import load_model
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.head_norm import add_head_norm, fold_head_norm
from pair_pkg.pairs.loss import LossFunction, balanced_pair_losses, pair_loss, pair_row_metrics, score_pairs
from pair_pkg.pairs.rdrop import COPIES, rdrop_loss
from pair_pkg.pairs.symmetry import fold_orders
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.pair_model import PairModel, warn_of_truncated
from pair_pkg.stages.pair_setup import PairSetup
from pair_pkg.training.run import stock_reason
from pair_pkg.training.trainer import StageTrainer


def build_cross_encoder(flags: PairFlags, setup: PairSetup) -> PairModel:
    """A cross-encoder to train: the checkpoint's encoder under a head that may be new."""
    settings, args = setup.settings, flags.training
    configure_labels(setup.config, setup.scheme, settings["num_labels"])
    model = load_model(
        AutoModelForSequenceClassification, flags.model.model_name_or_path, setup.config, **flags.model.hub()
    )
    has_norm = settings["head_norm"] == "batch"
    if has_norm:
        add_head_norm(model)
    flat = bind_cross_encoder(model, flags.model.attention_probs_dropout_prob or 0.0, stock_reason(args))
    loss, copies = _loss(flags, setup)
    symmetric, swap_seed = settings["symmetric"], args.seed if args.data_seed is None else args.data_seed

    def build_rows(pairs: Pairs, training: bool) -> PairRows:
        rows = PairRows(
            pairs,
            setup.scheme,
            setup.tokenizer,
            setup.max_seq_length,
            flat=flat,
            with_rows=not training,
            copies=copies if training else 1,
            both_orders=symmetric and not training,
            swap_seed=swap_seed if symmetric and training else None,
        )
        warn_of_truncated(rows.num_truncated, "pairs", setup.max_seq_length)
        return rows

    def save(trainer: StageTrainer) -> None:
        if has_norm:
            fold_head_norm(model)
        setup.tokenizer.model_max_length = setup.max_seq_length  # plain loaders then cut a pair where we do
        trainer.save_model()

    return PairModel(
        model=model,
        build_rows=build_rows,
        loss=loss,
        score_batch=functools.partial(score_pairs, scheme=setup.scheme),
        row_metrics=functools.partial(_row_metrics, scheme=setup.scheme, symmetric=symmetric),
        save=save,
        are_cosines=False,
        both_orders=symmetric,
    )


def _loss(flags: PairFlags, setup: PairSetup) -> tuple[LossFunction, int]:
    """The loss, and how often each pair stands in its training batch."""
    kind, alpha = setup.scheme.kind, flags.aids.rdrop_alpha
    balance = setup.settings["class_weights"] or (), setup.settings["focal_gamma"] or 0.0
    if alpha is None:
        return pair_loss(kind, *balance), 1
    return rdrop_loss(kind, alpha, balanced_pair_losses(kind, *balance)), COPIES


def _row_metrics(columns: dict[str, np.ndarray], *, scheme: LabelScheme, symmetric: bool) -> dict[str, Any]:
    return pair_row_metrics(fold_orders(columns) if symmetric else columns, scheme=scheme)
