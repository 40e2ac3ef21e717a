"""Stage 1: continue masked-language-model pretraining on a corpus."""

import functools
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.data.once import build_once
from pair_pkg.data.tokens import open_cache, special_affixes
from pair_pkg.errors import InputError
from pair_pkg.mlm.decoders import refuse_other_encoders
from pair_pkg.mlm.preview import preview_rows
from pair_pkg.mlm.vocabulary import extend_embeddings
from pair_pkg.modeling.base_weights import BaseWeights
from pair_pkg.modeling.loading import load_tokenizer
from pair_pkg.modeling.scratch import build_config, train_tokenizer
from pair_pkg.processes import process_group_ends
from pair_pkg.records import fingerprint
from pair_pkg.report.tables import format_table
from pair_pkg.stages.arguments.mlm import MlmFlags, MlmTrainingArguments
from pair_pkg.stages.arguments.model import ModelArguments, ScratchArguments
from pair_pkg.stages.corpus import Source, training_source, validation_source
from pair_pkg.stages.lifecycle import (
    begin_stage,
    check_best_metric,
    dry_run,
    finish_stage,
    load_named_config,
    load_named_tokenizer,
    open_stage,
    settle_config,
    shared_identity,
)
from pair_pkg.stages.masking import masking_identity
from pair_pkg.stages.merging import merge, merge_cells
from pair_pkg.stages.mlm_data import describe_data, general_source, load_data
from pair_pkg.stages.mlm_report import PAGE_NAME, compare_looks, look_at, slices_cells, write_page
from pair_pkg.stages.mlm_trainer import (
    build_trainer,
    is_probed,
    load_masked_lm,
    measured_names,
    refuse_misfits,
)
from pair_pkg.stages.publishing import push_result, push_saves
from pair_pkg.stages.streaming import refuse_unstreamable, stream_identity
from pair_pkg.stages.task_pairs import build_probe, describe_task, load_task, task_identity
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.stages.vocabulary import Extension, extend_vocabulary
from pair_pkg.training.arguments import COMMAND_LINE, StageParser, parse_arguments
from pair_pkg.training.run import train_and_evaluate
from pair_pkg.training.sharding import is_sharded
from pair_pkg.training.trainer import StageTrainer

DEFAULT_MAX_SEQ_LENGTH = 512
NUM_PREVIEWS = 3
TERMS_NAME = "terms.txt"
PROGRAM = "run_mlm.py"
FLAG_TYPES = tuple(MlmFlags.__annotations__.values())
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
    return MlmFlags(*parse_arguments(FLAG_TYPES, argv, program=PROGRAM, description=DESCRIPTION, place=place))


def build_parser() -> StageParser:
    """The flags of stage 1, as ``--help`` and the shells show them."""
    return StageParser(FLAG_TYPES, PROGRAM, DESCRIPTION)


def adapt(flags: MlmFlags, *, replace_other: bool = False) -> dict[str, Any]:
    """Run stage 1 into ``output_dir`` and return its metrics; a finished run is not run again."""
    corpus, args = flags.corpus, flags.training
    _refuse_unclear_model(flags.model, flags.scratch)
    pairs = load_task(flags.task)
    refuse_misfits(flags, pairs)
    refuse_unstreamable(flags)
    check_best_metric(args, measured_names(flags, pairs))
    source = training_source(corpus, flags.model.token, pairs.held_out_texts() if pairs else None)
    validation = validation_source(corpus, flags.model.token)
    tokenizer = _tokenizer(flags, source)
    config = _config(flags, tokenizer)
    if flags.objective.is_on:
        refuse_other_encoders(config)
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
    extension = extend_vocabulary(flags, source, tokenizer)
    if extension is not None:
        tokenizer = extension.tokenizer
    general = general_source(flags)
    identity = _identity(flags, source, validation, general, tokenizer, max_seq_length)
    opened = open_stage(args, identity, replace_other)
    if opened.finished:
        announce(f"{args.output_dir}: this run is finished; nothing was done again")
        if not corpus.dry_run:
            push_result(args)
        return opened.finished["metrics"]

    data = load_data(flags, source, validation, general, tokenizer, max_seq_length, num_special, pairs)
    if args.should_log:
        announce(*describe_data(data))
    model = load_masked_lm(flags.model, config, args.seed)
    if extension is not None:
        extend_embeddings(model, extension.pieces, extension.ids)
    base = BaseWeights(model)
    probe = [build_probe(pairs, tokenizer, max_seq_length)] if is_probed(flags, pairs) else []
    new_rows = extension.ids if extension else ()
    build = functools.partial(build_trainer, model, base, flags, tokenizer, data, probe, new_rows)
    if corpus.dry_run:
        return dry_run(args, build, _preview)
    record = {
        "stage": "mlm",
        "identity": identity,
        "base_model": flags.model.model_name_or_path,
        "max_seq_length": max_seq_length,
        "masking": flags.masking.given(),
        "objective": flags.objective.given(),
        "aids": flags.layers.given(),
        "forgetting": flags.forgetting.given(),
        **({"task": describe_task(pairs, flags.task)} if pairs else {}),
        **({"vocabulary": extension.describe(data.counts)} if extension else {}),
        **data.accounting,
    }
    begin_stage(args, record, opened)
    if args.should_save:
        _write_words(Path(args.output_dir), tokenizer, data.mined_terms, extension)
    trainer = build()
    push_saves(trainer, record)
    args.eval_on_start = args.do_eval and args.do_train and opened.checkpoint is None
    look = None
    if data.corpus_store is not None and _is_looked_at(args):
        look = functools.partial(look_at, trainer, data.corpus_store)
    before = look() if look else None
    metrics = _train(trainer, opened.checkpoint, base, flags.forgetting.merge_alpha)
    if look:
        metrics |= compare_looks(before, look())
    if args.should_save and args.do_train:
        write_page(Path(args.output_dir), metrics)
    finish_stage(trainer, record, metrics)
    return metrics


def _write_words(
    folder: Path, tokenizer: PreTrainedTokenizerFast, terms: Sequence[Sequence[int]], extension: Extension | None
) -> None:
    """The terms and the new words that were found, for a person to read and edit."""
    if terms:
        lines = (tokenizer.decode(list(ids)) for ids in terms)
        Path(folder, TERMS_NAME).write_text("\n".join(lines) + "\n", encoding="utf-8")
    if extension is not None:
        extension.write_preview(folder)


def _is_looked_at(args: MlmTrainingArguments) -> bool:
    """Whether masked tokens are looked at before and after; sharded weights are not whole."""
    return args.do_train and args.do_eval and args.report_slices and not is_sharded(args)


def _train(
    trainer: StageTrainer, checkpoint: str | None, base: BaseWeights, merge_alpha: Sequence[float] | None
) -> dict[str, Any]:
    """Train, put the weights between base and adapted where that was asked for, and tell how far they have moved."""
    merged: dict[str, Any] = {}

    def settle(trained: StageTrainer) -> bool:
        if merge_alpha:
            merged.update(merge(trained, base, merge_alpha))
        return bool(merged)

    metrics = train_and_evaluate(trainer, checkpoint, settle)
    if merged:
        metrics["merge"] = merged
    if trainer.args.do_train and not is_sharded(trainer.args):
        metrics["weight_movement"] = base.movement(trainer.model)
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
    build_once(learnt, lambda place: train_tokenizer(source, vocab_size).save_pretrained(place))
    return learnt


def _config(flags: MlmFlags, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The checkpoint's configuration, or a new one."""
    if flags.scratch.model_type:
        return build_config(flags.scratch.model_type, flags.scratch.config_overrides, tokenizer)
    return load_named_config(flags.model)


def _identity(
    flags: MlmFlags,
    source: Source,
    validation: Source | None,
    general: Source | None,
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
        "validation": validation.fingerprint() if validation else corpus.validation_percentage,
        **stream_identity(corpus),
        "line_by_line": corpus.line_by_line,
        "mlm_probability": corpus.mlm_probability,
        "max_train_samples": corpus.max_train_samples,
        "max_eval_samples": corpus.max_eval_samples,
        "do_eval": args.do_eval,
        **({"stop_by": args.stop_by, "patience": args.patience} if args.stop_by else {}),
        **masking_identity(flags.masking),
        **flags.objective.given(),
        **flags.forgetting.given(),
        **flags.vocabulary.given(),
        **({"replay_file": general.fingerprint()} if general else {}),
        **task_identity(flags.task),
        **flags.layers.given(),
    }


def _preview(trainer: StageTrainer) -> list[str]:
    if not trainer.train_dataset.flat:
        return []
    items = itertools.chain.from_iterable(trainer.get_train_dataloader().batch_sampler)
    first = list(itertools.islice(items, NUM_PREVIEWS))
    masked = preview_rows(trainer.train_dataset, trainer.processing_class, first)
    return ["masked rows, {shown -> to predict}:", *masked]


def _print_metrics(metrics: dict[str, Any], output_dir: str) -> None:
    if metrics.get("merge", {}).get("sweep"):
        announce("between the base (0) and the adapted encoder (1):", format_table(*merge_cells(metrics["merge"])))
    for name, what in (("eval_perplexity", "the validation documents"), ("eval_general_perplexity", "general text")):
        before, after = metrics.get("before", {}).get(name), metrics.get(name)
        if before and after:
            announce(f"perplexity of {what}: {before:,.2f} before, {after:,.2f} after")
        elif after:
            announce(f"perplexity of {what}: {after:,.2f}")
    before, after = metrics.get("before", {}).get("eval_probe"), metrics.get("eval_probe")
    if before and after:
        announce(f"probe, the encoder's own ranking of the validation pairs: {before:.3f} before, {after:.3f} after")
    if "masked_slices" in metrics:
        announce(format_table(*slices_cells(metrics["masked_slices"])))
    announce(f"written to {output_dir}: the model, run.json, log_history.json, history.png, {PAGE_NAME}")
