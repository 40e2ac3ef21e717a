"""Stage 1: continue masked-language-model pretraining on a corpus."""

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.data.rows import Rows
from pair_pkg.data.tokens import TokenStore, open_cache, ordinary_ids, special_affixes, tokenizer_fingerprint
from pair_pkg.errors import InputError
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss, perplexity_metrics, score_rows
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.preview import preview_rows
from pair_pkg.modeling.loading import (
    carry_pooler,
    check_max_seq_length,
    check_vocabulary,
    load_config,
    load_model,
    load_tokenizer,
    set_dropout,
)
from pair_pkg.modeling.scratch import build_config, build_masked_lm, train_tokenizer
from pair_pkg.records import fingerprint, fingerprint_model
from pair_pkg.report.plots import plot_history
from pair_pkg.stages.arguments import CorpusArguments, MlmTrainingArguments, ModelArguments, ScratchArguments
from pair_pkg.stages.corpus import CorpusRows, Source, describe, load_rows, training_source, validation_source
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.training.arguments import COMMAND_LINE, parse_arguments
from pair_pkg.training.checkpoints import begin_run, decisive_arguments, open_run
from pair_pkg.training.dry_run import measure_cost
from pair_pkg.training.run import finish_run, stock_reason, train_and_evaluate
from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")

DEFAULT_MAX_SEQ_LENGTH = 512
NUM_PREVIEWS = 3
DESCRIPTION = "Continue masked-language-model pretraining on a corpus, and say what it did to perplexity."


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The door ``run_mlm.py``; returns the metrics that it prints."""
    set_up_logging()
    return run(argv)


def run(argv: Sequence[str] | None, *, replace_other: bool = False) -> dict[str, Any]:
    """Parse, adapt, print; with ``replace_other`` a folder that holds another run is started anew without asking."""
    corpus, model, scratch, args = parse(argv)
    metrics = adapt(corpus, model, scratch, args, replace_other=replace_other)
    if args.should_log and not corpus.dry_run:
        _print_metrics(metrics, args.output_dir)
    return metrics


def parse(
    argv: Sequence[str] | None, place: str = COMMAND_LINE
) -> tuple[CorpusArguments, ModelArguments, ScratchArguments, MlmTrainingArguments]:
    """The arguments of stage 1. Raises ``InputError``."""
    types = (CorpusArguments, ModelArguments, ScratchArguments, MlmTrainingArguments)
    return parse_arguments(types, argv, program="run_mlm.py", description=DESCRIPTION, place=place)


def adapt(
    corpus: CorpusArguments,
    model_args: ModelArguments,
    scratch: ScratchArguments,
    args: MlmTrainingArguments,
    *,
    replace_other: bool = False,
) -> dict[str, Any]:
    """Run stage 1 into ``args.output_dir`` and return its metrics; a finished run is not run again."""
    _refuse_unclear_model(model_args, scratch)
    source = training_source(corpus, model_args.token)
    validation = validation_source(corpus, model_args.token)
    tokenizer = _tokenizer(model_args, scratch, source, args)
    affixes = special_affixes(tokenizer)
    config = _config(model_args, scratch, tokenizer)
    check_vocabulary(tokenizer, config, needs_mask=True)
    num_special = len(affixes[0]) + len(affixes[1])
    max_seq_length = check_max_seq_length(corpus.max_seq_length, config, num_special, DEFAULT_MAX_SEQ_LENGTH)

    identity = _identity(corpus, model_args, scratch, args, source, validation, tokenizer, max_seq_length)
    opened = open_run(
        args.output_dir,
        identity,
        overwrite=args.overwrite_output_dir,
        replace_other=replace_other,
        resume_from_checkpoint=args.resume_from_checkpoint,
    )
    if opened.finished:
        announce(f"{args.output_dir}: this run is finished; nothing was done again")
        return opened.finished["metrics"]

    with args.main_process_first(desc="tokenizing the corpus"):
        rows = load_rows(
            source,
            validation,
            tokenizer,
            max_seq_length=max_seq_length,
            num_special=num_special,
            seed=args.seed,
            quiet=bool(args.disable_tqdm) or not args.should_log,
        )
    if args.should_log:
        announce(*describe(rows.accounting))
    model = _model(model_args, config, args.seed)
    if corpus.dry_run:
        with tempfile.TemporaryDirectory() as args.output_dir:  # the library makes its folder at once
            return _dry_run(_trainer(model, model_args, corpus, args, tokenizer, rows, affixes), tokenizer)
    record = {
        "stage": "mlm",
        "identity": identity,
        "base_model": model_args.model_name_or_path,
        "max_seq_length": max_seq_length,
        "corpus": rows.accounting,
    }
    if args.should_save:
        begin_run(args.output_dir, record, keep_checkpoints=opened.checkpoint is not None)
    trainer = _trainer(model, model_args, corpus, args, tokenizer, rows, affixes)
    args.eval_on_start = args.do_eval and args.do_train and opened.checkpoint is None
    metrics = train_and_evaluate(trainer, opened.checkpoint)
    finish_run(trainer, record, metrics)
    if args.should_save:
        plot_history(trainer.state.log_history, Path(args.output_dir, "history.png"))
    return metrics


def _refuse_unclear_model(model_args: ModelArguments, scratch: ScratchArguments) -> None:
    if bool(model_args.config_name or model_args.model_name_or_path) == bool(scratch.model_type):
        raise InputError("give --model_name_or_path (or --config_name), or --model_type for a model from scratch")
    if scratch.config_overrides and not scratch.model_type:
        raise InputError("--config_overrides shapes a model from scratch; give --model_type with it")


def _tokenizer(
    model_args: ModelArguments, scratch: ScratchArguments, source: Source, args: MlmTrainingArguments
) -> PreTrainedTokenizerFast:
    """The tokenizer that was named, the checkpoint's, or one learnt from the corpus."""
    name = model_args.tokenizer_name or model_args.model_name_or_path
    if name:
        return load_tokenizer(name, **model_args.hub())
    with args.main_process_first(desc="learning a tokenizer"):
        return load_tokenizer(str(_learn_tokenizer(source, scratch.vocab_size)))


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


def _config(
    model_args: ModelArguments, scratch: ScratchArguments, tokenizer: PreTrainedTokenizerFast
) -> PreTrainedConfig:
    """The checkpoint's configuration, or a new one, with the dropouts that were asked for."""
    if scratch.model_type:
        config = build_config(scratch.model_type, scratch.config_overrides, tokenizer)
    else:
        config = load_config(model_args.config_name or model_args.model_name_or_path, **model_args.hub())
    set_dropout(config, model_args.hidden_dropout_prob, model_args.attention_probs_dropout_prob)
    return config


def _model(model_args: ModelArguments, config: PreTrainedConfig, seed: int) -> nn.Module:
    """The model with its pooler, or a new one."""
    name = model_args.model_name_or_path
    if not name:
        return build_masked_lm(config, seed)
    torch.manual_seed(seed)  # a checkpoint may lack the head, whose new weights are then drawn
    model = load_model(AutoModelForMaskedLM, name, config, **model_args.hub())
    carry_pooler(model, name, **model_args.hub())
    return model


def _identity(corpus, model_args, scratch, args, source, validation, tokenizer, max_seq_length) -> dict[str, Any]:
    """Everything that decides on the result of stage 1."""
    return {
        "stage": "mlm",
        "model": model_args.model_name_or_path or scratch.model_type,
        "model_fingerprint": fingerprint_model(model_args.model_name_or_path or ""),
        "config_overrides": scratch.config_overrides,
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "hidden_dropout_prob": model_args.hidden_dropout_prob,
        "attention_probs_dropout_prob": model_args.attention_probs_dropout_prob,
        "corpus": source.fingerprint(),
        "validation": validation.fingerprint() if validation else corpus.validation_split_percentage,
        "max_seq_length": max_seq_length,
        "line_by_line": corpus.line_by_line,
        "mlm_probability": corpus.mlm_probability,
        "max_train_samples": corpus.max_train_samples,
        "max_eval_samples": corpus.max_eval_samples,
        "do_train": args.do_train,
        "do_eval": args.do_eval,
        **decisive_arguments(args),
    }


def _trainer(
    model: nn.Module,
    model_args: ModelArguments,
    corpus: CorpusArguments,
    args: MlmTrainingArguments,
    tokenizer: PreTrainedTokenizerFast,
    rows: CorpusRows,
    affixes: tuple[list[int], list[int]],
) -> StageTrainer:
    why_stock = stock_reason(args)
    flat = bind_sparse_forward(model, model_args.attention_probs_dropout_prob or 0.0, why_stock)
    masking = Masking(args.seed, tokenizer.mask_token_id, ordinary_ids(tokenizer), corpus.mlm_probability)

    def masked(store: TokenStore, part: Rows, with_rows: bool) -> MaskedRows:
        return MaskedRows(store, part, masking, affixes, tokenizer.pad_token_id, flat=flat, with_rows=with_rows)

    def score_batch(scored_model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        labels, row, row_of_label = (batch.pop(name) for name in ("labels", "rows", "row_of_label"))
        return score_rows(scored_model(**batch), labels, row, row_of_label, loss_only=args.prediction_loss_only)

    return StageTrainer(
        model=model,
        args=args,
        train_dataset=masked(rows.train_store, rows.train, with_rows=False),
        eval_dataset=masked(rows.validation_store, rows.validation, with_rows=True),
        processing_class=tokenizer,
        compute_loss_func=masked_lm_loss,
        score_batch=score_batch,
        row_metrics=perplexity_metrics,
    )


def _dry_run(trainer: StageTrainer, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    cost = measure_cost(trainer)
    announce(*cost.describe())
    if trainer.train_dataset.flat:
        announce("masked rows, {shown -> to predict}:", *preview_rows(trainer.train_dataset, tokenizer, NUM_PREVIEWS))
    announce("dry run: nothing was trained and nothing written")
    return {"steps": cost.steps, "seconds": cost.seconds, "peak_bytes": cost.peak_bytes}


def _print_metrics(metrics: dict[str, Any], output_dir: str) -> None:
    before, after = metrics.get("before", {}).get("eval_perplexity"), metrics.get("eval_perplexity")
    if before and after:
        announce(f"perplexity of the validation documents: {before:,.2f} before, {after:,.2f} after")
    elif after:
        announce(f"perplexity of the validation documents: {after:,.2f}")
    announce(f"written to {output_dir}: the model, run.json, log_history.json, history.png")
