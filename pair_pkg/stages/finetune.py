"""Stage 2: fine-tune a checkpoint on labelled sentence pairs, and score pairs with the result."""

import dataclasses
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.batches import Item
from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import Decision, save_decision
from pair_pkg.pairs.symmetry import asymmetry
from pair_pkg.processes import process_group_ends
from pair_pkg.stages.aids import refuse_misfits
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.fold_runs import run_folds
from pair_pkg.stages.lifecycle import begin_stage, dry_run, finish_stage, open_stage
from pair_pkg.stages.pair_audit import write_conflicts
from pair_pkg.stages.pair_building import build_pair_model
from pair_pkg.stages.pair_evaluation import evaluate_test, measure_similarities, write_worst
from pair_pkg.stages.pair_model import PairModel
from pair_pkg.stages.pair_report import print_metrics
from pair_pkg.stages.pair_setup import PairSetup, begin_record, settle
from pair_pkg.stages.pair_testing import (
    ScoredPairs,
    decide_by_validation,
    evaluate_calibration,
    imbalance_record,
    score_pairs_with,
    stored_decision,
)
from pair_pkg.stages.pairs_data import PairSplits, describe, load_splits, load_unlabelled
from pair_pkg.stages.predict import predict_only
from pair_pkg.stages.predictions import PREDICTIONS_NAME, TEST_NAME, write_predictions
from pair_pkg.stages.publishing import open_hub, push_result, push_saves
from pair_pkg.stages.seed_runs import run_seeds
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.training.arguments import COMMAND_LINE, StageParser, parse_arguments
from pair_pkg.training.run import train_and_evaluate
from pair_pkg.training.trainer import StageTrainer

NUM_PREVIEWS = 3
PROGRAM = "run_pair_cls.py"
FLAG_TYPES = tuple(PairFlags.__annotations__.values())
DESCRIPTION = "Fine-tune a checkpoint on labelled sentence pairs, and say how well it tells which mean the same."


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The door ``run_pair_cls.py``; returns the metrics that it prints."""
    set_up_logging()
    with process_group_ends():
        return run(argv)


def run(argv: Sequence[str] | None, *, replace_other: bool = False) -> dict[str, Any]:
    """Parse, fine-tune, print; with ``replace_other`` a folder of another run is started anew without asking."""
    flags = parse(argv)
    if not flags.model.model_name_or_path:
        raise InputError("no model: give --model_name_or_path, such as the folder that run_mlm.py wrote")
    if not (flags.training.do_train or flags.training.do_eval):
        return predict_only(flags)
    in_folds = flags.training.k_folds and not flags.pairs.dry_run
    pairs = (
        dataclasses.replace(flags.pairs, augment_graph=False) if in_folds else flags.pairs
    )  # each fold does by itself
    data = load_splits(pairs, positives_suffice=flags.architecture.positives_suffice)
    if in_folds:
        metrics = _finetune_folds(argv, flags, data, replace_other)
    elif flags.training.seeds and not flags.pairs.dry_run:
        metrics = _finetune_seeds(argv, flags, data, replace_other)
    else:
        metrics = finetune(flags, data, replace_other=replace_other)
    if flags.training.should_log and not flags.pairs.dry_run:
        print_metrics(metrics, flags.training.output_dir)
    return metrics


def parse(argv: Sequence[str] | None, place: str = COMMAND_LINE) -> PairFlags:
    """The flags of stage 2. Raises ``InputError``."""
    flags = PairFlags(*parse_arguments(FLAG_TYPES, argv, program=PROGRAM, description=DESCRIPTION, place=place))
    refuse_misfits(flags.architecture, flags.layers, flags.aids, flags.training)
    return flags


def build_parser() -> StageParser:
    """The flags of stage 2, as ``--help`` and the shells show them."""
    return StageParser(FLAG_TYPES, PROGRAM, DESCRIPTION)


def finetune(flags: PairFlags, data: PairSplits, *, replace_other: bool = False) -> dict[str, Any]:
    """Run stage 2 into ``output_dir`` and return its metrics; a finished run is not run again."""
    args = flags.training
    unlabelled = load_unlabelled(flags.pairs) if args.do_predict and flags.pairs.predict_file else None
    setup = settle(flags, data)
    opened = open_stage(args, setup.identity, replace_other)
    if opened.finished:
        return _reuse(flags, opened.finished, unlabelled)
    if args.should_log:
        announce(*describe(data.accounting, data.scheme))

    pair_model = build_pair_model(flags, setup)
    build = functools.partial(_trainer, pair_model, flags, setup, data)
    if flags.pairs.dry_run:
        return dry_run(args, build, _preview)
    record = begin_record(flags, setup, data)
    begin_stage(args, record, opened)
    if args.should_save:
        write_conflicts(data.conflicts, args.output_dir)
    trainer = build()
    push_saves(trainer, record)
    metrics = train_and_evaluate(trainer, opened.checkpoint)
    decision, results = _judge(flags, setup, pair_model, trainer, data)
    metrics |= results
    if args.do_train:
        pair_model.save(trainer)
    if args.should_save:
        save_decision(decision, args.output_dir)
    if unlabelled is not None:
        scored = score_pairs_with(trainer, "predict", unlabelled, pair_model.build_rows(unlabelled, False))
        _write_scores(trainer, setup, decision, scored, PREDICTIONS_NAME)
    finish_stage(trainer, record | {"threshold": decision and decision.threshold}, metrics)
    return metrics


def _finetune_seeds(
    argv: Sequence[str] | None, flags: PairFlags, data: PairSplits, replace_other: bool
) -> dict[str, Any]:
    """A run for each of ``--seeds`` on the same splits; the metrics of the one that was taken."""
    words = sys.argv[1:] if argv is None else argv

    def run_one(seed: int, folder: Path) -> dict[str, Any]:
        member = parse([*words, f"--seed={seed}", f"--output_dir={folder}", "--push_to_hub=false"])
        return finetune(member, data, replace_other=replace_other)

    open_hub(flags.training)
    metrics = run_seeds(flags.training, data.scheme.kind, run_one, replace_other=replace_other)
    push_result(flags.training)
    return metrics


def _finetune_folds(
    argv: Sequence[str] | None, flags: PairFlags, data: PairSplits, replace_other: bool
) -> dict[str, Any]:
    """A run for each of ``--k_folds``; the metrics of their ensemble, which also scores ``--predict_file``."""
    words = sys.argv[1:] if argv is None else argv

    def run_one(name: str, folder: Path, fold: PairSplits) -> dict[str, Any]:
        member = parse([*words, f"--output_dir={folder}", "--do_predict=false"])
        return finetune(member, fold, replace_other=replace_other)

    metrics = run_folds(flags, data, run_one, replace_other=replace_other)
    if flags.training.do_predict and flags.pairs.predict_file:
        predict_only(_with_model(flags, flags.training.output_dir))
    return metrics


def _reuse(flags: PairFlags, record: dict[str, Any], unlabelled: Pairs | None) -> dict[str, Any]:
    """A finished run: its metrics; scores of pairs by its model, and its push to the Hub, where they were asked for."""
    folder = flags.training.output_dir
    announce(f"{folder}: this run is finished; nothing was trained again")
    if unlabelled is not None:
        predict_only(_with_model(flags, folder))
    if not flags.pairs.dry_run:
        push_result(flags.training)
    return record["metrics"]


def _with_model(flags: PairFlags, folder: str) -> PairFlags:
    return flags._replace(model=dataclasses.replace(flags.model, model_name_or_path=folder))


def _judge(
    flags: PairFlags, setup: PairSetup, pair_model: PairModel, trainer: StageTrainer, data: PairSplits
) -> tuple[Decision | None, dict[str, Any]]:
    """Take the decision from the validation pairs, and the test figures with it."""
    scored = [score_pairs_with(trainer, VALIDATION, data.splits[VALIDATION], trainer.eval_dataset)]
    if TEST in data.splits:
        rows = pair_model.build_rows(data.splits[TEST], False)
        scored.append(score_pairs_with(trainer, TEST, data.splits[TEST], rows))
    stored = None if flags.training.do_train else stored_decision(flags, setup)
    decision = stored or decide_by_validation(setup, pair_model, scored[0])
    train, test = data.splits[TRAIN], scored[-1]
    similarities = measure_similarities(flags, setup, train, test.pairs)
    measure = functools.partial(evaluate_test, setup.scheme, decision, train, test, similarities)
    results = trainer.args.processes.from_main(measure)
    if decision is not None:
        results["decision"] = dataclasses.asdict(decision)
        results["calibration"] = evaluate_calibration(decision, pair_model.are_cosines, scored)
        results |= imbalance_record(setup)
    if pair_model.both_orders:
        results["asymmetry"] = {part.name: asymmetry(decision, part.orders) for part in scored}
    _write_scores(trainer, setup, decision, test, TEST_NAME)
    if trainer.args.should_save:
        write_worst(trainer.args.output_dir, setup.scheme, decision, test)
    return decision, results


def _write_scores(
    trainer: StageTrainer, setup: PairSetup, decision: Decision | None, scored: ScoredPairs, file_name: str
) -> None:
    """Write scored pairs into the run's folder, on the main process."""
    if trainer.args.should_save:
        path = Path(trainer.args.output_dir, file_name)
        write_predictions(path, scored.pairs, setup.scheme, scored.scores, decision)


def _trainer(pair_model: PairModel, flags: PairFlags, setup: PairSetup, data: PairSplits) -> StageTrainer:
    evaluated, trained = (pair_model.build_rows(data.splits[name], name == TRAIN) for name in (VALIDATION, TRAIN))
    return pair_model.build_trainer(flags.training, setup.tokenizer, evaluated, trained)


def _preview(trainer: StageTrainer) -> list[str]:
    dataset, tokenizer = trainer.train_dataset, trainer.processing_class
    batches = [dataset.build_batch([Item(row, 0)]) for row in range(min(NUM_PREVIEWS, len(dataset)))]
    return [
        "pairs as the model reads them:",
        *(" ".join(tokenizer.convert_ids_to_tokens(batch["input_ids"].flatten().tolist())) for batch in batches),
    ]
