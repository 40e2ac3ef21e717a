"""Stage 1: continue masked-language-model pretraining on a corpus."""

import functools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.data.rows import Rows
from pair_pkg.data.tokens import TokenStore, open_cache, special_affixes
from pair_pkg.errors import InputError
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss, metric_names, perplexity_metrics, score_rows
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.preview import preview_rows
from pair_pkg.modeling.loading import carry_pooler, load_model, load_tokenizer
from pair_pkg.modeling.scratch import build_config, build_masked_lm, train_tokenizer
from pair_pkg.records import fingerprint
from pair_pkg.stages.aids import add_aids
from pair_pkg.stages.arguments.mlm import MlmFlags
from pair_pkg.stages.arguments.model import ModelArguments, ScratchArguments
from pair_pkg.stages.corpus import CorpusRows, Source, describe, load_rows, training_source, validation_source
from pair_pkg.stages.lifecycle import (
    begin_stage,
    check_best_metric,
    dry_run,
    finish_stage,
    load_named_config,
    load_named_tokenizer,
    open_stage,
    process_group_ends,
    settle_config,
    shared_identity,
)
from pair_pkg.stages.masking import build_chinese_words, build_masking, masking_identity, training_epochs
from pair_pkg.stages.publishing import push_saves
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.training.arguments import COMMAND_LINE, parse_arguments
from pair_pkg.training.run import stock_reason, train_and_evaluate
from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")

DEFAULT_MAX_SEQ_LENGTH = 512
NUM_PREVIEWS = 3
DESCRIPTION = "Continue masked-language-model pretraining on a corpus, and say what it did to perplexity."


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The door ``run_mlm.py``; returns the metrics that it prints."""
    set_up_logging()
    with process_group_ends():
        return run(argv)


def run(argv: Sequence[str] | None, *, replace_other: bool = False) -> dict[str, Any]:
    """Parse, adapt, print; with ``replace_other`` a folder that holds another run is started anew without asking."""
    flags = parse(argv)
    metrics = adapt(flags, replace_other=replace_other)
    if flags.training.should_log and not flags.corpus.dry_run:
        _print_metrics(metrics, flags.training.output_dir)
    return metrics


def parse(argv: Sequence[str] | None, place: str = COMMAND_LINE) -> MlmFlags:
    """The flags of stage 1. Raises ``InputError``."""
    types = tuple(MlmFlags.__annotations__.values())
    return MlmFlags(*parse_arguments(types, argv, program="run_mlm.py", description=DESCRIPTION, place=place))


def adapt(flags: MlmFlags, *, replace_other: bool = False) -> dict[str, Any]:
    """Run stage 1 into ``output_dir`` and return its metrics; a finished run is not run again."""
    corpus, args = flags.corpus, flags.training
    _refuse_unclear_model(flags.model, flags.scratch)
    check_best_metric(args, metric_names(args.prediction_loss_only))
    source = training_source(corpus, flags.model.token)
    validation = validation_source(corpus, flags.model.token)
    tokenizer = _tokenizer(flags, source)
    config = _config(flags, tokenizer)
    num_special = sum(map(len, special_affixes(tokenizer)))
    max_seq_length = settle_config(
        config,
        tokenizer,
        flags.model,
        max_seq_length=corpus.max_seq_length,
        default_length=DEFAULT_MAX_SEQ_LENGTH,
        num_special=num_special,
        needs_mask=True,
    )
    identity = _identity(flags, source, validation, tokenizer, max_seq_length)
    opened = open_stage(args, identity, replace_other)
    if opened.finished:
        announce(f"{args.output_dir}: this run is finished; nothing was done again")
        return opened.finished["metrics"]

    rows = _load_rows(flags, source, validation, tokenizer, max_seq_length, num_special)
    if args.should_log:
        announce(*describe(rows.accounting))
    model = _model(flags.model, config, args.seed)
    build = functools.partial(_trainer, model, flags, tokenizer, rows)
    if corpus.dry_run:
        return dry_run(args, build, _preview)
    record = {
        "stage": "mlm",
        "identity": identity,
        "base_model": flags.model.model_name_or_path,
        "max_seq_length": max_seq_length,
        "masking": flags.masking.given(),
        "aids": flags.layers.given(),
        "corpus": rows.accounting,
    }
    begin_stage(args, record, opened)
    trainer = build()
    push_saves(trainer, record)
    args.eval_on_start = args.do_eval and args.do_train and opened.checkpoint is None
    metrics = train_and_evaluate(trainer, opened.checkpoint)
    finish_stage(trainer, record, metrics)
    return metrics


def _refuse_unclear_model(model_args: ModelArguments, scratch: ScratchArguments) -> None:
    if bool(model_args.config_name or model_args.model_name_or_path) == bool(scratch.model_type):
        raise InputError("give --model_name_or_path (or --config_name), or --model_type for a model from scratch")
    if scratch.config_overrides and not scratch.model_type:
        raise InputError("--config_overrides shapes a model from scratch; give --model_type with it")


def _tokenizer(flags: MlmFlags, source: Source) -> PreTrainedTokenizerFast:
    """The tokenizer that was named, the checkpoint's, or one learnt from the corpus."""
    if flags.model.tokenizer_name or flags.model.model_name_or_path:
        return load_named_tokenizer(flags.model)
    with flags.training.main_process_first(desc="learning a tokenizer"):
        return load_tokenizer(str(_learn_tokenizer(source, flags.scratch.vocab_size)))


def _learn_tokenizer(source: Source, vocab_size: int) -> Path:
    """Folder of the tokenizer learnt from a corpus, in the cache, found again where corpus and size are the same."""
    cache = open_cache(source.corpus.token_cache_dir)
    learnt = cache / f"tokenizer-{fingerprint([source.fingerprint(), vocab_size])}"
    if not learnt.is_dir():
        tokenizer = train_tokenizer(source, vocab_size)
        with tempfile.TemporaryDirectory(dir=cache) as building:  # a tokenizer that exists is whole
            tokenizer.save_pretrained(Path(building, "tokenizer"))
            Path(building, "tokenizer").rename(learnt)
    return learnt


def _config(flags: MlmFlags, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The checkpoint's configuration, or a new one."""
    if flags.scratch.model_type:
        return build_config(flags.scratch.model_type, flags.scratch.config_overrides, tokenizer)
    return load_named_config(flags.model)


def _load_rows(
    flags: MlmFlags,
    source: Source,
    validation: Source | None,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    num_special: int,
) -> CorpusRows:
    args = flags.training
    with args.main_process_first(desc="tokenizing the corpus"):
        return load_rows(
            source,
            validation,
            tokenizer,
            max_seq_length=max_seq_length,
            num_special=num_special,
            seed=args.seed,
            chinese=build_chinese_words(flags.masking),
            quiet=bool(args.disable_tqdm) or not args.should_log,
        )


def _model(model_args: ModelArguments, config: PreTrainedConfig, seed: int) -> nn.Module:
    """The model with its pooler, or a new one."""
    name = model_args.model_name_or_path
    if not name:
        return build_masked_lm(config, seed)
    torch.manual_seed(seed)  # a checkpoint may lack the head, whose new weights are then drawn
    model = load_model(AutoModelForMaskedLM, name, config, **model_args.hub())
    carry_pooler(model, name, **model_args.hub())
    return model


def _identity(
    flags: MlmFlags,
    source: Source,
    validation: Source | None,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
) -> dict[str, Any]:
    """Everything that decides on the result of stage 1."""
    corpus, args = flags.corpus, flags.training
    return {
        **shared_identity("mlm", flags.model, args, tokenizer, max_seq_length),
        "model": flags.model.model_name_or_path or flags.scratch.model_type,
        "config_overrides": flags.scratch.config_overrides,
        "corpus": source.fingerprint(),
        "validation": validation.fingerprint() if validation else corpus.validation_split_percentage,
        "line_by_line": corpus.line_by_line,
        "mlm_probability": corpus.mlm_probability,
        "max_train_samples": corpus.max_train_samples,
        "max_eval_samples": corpus.max_eval_samples,
        "do_eval": args.do_eval,
        **masking_identity(flags.masking),
        **flags.layers.given(),
    }


def _trainer(model: nn.Module, flags: MlmFlags, tokenizer: PreTrainedTokenizerFast, rows: CorpusRows) -> StageTrainer:
    args, affixes = flags.training, special_affixes(tokenizer)
    flat = bind_sparse_forward(model, flags.model.attention_probs_dropout_prob or 0.0, stock_reason(args))
    probability, epochs = flags.corpus.mlm_probability, training_epochs(args, len(rows.train))
    training, evaluation = build_masking(flags.masking, tokenizer, probability, args.seed, epochs)

    def masked(store: TokenStore, part: Rows, masking: Masking, with_rows: bool) -> MaskedRows:
        return MaskedRows(store, part, masking, affixes, tokenizer.pad_token_id, flat=flat, with_rows=with_rows)

    def score_batch(scored_model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        labels, row, row_of_label = (batch.pop(name) for name in ("labels", "rows", "row_of_label"))
        return score_rows(scored_model(**batch), labels, row, row_of_label, loss_only=args.prediction_loss_only)

    return StageTrainer(
        model=model,
        args=args,
        train_dataset=masked(rows.train_store, rows.train, training, with_rows=False),
        eval_dataset=masked(rows.validation_store, rows.validation, evaluation, with_rows=True),
        processing_class=tokenizer,
        compute_loss_func=masked_lm_loss,
        score_batch=score_batch,
        row_metrics=perplexity_metrics,
        **add_aids(model, args, flags.layers),
    )


def _preview(trainer: StageTrainer) -> list[str]:
    if not trainer.train_dataset.flat:
        return []
    masked = preview_rows(trainer.train_dataset, trainer.processing_class, NUM_PREVIEWS)
    return ["masked rows, {shown -> to predict}:", *masked]


def _print_metrics(metrics: dict[str, Any], output_dir: str) -> None:
    before, after = metrics.get("before", {}).get("eval_perplexity"), metrics.get("eval_perplexity")
    if before and after:
        announce(f"perplexity of the validation documents: {before:,.2f} before, {after:,.2f} after")
    elif after:
        announce(f"perplexity of the validation documents: {after:,.2f}")
    announce(f"written to {output_dir}: the model, run.json, log_history.json, history.png")
