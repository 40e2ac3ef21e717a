"""The model of stage 1 and its trainer, with what is measured beside the corpus's perplexity."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

from pair_pkg.data.stream import RowStream
from pair_pkg.data.tokens import special_affixes
from pair_pkg.errors import InputError
from pair_pkg.mlm.dataset import MaskedBatches, MaskedRows, MaskedStream
from pair_pkg.mlm.decoders import DECODER, attach_decoder
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss, metric_names, perplexity_metrics, perplexity_words, score_rows
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.reconstruction import Reconstruction
from pair_pkg.modeling.base_weights import BaseWeights
from pair_pkg.modeling.loading import carry_pooler, load_model
from pair_pkg.modeling.scratch import build_masked_lm
from pair_pkg.stages.aids import add_aids
from pair_pkg.stages.arguments.mlm import DEFAULT_PATIENCE, MlmFlags
from pair_pkg.stages.arguments.model import ModelArguments
from pair_pkg.stages.corpus import StoredRows
from pair_pkg.stages.masking import build_masking, training_epochs
from pair_pkg.stages.mlm_data import MlmData
from pair_pkg.stages.task_pairs import PROBE, TaskPairs
from pair_pkg.training.pull import PullToBase
from pair_pkg.training.run import stock_reason
from pair_pkg.training.sharding import is_sharded
from pair_pkg.training.stopping import StopRule
from pair_pkg.training.streaming import TrainingStream
from pair_pkg.training.trainer import SideMetrics, StageTrainer
from pair_pkg.training.warm_rows import WarmRows


def load_masked_lm(model_args: ModelArguments, config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """The model with its pooler, or a new one."""
    name = model_args.model_name_or_path
    if not name:
        return build_masked_lm(config, seed)
    torch.manual_seed(seed)  # a checkpoint may lack the head, whose new weights are then drawn
    model = load_model(AutoModelForMaskedLM, name, config, **model_args.hub())
    carry_pooler(model, name, **model_args.hub())
    return model


def build_trainer(
    model: PreTrainedModel,
    base: BaseWeights,
    flags: MlmFlags,
    tokenizer: PreTrainedTokenizerFast,
    data: MlmData,
    side_metrics: Sequence[SideMetrics] = (),
    new_rows: Sequence[int] = (),
) -> StageTrainer:
    """The trainer of a loaded model, which is bound to its batches.

    ``base`` is what the model was before training, ``new_rows`` are the ids that its embeddings know least of.
    """
    args, train = flags.training, data.train
    stream = TrainingStream(train, args) if isinstance(train, RowStream) else None
    flat = bind_sparse_forward(model, flags.model.attention_probs_dropout_prob or 0.0, stock_reason(args))
    epochs = 1.0 if isinstance(train, RowStream) else training_epochs(args, len(train.rows))
    probability = flags.corpus.mlm_probability
    training, evaluation = build_masking(flags.masking, tokenizer, probability, args.seed, epochs, data.mined_terms)
    affixes = special_affixes(tokenizer)
    reconstruction = _build_reconstruction(model, flags, tokenizer)

    def masked(part: StoredRows | RowStream, masking: Masking, with_rows: bool) -> MaskedBatches:
        terms = training.terms if with_rows else None
        settings: dict[str, Any] = {"flat": flat, "with_rows": with_rows, "terms": terms}
        if flags.task.pair_text_format == "pairs" and not with_rows:
            settings["unpredicted"] = tokenizer.sep_token_id
        if not with_rows:
            settings["reconstruction"] = reconstruction
        if isinstance(part, RowStream):
            return MaskedStream(masking, affixes, tokenizer.pad_token_id, **settings)
        return MaskedRows(*part, masking, affixes, tokenizer.pad_token_id, **settings)

    side = list(side_metrics)
    if data.general is not None:
        general = masked(data.general.validation, evaluation, with_rows=True)
        side.insert(0, _general_perplexity(general))
    trainer = StageTrainer(
        model=model,
        args=args,
        train_dataset=masked(train, training, with_rows=False),
        eval_dataset=masked(data.validation, evaluation, with_rows=True),
        processing_class=tokenizer,
        compute_loss_func=masked_lm_loss,
        score_batch=score_batch_for(args.prediction_loss_only),
        row_metrics=perplexity_metrics,
        stream=stream,
        side_metrics=side,
        describe_loss=perplexity_words,
        **add_aids(model, args, flags.layers, temporary=DECODER if reconstruction else None),
    )
    for callback in _callbacks(flags, base, new_rows):
        trainer.add_callback(callback)
    return trainer


def _build_reconstruction(
    model: PreTrainedModel, flags: MlmFlags, tokenizer: PreTrainedTokenizerFast
) -> Reconstruction | None:
    """What of the rows is written again from vectors; the model gets the decoder for it."""
    if not flags.objective.is_on:
        return None
    reconstruction = Reconstruction(flags.objective.objective, flags.objective.share, flags.training.seed)
    attach_decoder(model, reconstruction, flags.objective.pooling, tokenizer.pad_token_id)
    return reconstruction


def measured_names(flags: MlmFlags, pairs: TaskPairs | None) -> set[str]:
    """The names of what an evaluation of these flags measures."""
    names = metric_names(flags.training.prediction_loss_only)
    names |= {"general_loss", "general_perplexity"} if flags.forgetting.replay_file else set()
    return names | ({PROBE} if is_probed(flags, pairs) else set())


def is_probed(flags: MlmFlags, pairs: TaskPairs | None) -> bool:
    """Whether the pairs serve as a probe; sharded weights are not whole for it."""
    return pairs is not None and pairs.probe_metric is not None and not is_sharded(flags.training)


def score_batch_for(loss_only: bool) -> Callable[[nn.Module, dict[str, Any]], dict[str, torch.Tensor]]:
    """What ``StageTrainer`` scores a batch of masked rows with."""

    def score_batch(model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        labels, row, row_of_label = (batch.pop(name) for name in ("labels", "rows", "row_of_label"))
        batch.pop("is_term", None)
        return score_rows(model(**batch), labels, row, row_of_label, loss_only=loss_only)

    return score_batch


def _general_perplexity(general: MaskedBatches) -> SideMetrics:
    def measure(trainer: StageTrainer) -> dict[str, float]:
        metrics = perplexity_metrics(trainer.score_dataset(trainer.get_eval_dataloader(general)))
        return {f"general_{name}": metrics[name] for name in ("loss", "perplexity")}

    return measure


def _callbacks(flags: MlmFlags, base: BaseWeights, new_rows: Sequence[int]) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = []
    if new_rows:
        callbacks.append(WarmRows(new_rows, flags.vocabulary.warmup_steps))
    if flags.forgetting.l2_sp:
        callbacks.append(PullToBase(base, flags.forgetting.l2_sp))
    if flags.training.stop_by is not None:
        callbacks.append(StopRule(flags.training.stop_metrics(), flags.training.patience or DEFAULT_PATIENCE))
    return callbacks


def refuse_misfits(flags: MlmFlags, pairs: TaskPairs | None) -> None:
    """Refuse what does not go together in the flags of several groups."""
    args, forgetting = flags.training, flags.forgetting
    used = [name for name in ("l2_sp", "merge_alpha") if getattr(forgetting, name)]
    if used and is_sharded(args):
        raise InputError(f"--{used[0]} needs whole weights; leave it out, or do without FSDP and DeepSpeed")
    if flags.objective.is_on and (is_sharded(args) or flags.layers.lora_rank is not None):
        raise InputError(
            "--objective brings a decoder that learns whole; leave out --fsdp, --deepspeed and --lora_rank"
        )
    needs_probe = {
        "--merge_alpha of several": len(forgetting.merge_alpha or ()) > 1,
        f"--stop_by {args.stop_by}": args.stop_by in ("probe", "both"),
    }
    for flag, needed in needs_probe.items():
        if needed and not (is_probed(flags, pairs) and args.do_eval):
            raise InputError(f"{flag} asks the pair probe; give --pair_file of binary labels or scores, and --do_eval")
    if flags.masking.mine_terms is not None and not forgetting.replay_file:
        raise InputError("--mine_terms compares the corpus with general text; give --replay_file, or --term_list")
    if flags.task.select_top is not None and (flags.vocabulary.extend_vocab or flags.vocabulary.new_words):
        raise InputError("--select_top reads the corpus by the base encoder, which knows no new words; leave out one")
    if flags.task.select_top is not None and not flags.model.model_name_or_path:
        raise InputError("--select_top chooses by the base encoder; give --model_name_or_path, or leave it out")
    if forgetting.l2_sp and args.fp16:
        raise InputError("--l2_sp adds to gradients, which --fp16 scales; take --bf16, or leave it out")
    if forgetting.l2_sp and flags.layers.lora_rank is not None:
        raise InputError("--l2_sp pulls the encoder's own weights, which --lora_rank freezes; leave out one of the two")
