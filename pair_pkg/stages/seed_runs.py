"""``--seeds 1 2 3``: a run of stage 2 for each seed, the spread of their figures, the best by validation as the model.

``output_dir`` holds the run of each seed in ``seed-N``, and the model that was taken, with its decision and its files,
as if it had been trained there.
"""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES
from pair_pkg.records import RECORD_NAME, read_record, write_record
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.report.statistics import spread
from pair_pkg.stages.arguments.pairs import PairTrainingArguments
from pair_pkg.stages.terminal import announce
from pair_pkg.training.checkpoints import FINISHED, RUNNING, open_run

# What the validation pairs choose by: rankings and correlations see more of a model than one threshold shows, and
# macro F1 does not let the biggest class decide.
CHOSEN_BY = {BINARY: "average_precision", CLASSES: "macro_f1", SCORES: "spearman"}

RunOne = Callable[[int, Path], dict[str, Any]]  # a seed and its folder -> the metrics of the finished run


def seed_dir(output_dir: str | Path, seed: int) -> Path:
    """The folder of one seed's run."""
    return Path(output_dir, f"seed-{seed}")


def run_seeds(
    args: PairTrainingArguments, kind: str, run_one: RunOne, *, replace_other: bool = False
) -> dict[str, Any]:
    """Run every seed that is not finished, and make the best model that of ``output_dir``.

    Returns the metrics of the run that was taken, with ``seeds``: what each run gave, the spread, which was taken and
    why. Raises ``InputError`` where the folder holds something else.
    """
    mark_running(args, "seeds", args.seeds, replace_other=replace_other, may_change=True)
    runs = []
    for number, seed in enumerate(args.seeds, start=1):
        if args.should_log:
            announce("", f"== seed {seed} ({number} of {len(args.seeds)})")
        runs.append(run_one(seed, seed_dir(args.output_dir, seed)))
    summary = summarize_seeds(args.seeds, runs, kind)
    metrics = {**runs[args.seeds.index(summary["taken"])], "seeds": summary}
    if args.should_save:
        _take(Path(args.output_dir), metrics)
    return metrics


def summarize_seeds(seeds: Sequence[int], runs: Sequence[dict[str, Any]], kind: str) -> dict[str, Any]:
    """What the runs of several seeds say together, ready for JSON; lists are in the order of the seeds.

    >>> runs = [{"eval_spearman": value, "test": {"spearman": value - 0.1}} for value in (0.8, 0.9)]
    >>> summary = summarize_seeds([7, 8], runs, "scores")
    >>> summary["taken"], summary["test"]["spearman"]["mean"], summary["why"]
    (8, 0.75, 'the highest Spearman correlation of the validation pairs, 0.900; test figures had no part in it')
    """
    chosen_by = CHOSEN_BY[kind]
    validation = [run.get(f"eval_{chosen_by}") for run in runs]
    best = max(range(len(seeds)), key=lambda index: (validation[index] is not None, validation[index] or 0))
    if validation[best] is None:
        why = f"the first one: {metric_title(chosen_by)} of the validation pairs is not defined in any run"
    else:
        value = format_value(chosen_by, validation[best])
        why = f"the highest {metric_title(chosen_by)} of the validation pairs, {value}; test figures had no part in it"
    names = [name for name, value in runs[0]["test"].items() if isinstance(value, float) or value is None]
    by_seed = {name: [run["test"].get(name) for run in runs] for name in names}
    return {
        "seeds": list(seeds),
        "chosen_by": f"eval_{chosen_by}",
        "validation": validation,
        "taken": seeds[best],
        "why": why,
        "test": {name: {**spread(values), "by_seed": values} for name, values in by_seed.items()},
    }


def mark_running(
    args: PairTrainingArguments, name: str, value: Any, *, replace_other: bool, may_change: bool = False
) -> None:
    """Refuse a folder of something else, and mark this one as that of the runs ``{name: value}`` below it.

    Each of these runs compares itself with its own folder. With ``may_change`` there may be other runs beside them.
    """
    record = read_record(args.output_dir) or {}
    there = record.get("identity", {})
    if name not in there or (there[name] != value and not may_change):
        opened = {**there, name: value} if name in there else {name: value}
        open_run(args.output_dir, opened, overwrite=args.overwrite_output_dir, replace_other=replace_other)
        record = {"stage": "pairs", "identity": {name: value}}
    if args.should_save:
        write_record(args.output_dir, {**record, "status": RUNNING})


def _take(folder: Path, metrics: dict[str, Any]) -> None:
    """Copy the chosen run's files into ``folder``, and write the record that tells of all seeds."""
    seeds = metrics["seeds"]
    source = seed_dir(folder, seeds["taken"])
    chosen = read_record(source)
    identity = {
        **{name: value for name, value in chosen["identity"].items() if name != "seed"},
        "seeds": seeds["seeds"],
    }
    record = {**chosen, "identity": identity, "metrics": metrics}
    write_record(folder, {**record, "status": RUNNING})  # files of two runs lie there until the copy is whole
    shutil.copytree(
        source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("checkpoint-*", ".*", RECORD_NAME)
    )
    write_record(folder, {**record, "status": FINISHED})
