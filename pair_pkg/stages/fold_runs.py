"""``--k_folds K``: K runs of stage 2, each with another part of the pairs for validation, and their mean as one model.

``output_dir`` holds the run of each fold in ``fold-N``. It is a model itself: an ensemble, whose probability is the
mean of its members' calibrated ones and whose decision is fitted on the pairs that each member did not see. Whatever
reads a folder by ``load_scorer`` (``score``, ``--do_predict``) takes it as it is; what needs one network takes a fold.
"""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import split_by_component
from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import Decision, fit_decision, save_decision
from pair_pkg.pairs.scorer import Scorer, load_scorer, mean_scorer
from pair_pkg.processes import Processes
from pair_pkg.records import read_record, write_record
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.pair_evaluation import evaluate_test, measure_similarities, pair_metrics, write_worst
from pair_pkg.stages.pair_setup import settle
from pair_pkg.stages.pair_testing import ScoredPairs, evaluate_calibration
from pair_pkg.stages.pairs_data import PairSplits, augment_graph
from pair_pkg.stages.predictions import TEST_NAME, write_predictions
from pair_pkg.stages.seed_runs import mark_running
from pair_pkg.stages.terminal import announce
from pair_pkg.training.checkpoints import FINISHED

RunOne = Callable[[str, Path, PairSplits], dict[str, Any]]  # a fold's name, folder and splits -> its run's metrics


def run_folds(flags: PairFlags, data: PairSplits, run_one: RunOne, *, replace_other: bool = False) -> dict[str, Any]:
    """Run every fold that is not finished, and make their ensemble the model of ``output_dir``.

    Returns the ensemble's metrics, with ``folds``: what each run gave. Raises ``InputError`` where the pairs do not
    make so many folds, or the folder holds something else.
    """
    args, folder = flags.training, Path(flags.training.output_dir)
    folds = split_folds(data, args.k_folds, flags.pairs.split_seed)
    mark_running(args, "k_folds", args.k_folds, replace_other=replace_other)
    runs = {}
    for name, splits in folds.items():
        if args.should_log:
            announce("", f"== {name} of {len(folds)}")
        fold = augment_graph(splits, flags.pairs.split_seed) if flags.pairs.augment_graph else splits
        runs[name] = run_one(name, folder / name, fold)
    return _combine(flags, data, folds, runs)


def split_folds(data: PairSplits, num_folds: int, seed: int) -> dict[str, PairSplits]:
    """The splits of each fold: its part of the training and validation pairs for validation, the others to train on.

    Pairs that share a text are in one part, so no text stands on both sides. The test pairs stay what they are.
    Raises ``InputError`` where a part would be empty or hold one class.
    """
    pool = data.splits[TRAIN].joined(data.splits[VALIDATION])
    fractions = {f"fold-{number}": 1 / num_folds for number in range(1, num_folds + 1)}
    try:
        parts = split_by_component(pool.sentence1, pool.sentence2, pool.labels, fractions, seed)
    except InputError as error:
        raise InputError(f"--k_folds {num_folds}: the pairs do not make so many folds ({error}); take fewer") from error
    folds = {}
    for name, rows in parts.items():
        rest = np.setdiff1d(np.arange(len(pool)), rows)
        splits = {**data.splits, TRAIN: pool.subset(rest), VALIDATION: pool.subset(rows)}
        counts = {split: len(pairs) for split, pairs in splits.items()}
        folds[name] = dataclasses.replace(data, splits=splits, accounting={**data.accounting, "pairs": counts})
    return folds


def _combine(
    flags: PairFlags, data: PairSplits, folds: dict[str, PairSplits], runs: dict[str, dict[str, Any]]
) -> dict[str, Any]:
    """Score with all members, and write the ensemble's decision, predictions and record; returns its metrics.

    Each process scores a share; the main one writes, and the others go on when it has.
    """
    folder, processes = Path(flags.training.output_dir), flags.training.processes
    top, figures = read_record(folder), {name: _figures(run) for name, run in runs.items()}
    if top.get("metrics", {}).get("folds", {}).get("runs") == figures:  # nothing was trained, so nothing has changed
        if processes.is_main:
            write_record(folder, {**top, "status": FINISHED})
        return top["metrics"]
    members = [load_scorer(str(folder / name), device=flags.training.device) for name in folds]
    scored = [_score_unseen(members, list(folds.values()), processes)]
    decision = _decide(flags, data.scheme.kind, scored[0])
    if TEST in data.splits:
        test = data.splits[TEST]
        ensemble = mean_scorer(members, decision)
        scored.append(ScoredPairs(TEST, test, ensemble.score(test.sentence1, test.sentence2, processes=processes)))
    train = data.splits[TRAIN]
    similarities = measure_similarities(flags, settle(flags, data), train, scored[-1].pairs)
    measure = functools.partial(evaluate_test, data.scheme, decision, train, scored[-1], similarities)
    metrics = processes.from_main(measure)
    if decision is not None:
        metrics["decision"] = dataclasses.asdict(decision)
        metrics["calibration"] = evaluate_calibration(decision, False, scored)
    out_of_fold = pair_metrics(data.scheme.kind, decision, scored[0])
    metrics["folds"] = {"runs": figures, "out_of_fold": out_of_fold}
    processes.from_main(lambda: _write(folder, data, list(folds), decision, scored[-1], metrics))
    return metrics


def _figures(run: dict[str, Any]) -> dict[str, Any]:
    """What the record of the ensemble keeps of a member: its validation loss and its own test figures."""
    return {name: run.get(name) for name in ("eval_loss", "test_split", "test")}


def _score_unseen(members: list[Scorer], folds: list[PairSplits], processes: Processes) -> ScoredPairs:
    """All training and validation pairs, each scored by the member that did not see it."""
    parts = [fold.splits[VALIDATION] for fold in folds]
    scores = [
        mean_scorer([member], None).score(part.sentence1, part.sentence2, processes=processes)
        for member, part in zip(members, parts)
    ]
    return ScoredPairs(VALIDATION, functools.reduce(Pairs.joined, parts), np.concatenate(scores))


def _decide(flags: PairFlags, kind: str, unseen: ScoredPairs) -> Decision | None:
    settings = flags.decision.settings(kind)
    return fit_decision(kind, unseen.scores, unseen.pairs.labels, are_cosines=False, **settings)


def _write(
    folder: Path,
    data: PairSplits,
    names: list[str],
    decision: Decision | None,
    scored: ScoredPairs,
    metrics: dict[str, Any],
) -> None:
    member = read_record(folder / names[0])
    own = {"k_folds": len(names), "seed": member["identity"]["seed"]}
    write_predictions(folder / TEST_NAME, scored.pairs, data.scheme, scored.scores, decision)
    write_worst(folder, data.scheme, decision, scored)
    save_decision(decision, folder)
    record = {name: value for name, value in member.items() if name not in ("identity", "global_step", "metrics")}
    record |= {"identity": own, "members": names, "pairs": data.accounting, "metrics": metrics}
    write_record(folder, {**record, "threshold": decision and decision.threshold, "status": FINISHED})
