"""Stage 2: fine-tune a checkpoint on labelled sentence pairs, and score pairs with the result."""

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.tokens import tokenizer_fingerprint
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import (
    check_max_seq_length,
    check_vocabulary,
    load_config,
    load_model,
    load_tokenizer,
    set_dropout,
)
from pair_pkg.pairs.baselines import baseline_metrics
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows, pair_template
from pair_pkg.pairs.head_norm import add_head_norm, fold_head_norm
from pair_pkg.pairs.loss import pair_loss, pair_row_metrics, predictions, score_pairs
from pair_pkg.pairs.metrics import compute_pair_metrics, format_accuracy
from pair_pkg.records import fingerprint, fingerprint_model, read_record
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.report.plots import plot_history
from pair_pkg.report.tables import format_table
from pair_pkg.stages.arguments import ArchitectureArguments, ModelArguments, PairArguments, PairTrainingArguments
from pair_pkg.stages.pairs_data import PairSplits, check_unknown, describe, load_splits, load_unlabelled
from pair_pkg.stages.predictions import PREDICTIONS_NAME, TEST_NAME, write_predictions
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.training.arguments import COMMAND_LINE, parse_arguments
from pair_pkg.training.checkpoints import begin_run, check_output_dir, decisive_arguments, open_run
from pair_pkg.training.dry_run import measure_cost
from pair_pkg.training.run import finish_run, stock_reason, train_and_evaluate
from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")

DEFAULT_MAX_SEQ_LENGTH = 256
DESCRIPTION = "Fine-tune a checkpoint on labelled sentence pairs, and say how well it tells which mean the same."
SHOWN_METRICS = ("accuracy", "f1", "macro_f1", "average_precision", "roc_auc", "mcc", "pearson", "spearman")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The door ``run_pair_cls.py``; returns the metrics that it prints."""
    set_up_logging()
    return run(argv)


def run(argv: Sequence[str] | None, *, replace_other: bool = False) -> dict[str, Any]:
    """Parse, fine-tune, print; with ``replace_other`` a folder of another run is started anew without asking."""
    arguments, architecture, model, args = parse(argv)
    if not model.model_name_or_path:
        raise InputError("no model: give --model_name_or_path, such as the folder that run_mlm.py wrote")
    if not (args.do_train or args.do_eval):
        return predict_only(arguments, model, args)
    metrics = finetune(arguments, architecture, model, args, replace_other=replace_other)
    if args.should_log and not arguments.dry_run:
        _print_metrics(metrics, args.output_dir)
    return metrics


def parse(
    argv: Sequence[str] | None, place: str = COMMAND_LINE
) -> tuple[PairArguments, ArchitectureArguments, ModelArguments, PairTrainingArguments]:
    """The arguments of stage 2. Raises ``InputError``."""
    types = (PairArguments, ArchitectureArguments, ModelArguments, PairTrainingArguments)
    return parse_arguments(types, argv, program="run_pair_cls.py", description=DESCRIPTION, place=place)


def finetune(
    arguments: PairArguments,
    architecture: ArchitectureArguments,
    model_args: ModelArguments,
    args: PairTrainingArguments,
    *,
    replace_other: bool = False,
) -> dict[str, Any]:
    """Run stage 2 into ``args.output_dir`` and return its metrics; a finished run is not run again."""
    data = load_splits(arguments)
    unlabelled = load_unlabelled(arguments) if args.do_predict and arguments.predict_file else None
    tokenizer = load_tokenizer(model_args.tokenizer_name or model_args.model_name_or_path, **model_args.hub())
    config = load_config(model_args.config_name or model_args.model_name_or_path, **model_args.hub())
    set_dropout(config, model_args.hidden_dropout_prob, model_args.attention_probs_dropout_prob)
    configure_labels(config, data.scheme, architecture.num_labels)
    check_vocabulary(tokenizer, config, needs_mask=False)
    check_unknown(data.splits[TRAIN], tokenizer)
    num_special = sum(piece.sentence is None for piece in pair_template(tokenizer))
    max_seq_length = check_max_seq_length(arguments.max_seq_length, config, num_special, DEFAULT_MAX_SEQ_LENGTH)

    identity = _identity(arguments, architecture, model_args, args, data, tokenizer, max_seq_length)
    opened = open_run(
        args.output_dir,
        identity,
        overwrite=args.overwrite_output_dir,
        replace_other=replace_other,
        resume_from_checkpoint=args.resume_from_checkpoint,
    )
    if opened.finished:
        announce(f"{args.output_dir}: this run is finished; nothing was trained again")
        if unlabelled is not None:
            predict_only(arguments, dataclasses.replace(model_args, model_name_or_path=args.output_dir), args)
        return opened.finished["metrics"]
    if args.should_log:
        announce(*describe(data.accounting, data.scheme))

    torch.manual_seed(args.seed)  # the head's new weights
    model = load_model(AutoModelForSequenceClassification, model_args.model_name_or_path, config, **model_args.hub())
    if architecture.head_norm == "batch":
        add_head_norm(model)
    build = functools.partial(_trainer, model, model_args, args, tokenizer, data, max_seq_length)
    if arguments.dry_run:
        with tempfile.TemporaryDirectory() as args.output_dir:  # the library makes its folder at once
            return _dry_run(build())

    lineage = read_record(model_args.model_name_or_path) if Path(model_args.model_name_or_path).is_dir() else None
    record = {
        "stage": "pairs",
        "identity": identity,
        "base_model": model_args.model_name_or_path,
        "lineage": lineage and {name: lineage.get(name) for name in ("stage", "base_model", "lineage")},
        "architecture": architecture.architecture,
        "labels": data.scheme.to_json(),
        "max_seq_length": max_seq_length,
        "pairs": data.accounting,
    }
    if args.should_save:
        begin_run(args.output_dir, record, keep_checkpoints=opened.checkpoint is not None)
    trainer = build()
    metrics = train_and_evaluate(trainer, opened.checkpoint)
    metrics |= _test(trainer, data, args.output_dir)
    if architecture.head_norm == "batch":
        fold_head_norm(model)
        trainer.save_model()
    if unlabelled is not None:
        _write_scores(trainer, unlabelled, data.scheme, Path(args.output_dir, PREDICTIONS_NAME))
    finish_run(trainer, record, metrics)
    if args.should_save:
        plot_history(trainer.state.log_history, Path(args.output_dir, "history.png"))
    return metrics


def predict_only(arguments: PairArguments, model_args: ModelArguments, args: PairTrainingArguments) -> dict[str, Any]:
    """Score ``--predict_file`` with a fine-tuned checkpoint; one row a pair, in the order of the input."""
    if not arguments.predict_file:
        raise InputError("--do_predict: no pairs to score; give --predict_file")
    name = model_args.model_name_or_path
    record = read_record(name) if Path(name).is_dir() else None
    if record is None or "labels" not in record:
        raise InputError(f"{name}: holds no run.json of a fine-tuned model; give a folder that run_pair_cls.py wrote")
    check_output_dir(Path(args.output_dir))
    scheme = LabelScheme.from_json(record["labels"])
    pairs = load_unlabelled(arguments)
    tokenizer = load_tokenizer(name)
    model = load_model(AutoModelForSequenceClassification, name, load_config(name), head_may_be_new=False)
    flat = bind_cross_encoder(model)
    rows = functools.partial(PairRows, scheme=scheme, tokenizer=tokenizer, flat=flat, with_rows=True)
    dataset = rows(pairs, max_seq_length=record["max_seq_length"])
    trainer = StageTrainer(
        model=model,
        args=args,
        eval_dataset=dataset,
        processing_class=tokenizer,
        compute_loss_func=pair_loss(scheme.kind),
        score_batch=functools.partial(score_pairs, scheme=scheme),
        row_metrics=functools.partial(pair_row_metrics, scheme=scheme),
    )
    path = Path(args.output_dir, PREDICTIONS_NAME)
    scores = predictions(trainer.score_dataset(trainer.get_eval_dataloader()))
    if args.should_save:
        write_predictions(path, pairs, scheme, scores)
        announce(f"written to {path}: {len(pairs):,} pairs, in the order of the input")
    return {"predicted_pairs": len(pairs)}


def _identity(
    arguments: PairArguments,
    architecture: ArchitectureArguments,
    model_args: ModelArguments,
    args: PairTrainingArguments,
    data: PairSplits,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
) -> dict[str, Any]:
    """Everything that decides on the result of stage 2."""
    return {
        "stage": "pairs",
        "model": model_args.model_name_or_path,
        "model_fingerprint": fingerprint_model(model_args.model_name_or_path),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "architecture": architecture.architecture,
        "num_labels": architecture.num_labels,
        "head_norm": architecture.head_norm,
        "hidden_dropout_prob": model_args.hidden_dropout_prob,
        "attention_probs_dropout_prob": model_args.attention_probs_dropout_prob,
        "labels": data.scheme.to_json(),
        **{f"{name}_pairs": _pairs_fingerprint(pairs) for name, pairs in data.splits.items()},
        "max_seq_length": max_seq_length,
        "do_train": args.do_train,
        **decisive_arguments(args),
    }


def _pairs_fingerprint(pairs: Pairs) -> str:
    return fingerprint([pairs.sentence1, pairs.sentence2, pairs.labels.tolist()])


def _trainer(
    model: nn.Module,
    model_args: ModelArguments,
    args: PairTrainingArguments,
    tokenizer: PreTrainedTokenizerFast,
    data: PairSplits,
    max_seq_length: int,
) -> StageTrainer:
    flat = bind_cross_encoder(model, model_args.attention_probs_dropout_prob or 0.0, stock_reason(args))

    def rows(name: str, with_rows: bool) -> PairRows:
        dataset = PairRows(data.splits[name], data.scheme, tokenizer, max_seq_length, flat=flat, with_rows=with_rows)
        if dataset.num_truncated:
            logger.warning("%s: %d pairs are cut to --max_seq_length %d", name, dataset.num_truncated, max_seq_length)
        return dataset

    return StageTrainer(
        model=model,
        args=args,
        train_dataset=rows(TRAIN, with_rows=False),
        eval_dataset=rows(VALIDATION, with_rows=True),
        processing_class=tokenizer,
        compute_loss_func=pair_loss(data.scheme.kind),
        score_batch=functools.partial(score_pairs, scheme=data.scheme),
        row_metrics=functools.partial(pair_row_metrics, scheme=data.scheme),
    )


def _test(trainer: StageTrainer, data: PairSplits, output_dir: str) -> dict[str, Any]:
    """Score the test pairs, or the validation pairs where there is no test, beside trivial baselines."""
    name = TEST if TEST in data.splits else VALIDATION
    pairs, kind = data.splits[name], data.scheme.kind
    scores = _write_scores(trainer, pairs, data.scheme, Path(output_dir, TEST_NAME))
    train = data.splits[TRAIN]
    baselines = baseline_metrics(
        kind,
        (train.sentence1, train.sentence2, train.labels),
        (pairs.sentence1, pairs.sentence2, pairs.labels),
    )
    return {"test_split": name, "test": compute_pair_metrics(kind, scores, pairs.labels), "baselines": baselines}


def _write_scores(trainer: StageTrainer, pairs: Pairs, scheme: LabelScheme, path: Path):
    """Score pairs with the trained model and write them, on the main process; returns the scores."""
    like = trainer.eval_dataset
    dataset = PairRows(pairs, scheme, trainer.processing_class, like.max_seq_length, flat=like.flat, with_rows=True)
    scores = predictions(trainer.score_dataset(trainer.get_eval_dataloader(dataset)))
    if trainer.args.should_save:
        write_predictions(path, pairs, scheme, scores)
    return scores


def _dry_run(trainer: StageTrainer) -> dict[str, Any]:
    cost = measure_cost(trainer)
    announce(*cost.describe(), "dry run: nothing was trained and nothing written")
    return {"steps": cost.steps, "seconds": cost.seconds, "peak_bytes": cost.peak_bytes}


def _print_metrics(metrics: dict[str, Any], output_dir: str) -> None:
    columns = {"model": metrics["test"], **metrics["baselines"]}
    names = [name for name in SHOWN_METRICS if name in metrics["test"]]
    rows = [
        [metric_title(name), *(format_value(name, values.get(name)) for values in columns.values())] for name in names
    ]
    announce("", format_table([f"{metrics['test_split']} pairs", *columns], rows, "l" + "r" * len(columns)), "")
    if "correct" in metrics["test"]:
        announce(f"accuracy: {format_accuracy(metrics['test']['correct'], metrics['test']['total'])}")
    announce(f"written to {output_dir}: the model, run.json, {TEST_NAME}, log_history.json, history.png")
