"""What both stages do around their training: the start, the folder, the dry run, the end."""

import tempfile
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.data.tokens import tokenizer_fingerprint
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import (
    check_max_seq_length,
    check_vocabulary,
    load_config,
    load_tokenizer,
    set_dropout,
)
from pair_pkg.records import fingerprint_model
from pair_pkg.report.plots import plot_history
from pair_pkg.stages.arguments.model import ModelArguments
from pair_pkg.stages.publishing import open_hub, push_result
from pair_pkg.stages.terminal import announce
from pair_pkg.training.arguments import StageTrainingArguments
from pair_pkg.training.checkpoints import Opened, begin_run, decisive_arguments, open_run
from pair_pkg.training.dry_run import measure_cost
from pair_pkg.training.run import finish_run
from pair_pkg.training.trainer import StageTrainer


def load_named_tokenizer(model: ModelArguments) -> PreTrainedTokenizerFast:
    """The tokenizer that the flags name, or the checkpoint's. Raises ``InputError``."""
    return load_tokenizer(model.tokenizer_name or model.model_name_or_path, **model.hub())


def load_named_config(model: ModelArguments) -> PreTrainedConfig:
    """The configuration that the flags name, or the checkpoint's. Raises ``InputError``."""
    return load_config(model.config_name or model.model_name_or_path, **model.hub())


def settle_config(
    config: PreTrainedConfig,
    tokenizer: PreTrainedTokenizerFast,
    model: ModelArguments,
    *,
    max_seq_length: int | None,
    default_length: int,
    num_special: int,
    needs_mask: bool,
) -> int:
    """Write the dropouts that were asked for into ``config``, and return the length of a row.

    Raises ``InputError`` where tokenizer, model and length do not go together.
    """
    set_dropout(config, model.hidden_dropout_prob, model.attention_probs_dropout_prob)
    check_vocabulary(tokenizer, config, needs_mask)
    return check_max_seq_length(max_seq_length, config, num_special, default_length)


def shared_identity(
    stage: str,
    model: ModelArguments,
    args: StageTrainingArguments,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
) -> dict[str, Any]:
    """What decides on the result of either stage."""
    return {
        "stage": stage,
        "model": model.model_name_or_path,
        "model_fingerprint": fingerprint_model(model.model_name_or_path or ""),
        "tokenizer": tokenizer_fingerprint(tokenizer),
        "hidden_dropout_prob": model.hidden_dropout_prob,
        "attention_probs_dropout_prob": model.attention_probs_dropout_prob,
        "max_seq_length": max_seq_length,
        "do_train": args.do_train,
        **decisive_arguments(args),
    }


def open_stage(args: StageTrainingArguments, identity: dict[str, Any], replace_other: bool) -> Opened:
    """What stands in the output folder, as the flags want it treated; nothing is written. Raises ``InputError``."""
    return open_run(
        args.output_dir,
        identity,
        overwrite=args.overwrite_output_dir,
        replace_other=replace_other,
        resume_from_checkpoint=args.resume_from_checkpoint,
        allowed=args.allow_changed or (),
    )


def dry_run(
    args: StageTrainingArguments,
    build_trainer: Callable[[], StageTrainer],
    preview: Callable[[StageTrainer], list[str]],
) -> dict[str, Any]:
    """Print what training would cost, and ``preview``'s lines; nothing is trained and nothing written."""
    with tempfile.TemporaryDirectory() as args.output_dir:  # the library makes its folder at once
        trainer = build_trainer()
        cost = measure_cost(trainer)
        announce(*cost.describe(), *preview(trainer), "dry run: nothing was trained and nothing written")
    return {"steps": cost.steps, "seconds": cost.seconds, "peak_bytes": cost.peak_bytes}


def check_best_metric(args: StageTrainingArguments, names: Collection[str]) -> None:
    """Refuse a metric to choose the best checkpoint by that no evaluation measures. Raises ``InputError``."""
    wanted = args.metric_for_best_model
    if wanted is not None and wanted.removeprefix("eval_") not in names:
        raise InputError(f"--metric_for_best_model {wanted}: is not measured; take one of {', '.join(sorted(names))}")


def begin_stage(args: StageTrainingArguments, record: dict[str, Any], opened: Opened) -> None:
    """Mark the output folder as this run's, on the main process, once the Hub has let it in where it is to go there."""
    open_hub(args)
    if args.should_save:
        begin_run(args.output_dir, record, keep_checkpoints=opened.checkpoint is not None)


def finish_stage(trainer: StageTrainer, record: dict[str, Any], metrics: dict[str, Any]) -> None:
    """Write the record, the log and its picture, and push the model where that was asked for, on the main process."""
    finish_run(trainer, record, metrics)
    if trainer.args.should_save:
        plot_history(trainer.state.log_history, Path(trainer.args.output_dir, "history.png"))
    push_result(trainer.args)
