"""``python -m pair_pkg ablate RECIPE``: what does each of several settings bring, alone, over some seeds?

A recipe names variants as flags over shared ones; the first is what the others are compared with. They are flags of
stage 2, or, in a recipe with a section ``mlm``, of stage 1, which then runs for each variant and seed before stage 2
does; a variant without stage 1 is written ``null``. Each variant and seed is a run folder of its own: a finished one is
not run again, and what the recipe changes runs anew.
"""

import functools
import logging
import multiprocessing
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.errors import InputError, TrainingFailure, one_line, run_door
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.pairs.decision import load_decision
from pair_pkg.records import read_record, write_json
from pair_pkg.report.numbers import UNDEFINED, format_change, format_value, metric_title
from pair_pkg.report.statistics import Difference, compare_metrics, spread
from pair_pkg.report.tables import format_table, markdown_table
from pair_pkg.stages import adapt, finetune
from pair_pkg.stages.ablation_stage_1 import stage_1_figures, stage_1_table
from pair_pkg.stages.predictions import read_predictions
from pair_pkg.stages.recipes import read_keys, read_seeds, section_words
from pair_pkg.stages.seed_runs import seed_dir
from pair_pkg.stages.task_pairs import task_words
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging

KEYS = {"output_dir", "seeds", "pairs", "variants", "mlm", "base_model"}
METRICS = {
    "binary": ("average_precision", "accuracy", "f1"),
    "classes": ("macro_f1", "accuracy"),
    "scores": ("spearman", "pearson"),
}
RESAMPLES = 2_000
BOOTSTRAP_SEED = 0
RESULTS_NAME, TABLES_NAME, LOG_NAME = "ablation.json", "ablation.md", "console.log"
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
ALIGN = "lrrrrrr"


@dataclass(frozen=True)
class Recipe:
    """Settings to compare: the words of stage 2 for each variant, without seed and folder; the first is plain.

    ``mlm`` are the words of stage 1 for each variant that has one, which starts from ``base_model``.
    """

    output_dir: Path
    seeds: tuple[int, ...]
    variants: dict[str, list[str]]
    mlm: dict[str, list[str]] = field(default_factory=dict)
    base_model: str = ""

    def folder(self, variant: str, seed: int) -> Path:
        return seed_dir(self.output_dir / variant.replace(" ", "_"), seed)

    def mlm_folder(self, variant: str, seed: int) -> Path:
        return self.folder(variant, seed).with_name(f"mlm-{seed}")

    def words(self, variant: str, seed: int) -> list[str]:
        """The command line of stage 2 of one run."""
        fixed = ["--do_train", "--do_eval", f"--seed={seed}", f"--output_dir={self.folder(variant, seed)}"]
        if self.base_model:
            start = self.mlm_folder(variant, seed) if variant in self.mlm else self.base_model
            fixed.append(f"--model_name_or_path={start}")
        return [*self.variants[variant], *fixed]

    def mlm_words(self, variant: str, seed: int) -> list[str] | None:
        """The command line of stage 1 of one run, which is told of stage 2's pairs; None where there is none."""
        if variant not in self.mlm:
            return None
        pairs = finetune.parse(self.words(variant, seed)).pairs
        fixed = [f"--seed={seed}", f"--output_dir={self.mlm_folder(variant, seed)}"]
        fixed.append(f"--model_name_or_path={self.base_model}")
        return [*self.mlm[variant], *task_words(pairs), *fixed]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, run what is not done, print the tables; returns what ``ablation.json`` holds."""
    set_up_logging(logging.WARNING)  # what each run says of itself goes into its folder
    options = build_parser().parse_args(argv)
    if options.jobs < 1:
        raise InputError(f"--jobs {options.jobs} is out of range; give 1 or more")
    recipe = read_recipe(options.recipe, options.output_dir, options.seeds, options.only)
    run_ablation(recipe, options.recipe, options.jobs)
    return summarize(recipe)


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg ablate", description="Compare settings, each alone, over seeds.")
    parser.add_argument(
        "recipe",
        help="YAML or JSON: output_dir, seeds, and the sections pairs (shared) and variants; to compare settings of "
        "stage 1, base_model and the section mlm (shared) too",
    )
    parser.add_argument("--output_dir", help="another folder than the recipe's")
    parser.add_argument("--seeds", nargs="+", type=int, help="other training seeds than the recipe's")
    parser.add_argument("--only", nargs="+", help="these variants only, beside the first one")
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time; above 1 of one thread each")
    return parser


def read_recipe(
    path: str,
    output_dir: str | None = None,
    seeds: Sequence[int] | None = None,
    only: Sequence[str] | None = None,
) -> Recipe:
    """A recipe file, with what the command line puts over it. Raises ``InputError``."""
    document = read_keys(path, KEYS, optional={"seeds", "mlm", "base_model"})
    of_stage_1 = "mlm" in document
    if of_stage_1 != ("base_model" in document):
        raise InputError(f"{path}: mlm and base_model belong together; give both, or neither")
    shared, variants = document["mlm" if of_stage_1 else "pairs"], document["variants"]
    if not isinstance(variants, dict) or len(variants) < 2:
        raise InputError(
            f"{path}: variants must be a mapping of at least two names to flags; the first is compared with"
        )
    for name in only or ():
        if name not in variants:
            raise InputError(f"{path}: no variant {name!r}; there are {', '.join(variants)}")
    first = next(iter(variants))
    words = {}
    for name, flags in variants.items():
        if only is None or name in (first, *only):
            section_words(path, f"variants: {name}", flags or {})  # names the section where it is no mapping
            words[name] = section_words(path, "mlm" if of_stage_1 else "pairs", {**shared, **(flags or {})})
    folder, seeds = Path(output_dir or document["output_dir"]), read_seeds(path, seeds or document.get("seeds"))
    if not of_stage_1:
        return Recipe(folder, seeds, words)
    pairs = section_words(path, "pairs", document["pairs"])
    mlm = {name: flags for name, flags in words.items() if variants[name] is not None}
    return Recipe(folder, seeds, dict.fromkeys(words, pairs), mlm, resolve_package(document["base_model"]))


def run_ablation(recipe: Recipe, path: str, jobs: int) -> None:
    """Run every variant and seed that is not finished, ``jobs`` at a time, each printing into its own folder.

    The flags of all variants are checked before the first one runs. Raises ``InputError`` there, and
    ``TrainingFailure`` at the end where runs failed.
    """
    for name in recipe.variants:
        finetune.parse(recipe.words(name, recipe.seeds[0]), f"{path}: {name}")
        if name in recipe.mlm:
            adapt.parse(recipe.mlm_words(name, recipe.seeds[0]), f"{path}: {name}")
    if jobs > 1:
        os.environ.update(ONE_THREAD)  # of the processes that are started below
    failures, todo = [], [(name, seed) for name in recipe.variants for seed in recipe.seeds]
    announce(f"{len(todo)} runs, {jobs} at a time; what is finished is not run again")
    with ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = {pool.submit(_run, recipe.mlm_words(*run), recipe.words(*run), recipe.folder(*run)): run for run in todo}
        for future in as_completed(runs):
            name, seed = runs[future]
            folder = recipe.folder(name, seed)
            if future.exception() or future.result():
                failures.append(f"{name}, seed {seed}: {future.exception() or _last_line(folder / LOG_NAME)}")
            announce(f"{name}, seed {seed}: {'failed' if future.exception() or future.result() else _told(folder)}")
    if failures:
        raise TrainingFailure(f"{len(failures)} of {len(todo)} runs failed: {one_line('; '.join(failures))}")


def summarize(recipe: Recipe) -> dict[str, Any]:
    """Tables of all variants from their finished runs: printed, written, and returned as they are written."""
    predictions = {
        name: [read_predictions(recipe.folder(name, seed)) for seed in recipe.seeds] for name in recipe.variants
    }
    records = {name: [read_record(recipe.folder(name, seed)) for seed in recipe.seeds] for name in recipe.variants}
    plain, *others = recipe.variants
    first = predictions[plain][0]
    differences = {
        name: compare_metrics(
            first.kind,
            first.labels,
            np.stack([part.scores for part in predictions[plain]]),
            np.stack([part.scores for part in predictions[name]]),
            base_threshold=_thresholds(recipe, plain),
            adapted_threshold=_thresholds(recipe, name),
            groups=first.groups(),
            num_resamples=RESAMPLES,
            seed=BOOTSTRAP_SEED,
        )
        for name in others
    }
    seconds = {name: [_seconds_of(recipe, name, seed) for seed in recipe.seeds] for name in recipe.variants}
    results: dict[str, Any] = {"seeds": list(recipe.seeds), "test_pairs": len(first.labels), "plain": plain}
    results |= {"variants": recipe.variants, "train_seconds": seconds, "metrics": {}}
    tables = []
    for metric in METRICS[first.kind]:
        values = {name: [part["metrics"]["test"].get(metric) for part in parts] for name, parts in records.items()}
        compared = {name: parts[metric] for name, parts in differences.items()}
        rows = [_row(metric, name, values[name], compared.get(name), seconds[name]) for name in recipe.variants]
        header = [metric_title(metric), "mean", "std", f"minus {plain}", "95 % interval", "by seed", "seconds"]
        announce("", format_table(header, rows, ALIGN))
        tables.append(markdown_table(header, rows, ALIGN))
        results["metrics"][metric] = {
            name: {**spread(values[name]), "by_seed": values[name]}
            | ({"minus_plain": asdict(compared[name])} if name in compared else {})
            for name in recipe.variants
        }
    if recipe.mlm:
        folders = {name: [recipe.mlm_folder(name, seed) for seed in recipe.seeds] for name in recipe.mlm}
        results["stage_1"] = {name: stage_1_figures(parts) for name, parts in folders.items()}
        announce("", stage_1_table(results["stage_1"], format_table))
        tables.append(stage_1_table(results["stage_1"], markdown_table))
    write_json(recipe.output_dir / RESULTS_NAME, results)
    note = (
        f"{len(first.labels):,} test pairs, seeds {', '.join(map(str, recipe.seeds))}; std over seeds; the interval is "
        f"of the difference, paired bootstrap over pairs and seeds, {RESAMPLES:,} resamples. Of twenty useless "
        "variants one is expected outside zero."
    )
    Path(recipe.output_dir, TABLES_NAME).write_text("\n\n".join([*tables, note]) + "\n", encoding="utf-8")
    announce("", note, f"written: {recipe.output_dir / TABLES_NAME}, {recipe.output_dir / RESULTS_NAME}")
    return results


def _run(mlm_words: list[str] | None, words: list[str], folder: Path) -> int:
    """Run stage 1, where there is one, and stage 2 in this process, whose output goes into the folder; the status."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOG_NAME, "w", encoding="utf-8") as log:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
            os.dup2(log.fileno(), stream.fileno())
    set_up_logging()
    status = 0
    if mlm_words is not None:
        status = run_door(functools.partial(adapt.run, replace_other=True), mlm_words)
    status = status or run_door(functools.partial(finetune.run, replace_other=True), words)
    sys.stdout.flush()
    return status


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8").strip().splitlines()
    return lines[-1] if lines else f"see {log}"


def _told(folder: Path) -> str:
    metrics = read_record(folder)["metrics"]["test"]
    name = next(name for names in METRICS.values() for name in names[:1] if name in metrics)
    return f"{metric_title(name)} {format_value(name, metrics[name])}, {_seconds(folder):.0f} s"


def _seconds(folder: Path) -> float:
    """How long a run trained; an ensemble, all its members."""
    record = read_record(folder)
    members = record.get("members", [])
    return sum(_seconds(folder / name) for name in members) if members else record["metrics"]["train_runtime"]


def _seconds_of(recipe: Recipe, variant: str, seed: int) -> float:
    """How long one run trained, in both stages."""
    stage_1 = _seconds(recipe.mlm_folder(variant, seed)) if variant in recipe.mlm else 0.0
    return stage_1 + _seconds(recipe.folder(variant, seed))


def _thresholds(recipe: Recipe, variant: str) -> list[float]:
    """Where each seed's run decides binary pairs; other kinds use none."""
    decisions = [load_decision(recipe.folder(variant, seed)) for seed in recipe.seeds]
    return [0.0 if decision is None else decision.threshold or 0.0 for decision in decisions]


def _row(
    metric: str, name: str, values: list[float | None], difference: Difference | None, seconds: list[float]
) -> list[str | None]:
    figures = spread(values)
    deviation = figures["standard_deviation"]
    cells = [name, format_value(metric, figures["mean"])]
    cells.append(None if deviation is None else format_value(metric, deviation))
    if difference is None:
        cells += [None, None]
    else:
        low, high = format_change(metric, difference.low), format_change(metric, difference.high)
        cells += [format_change(metric, difference.difference), f"{low} to {high}" if low != UNDEFINED else low]
    cells.append(", ".join(format_value(metric, value) for value in values))
    return [*cells, f"{np.mean(seconds):.0f}"]
