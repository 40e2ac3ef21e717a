"""The cross-encoder as stage 2 runs it."""

import functools
from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.loading import load_config, load_model
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.head_norm import add_head_norm, fold_head_norm
from pair_pkg.pairs.loss import LossFunction, pair_loss, pair_row_metrics, score_pairs
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.pair_model import PairModel, warn_of_truncated
from pair_pkg.stages.pair_setup import PairSetup
from pair_pkg.training.run import stock_reason
from pair_pkg.training.trainer import StageTrainer


def build_cross_encoder(flags: PairFlags, setup: PairSetup) -> PairModel:
    """A cross-encoder to train: the checkpoint's encoder under a head that may be new."""
    configure_labels(setup.config, setup.scheme, setup.settings["num_labels"])
    name, hub = flags.model.model_name_or_path, flags.model.hub()
    model = load_model(AutoModelForSequenceClassification, name, setup.config, **hub)
    has_norm = setup.settings["head_norm"] == "batch"
    if has_norm:
        add_head_norm(model)
    attention_dropout = flags.model.attention_probs_dropout_prob or 0.0
    flat = bind_cross_encoder(model, attention_dropout, stock_reason(flags.training))
    loss = pair_loss(setup.scheme.kind, setup.settings["class_weights"] or (), setup.settings["focal_gamma"] or 0.0)
    return _pair_model(model, setup.scheme, setup.tokenizer, setup.max_seq_length, flat, loss, has_norm)


def load_cross_encoder(
    name: str, record: dict[str, Any], scheme: LabelScheme, tokenizer: PreTrainedTokenizerFast
) -> PairModel:
    """A fine-tuned cross-encoder, as the record of its run tells."""
    model = load_model(AutoModelForSequenceClassification, name, load_config(name), head_may_be_new=False)
    flat = bind_cross_encoder(model)
    return _pair_model(model, scheme, tokenizer, record["max_seq_length"], flat, pair_loss(scheme.kind))


def _pair_model(
    model: nn.Module,
    scheme: LabelScheme,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    flat: bool,
    loss: LossFunction,
    has_norm: bool = False,
) -> PairModel:
    def build_rows(pairs: Pairs, training: bool) -> PairRows:
        rows = PairRows(pairs, scheme, tokenizer, max_seq_length, flat=flat, with_rows=not training)
        warn_of_truncated(rows.num_truncated, "pairs", max_seq_length)
        return rows

    def save(trainer: StageTrainer) -> None:
        if has_norm:
            fold_head_norm(model)
        trainer.save_model()

    return PairModel(
        model=model,
        build_rows=build_rows,
        loss=loss,
        score_batch=functools.partial(score_pairs, scheme=scheme),
        row_metrics=functools.partial(pair_row_metrics, scheme=scheme),
        save=save,
        are_cosines=False,
    )
