"""The cross-encoder as stage 2 runs it."""

import functools
from typing import Any

from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.loading import load_config, load_model
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.head_norm import add_head_norm, fold_head_norm
from pair_pkg.pairs.loss import pair_loss, pair_row_metrics, score_pairs
from pair_pkg.stages.pair_model import PairModel, warn_of_truncated
from pair_pkg.training.trainer import StageTrainer


def build_cross_encoder(
    name: str,
    config: PreTrainedConfig,
    scheme: LabelScheme,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    *,
    num_labels: int | None,
    head_norm: str,
    attention_dropout: float,
    why_stock: str | None,
    **hub: Any,
) -> PairModel:
    """A cross-encoder to train: ``name``'s encoder under a head that may be new."""
    configure_labels(config, scheme, num_labels)
    model = load_model(AutoModelForSequenceClassification, name, config, **hub)
    if head_norm == "batch":
        add_head_norm(model)
    flat = bind_cross_encoder(model, attention_dropout, why_stock)
    return _pair_model(model, scheme, tokenizer, max_seq_length, flat, head_norm == "batch")


def load_cross_encoder(
    name: str, record: dict[str, Any], scheme: LabelScheme, tokenizer: PreTrainedTokenizerFast
) -> PairModel:
    """A fine-tuned cross-encoder, as the record of its run tells."""
    model = load_model(AutoModelForSequenceClassification, name, load_config(name), head_may_be_new=False)
    flat = bind_cross_encoder(model)
    return _pair_model(model, scheme, tokenizer, record["max_seq_length"], flat)


def _pair_model(
    model: nn.Module,
    scheme: LabelScheme,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    flat: bool,
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
        loss=pair_loss(scheme.kind),
        score_batch=functools.partial(score_pairs, scheme=scheme),
        row_metrics=functools.partial(pair_row_metrics, scheme=scheme),
        save=save,
        threshold=0.5,
    )
