"""Stage 2: fine-tune a checkpoint on labelled sentence pairs, and score pairs with the result."""

import dataclasses
import functools
import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerFast

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.batches import Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.tokens import tokenizer_fingerprint
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import (
    check_max_seq_length,
    check_vocabulary,
    load_config,
    load_tokenizer,
    set_dropout,
)
from pair_pkg.pairs.baselines import baseline_metrics
from pair_pkg.pairs.loss import predictions
from pair_pkg.pairs.metrics import compute_pair_metrics, format_accuracy
from pair_pkg.records import fingerprint, fingerprint_model, read_record
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.report.plots import plot_history
from pair_pkg.report.tables import format_table
from pair_pkg.stages.arguments import ArchitectureArguments, ModelArguments, PairArguments, PairTrainingArguments
from pair_pkg.stages.bi_model import build_bi_encoder, load_bi_encoder
from pair_pkg.stages.cross_model import build_cross_encoder, load_cross_encoder
from pair_pkg.stages.pair_model import PairModel
from pair_pkg.stages.pairs_data import PairSplits, check_unknown, describe, load_splits, load_unlabelled
from pair_pkg.stages.predictions import PREDICTIONS_NAME, TEST_NAME, write_predictions
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.training.arguments import COMMAND_LINE, parse_arguments
from pair_pkg.training.checkpoints import begin_run, check_output_dir, decisive_arguments, open_run
from pair_pkg.training.dry_run import measure_cost
from pair_pkg.training.run import finish_run, stock_reason, train_and_evaluate
from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")

CROSS_ENCODER = "cross_encoder"
DEFAULT_MAX_SEQ_LENGTH = 256
NUM_PREVIEWS = 3
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
    settings = architecture.settings(data.scheme, data.splits[TRAIN].labels)
    is_cross_encoder = architecture.architecture == CROSS_ENCODER
    check_vocabulary(tokenizer, config, needs_mask=False)
    check_unknown(data.splits[TRAIN], tokenizer)
    num_special = tokenizer.num_special_tokens_to_add(pair=is_cross_encoder)
    max_seq_length = check_max_seq_length(arguments.max_seq_length, config, num_special, DEFAULT_MAX_SEQ_LENGTH)

    identity = _identity(architecture.architecture, settings, model_args, args, data, tokenizer, max_seq_length)
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
    pair_model = (build_cross_encoder if is_cross_encoder else build_bi_encoder)(
        model_args.model_name_or_path,
        config,
        data.scheme,
        tokenizer,
        max_seq_length,
        attention_dropout=model_args.attention_probs_dropout_prob or 0.0,
        why_stock=stock_reason(args),
        **settings,
        **model_args.hub(),
    )
    build = functools.partial(_trainer, pair_model, args, tokenizer, data)
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
        "settings": settings,
        "labels": data.scheme.to_json(),
        "max_seq_length": max_seq_length,
        "pairs": data.accounting,
    }
    if args.should_save:
        begin_run(args.output_dir, record, keep_checkpoints=opened.checkpoint is not None)
    trainer = build()
    metrics = train_and_evaluate(trainer, opened.checkpoint)
    threshold = pair_model.decision_threshold(trainer) if data.scheme.kind == "binary" else None
    metrics |= _test(pair_model, trainer, data, threshold)
    if args.do_train:
        pair_model.save(trainer)
    if unlabelled is not None:
        _write_scores(pair_model, trainer, unlabelled, data.scheme, threshold, PREDICTIONS_NAME)
    record["threshold"] = threshold
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
    load = load_cross_encoder if record["architecture"] == CROSS_ENCODER else load_bi_encoder
    pair_model = load(name, record, scheme, tokenizer)
    trainer = pair_model.build_trainer(args, tokenizer, pair_model.build_rows(pairs, False))
    path = Path(args.output_dir, PREDICTIONS_NAME)
    scores = predictions(trainer.score_dataset(trainer.get_eval_dataloader()))
    if args.should_save:
        write_predictions(path, pairs, scheme, scores, record.get("threshold", 0.5))
        announce(f"written to {path}: {len(pairs):,} pairs, in the order of the input")
    return {"predicted_pairs": len(pairs)}


def _identity(
    architecture: str,
    settings: dict[str, Any],
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
        "architecture": architecture,
        **settings,
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
    pair_model: PairModel, args: PairTrainingArguments, tokenizer: PreTrainedTokenizerFast, data: PairSplits
) -> StageTrainer:
    evaluated, trained = (pair_model.build_rows(data.splits[name], name == TRAIN) for name in (VALIDATION, TRAIN))
    return pair_model.build_trainer(args, tokenizer, evaluated, trained)


def _test(pair_model: PairModel, trainer: StageTrainer, data: PairSplits, threshold: float | None) -> dict[str, Any]:
    """Score the test pairs, or the validation pairs where there is no test, beside trivial baselines."""
    name = TEST if TEST in data.splits else VALIDATION
    pairs, kind = data.splits[name], data.scheme.kind
    scores = _write_scores(pair_model, trainer, pairs, data.scheme, threshold, TEST_NAME)
    train = data.splits[TRAIN]
    baselines = baseline_metrics(
        kind,
        (train.sentence1, train.sentence2, train.labels),
        (pairs.sentence1, pairs.sentence2, pairs.labels),
    )
    metrics = compute_pair_metrics(kind, scores, pairs.labels, threshold)
    return {"test_split": name, "test": metrics, "baselines": baselines}


def _write_scores(
    pair_model: PairModel,
    trainer: StageTrainer,
    pairs: Pairs,
    scheme: LabelScheme,
    threshold: float | None,
    file_name: str,
) -> np.ndarray:
    """Score pairs with the trained model and write them, on the main process; returns the scores."""
    loader = trainer.get_eval_dataloader(pair_model.build_rows(pairs, False))
    scores = predictions(trainer.score_dataset(loader))
    if trainer.args.should_save:
        write_predictions(Path(trainer.args.output_dir, file_name), pairs, scheme, scores, threshold)
    return scores


def _dry_run(trainer: StageTrainer) -> dict[str, Any]:
    cost = measure_cost(trainer)
    dataset, tokenizer = trainer.train_dataset, trainer.processing_class
    batches = [dataset.build_batch([Item(row, 0)]) for row in range(min(NUM_PREVIEWS, len(dataset)))]
    announce(
        *cost.describe(),
        "pairs as the model reads them:",
        *(" ".join(tokenizer.convert_ids_to_tokens(batch["input_ids"].flatten().tolist())) for batch in batches),
        "dry run: nothing was trained and nothing written",
    )
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
