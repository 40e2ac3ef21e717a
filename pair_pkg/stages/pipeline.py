"""``python -m pair_pkg pipeline RECIPE``: did adapting the encoder help the pairs, by how much, and how surely?

Stage 1 runs once; stage 2 runs from the base and from the adapted checkpoint, with the same seeds and splits. The
answer is a paired comparison on the test pairs. Every part is a run folder of its own, so a finished part is not run
again, and a changed recipe runs what depends on the change.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pair_pkg.columns import VALIDATION
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.pairs.decision import load_decision
from pair_pkg.pairs.metrics import format_accuracy
from pair_pkg.records import read_json, read_record, write_json
from pair_pkg.report.evaluation import answer_metric
from pair_pkg.report.numbers import format_p_value
from pair_pkg.report.plots import plot_comparison
from pair_pkg.report.statistics import Difference, McNemar, Verdict, compare_metrics, mcnemar_exact, verdict
from pair_pkg.report.tables import comparison_table, format_table
from pair_pkg.stages import adapt, finetune
from pair_pkg.stages.comparison import BOOTSTRAP_SEED, RESAMPLES
from pair_pkg.stages.pairs_data import load_splits, load_unlabelled
from pair_pkg.stages.predictions import Predictions, read_predictions
from pair_pkg.stages.recipes import read_keys, read_seeds, section_words
from pair_pkg.stages.report import REPORT_NAME, write_report
from pair_pkg.stages.run_folders import ADAPTED, ADAPTED_DIR, BASE, RESULTS_NAME
from pair_pkg.stages.seed_runs import seed_dir
from pair_pkg.stages.task_pairs import task_words
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging

KEYS = {"base_model", "output_dir", "seeds", "mlm", "pairs"}


@dataclass(frozen=True)
class Recipe:
    """What to compare: the flags of both stages as words, and what the pipeline adds to them."""

    base_model: str
    output_dir: Path
    seeds: tuple[int, ...]
    mlm: list[str]
    pairs: list[str]
    with_texts: bool = True  # of the worst pairs, in the report


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Parse, run both stages, print the answer; returns what ``results.json`` holds."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    recipe = read_recipe(options.recipe, options.output_dir, options.seeds, options.base_model)
    recipe = replace(recipe, with_texts=not options.no_texts)
    check_recipe(options.recipe, recipe)
    return run_pipeline(recipe)


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg pipeline", description="Adapt, fine-tune with and without, compare.")
    parser.add_argument("recipe", help="YAML or JSON: base_model, output_dir, seeds, and the sections mlm and pairs")
    parser.add_argument("--output_dir", help="another folder than the recipe's")
    parser.add_argument("--seeds", nargs="+", type=int, help="other training seeds than the recipe's")
    parser.add_argument("--base_model", help="another base checkpoint than the recipe's")
    parser.add_argument("--no_texts", action="store_true", help=f"leave the texts of pairs out of {REPORT_NAME}")
    return parser


def read_recipe(
    path: str, output_dir: str | None = None, seeds: Sequence[int] | None = None, base_model: str | None = None
) -> Recipe:
    """A recipe file, with what the command line puts over it. Raises ``InputError``."""
    document = read_keys(path, KEYS, optional={"seeds"})
    for name, given in (("base_model", base_model), ("output_dir", output_dir)):
        if not (given or isinstance(document[name], str) and document[name]):
            raise InputError(f"{path}: {name} must be one name; write `{name}: NAME`")
    return Recipe(
        base_model=resolve_package(base_model or document["base_model"]),
        output_dir=Path(output_dir or document["output_dir"]),
        seeds=read_seeds(path, seeds or document.get("seeds")),
        mlm=section_words(path, "mlm", document["mlm"]),
        pairs=section_words(path, "pairs", document["pairs"]),
    )


def check_recipe(path: str, recipe: Recipe) -> None:
    """Refuse now what stage 2 would refuse only after the hours of stage 1. Raises ``InputError``."""
    flags = finetune.parse(_pair_words(recipe, recipe.base_model, BASE), f"{path}: pairs")
    mlm_flags = adapt.parse(_mlm_words(recipe), place=f"{path}: mlm")
    if mlm_flags.training.push_to_hub or flags.training.push_to_hub:
        raise InputError(f"{path}: push_to_hub: several models come out; push one by `python -m pair_pkg push`")
    data = load_splits(flags.pairs, positives_suffice=flags.architecture.positives_suffice)
    labels = data.splits[VALIDATION].labels
    if data.scheme.kind == "binary" and (labels == labels[0]).all():
        raise InputError(f"{path}: all validation pairs have one label; a comparison of decisions needs both")
    if flags.pairs.predict_file:
        load_unlabelled(flags.pairs)


def run_pipeline(recipe: Recipe) -> dict[str, Any]:
    """Run all parts that are not done, compare, write ``results.json`` and ``comparison.png``; returns the results."""
    begin = time.perf_counter()
    adapted_dir = recipe.output_dir / ADAPTED_DIR
    _headline("stage 1: adapt the base model to the corpus")
    adapt.run(_mlm_words(recipe), replace_other=True)
    folders: dict[str, list[Path]] = {}
    for name, model in ((BASE, recipe.base_model), (ADAPTED, str(adapted_dir))):
        _headline(f"stage 2: fine-tune the {name} model")
        finetune.run(_pair_words(recipe, model, name), replace_other=True)
        folders[name] = [seed_dir(recipe.output_dir / name, seed) for seed in recipe.seeds]
    results = compare(folders, recipe.seeds, adapted_dir)
    results["seconds"] = round(time.perf_counter() - begin, 1)
    write_json(recipe.output_dir / RESULTS_NAME, results)
    write_report([recipe.output_dir], recipe.output_dir / REPORT_NAME, with_texts=recipe.with_texts)
    return read_json(recipe.output_dir / RESULTS_NAME)


def compare(folders: dict[str, list[Path]], seeds: Sequence[int], adapted_dir: Path) -> dict[str, Any]:
    """The answer from finished runs: metrics with intervals, McNemar's test, one sentence; printed and returned."""
    predictions = {name: [read_predictions(folder) for folder in parts] for name, parts in folders.items()}
    first = predictions[BASE][0]
    assert all(np.array_equal(first.labels, other.labels) for parts in predictions.values() for other in parts)
    scores = {name: np.stack([part.scores for part in parts]) for name, parts in predictions.items()}
    records = {name: [read_record(folder) for folder in parts] for name, parts in folders.items()}
    thresholds = {name: [_threshold(folder) for folder in parts] for name, parts in folders.items()}
    differences = compare_metrics(
        first.kind,
        first.labels,
        scores[BASE],
        scores[ADAPTED],
        base_threshold=thresholds[BASE],  # of binary labels only, fitted on validation
        adapted_threshold=thresholds[ADAPTED],
        groups=first.groups(),
        num_resamples=RESAMPLES,
        seed=BOOTSTRAP_SEED,
    )
    main_metric = answer_metric(first.kind, _decided_by(folders[BASE][0]))
    answer = verdict(differences[main_metric], main_metric)
    tests = {f"seed {seed}": _mcnemar(*pair) for seed, *pair in zip(seeds, predictions[BASE], predictions[ADAPTED])}
    stage1 = read_record(adapted_dir)
    plot_comparison(differences, adapted_dir.parent / "comparison.png")
    _print_answer(differences, answer, tests, records, stage1, adapted_dir.parent)
    return {
        "answer": answer.answer,
        "sentence": answer.sentence,
        "main_metric": main_metric,
        "seeds": list(seeds),
        "test_pairs": len(first.labels),
        "comparison": {name: asdict(difference) for name, difference in differences.items()},
        "mcnemar": {name: asdict(test) if test else None for name, test in tests.items()},
        "baselines": records[BASE][0]["metrics"].get("baselines"),
        "perplexity": {"before": _perplexity(stage1, before=True), "after": _perplexity(stage1)},
        "runs": {
            name: [
                {"folder": str(folder), "metrics": record["metrics"]} for folder, record in zip(folders[name], parts)
            ]
            for name, parts in records.items()
        },
        "adapted": {"folder": str(adapted_dir), "metrics": stage1["metrics"], "corpus": stage1["corpus"]},
    }


def _mlm_words(recipe: Recipe) -> list[str]:
    """The flags of stage 1, which is told of stage 2's pairs: for its probe, and to keep held-out texts apart."""
    fixed = [f"--model_name_or_path={recipe.base_model}", f"--output_dir={recipe.output_dir / ADAPTED_DIR}"]
    if any(word.partition("=")[0] in ("--pair_file", "--select_by") for word in recipe.mlm):
        return [*recipe.mlm, *fixed]
    flags = finetune.parse(_pair_words(recipe, recipe.base_model, BASE))
    return [*recipe.mlm, *task_words(flags.pairs), *fixed]


def _pair_words(recipe: Recipe, model: str, name: str) -> list[str]:
    return [
        *recipe.pairs,
        *("--do_train", "--do_eval", "--do_predict", "--seeds", *map(str, recipe.seeds)),
        f"--model_name_or_path={model}",
        f"--output_dir={recipe.output_dir / name}",
    ]


def _threshold(folder: Path) -> float:
    decision = load_decision(folder)
    return 0.0 if decision is None or decision.threshold is None else decision.threshold  # other kinds use none


def _decided_by(folder: Path) -> str | None:
    decision = load_decision(folder)
    return None if decision is None else decision.decide_by


def _mcnemar(base: Predictions, adapted: Predictions) -> McNemar | None:
    """The exact test of one seed; None for scores, which are neither right nor wrong."""
    if base.kind == "scores":
        return None
    return mcnemar_exact(base.correct(), adapted.correct())


def _perplexity(record: dict[str, Any], before: bool = False) -> float | None:
    metrics = record["metrics"].get("before", {}) if before else record["metrics"]
    return metrics.get("eval_perplexity")


def _print_answer(
    differences: dict[str, Difference],
    answer: Verdict,
    tests: dict[str, McNemar | None],
    records: dict[str, list[dict[str, Any]]],
    stage1: dict[str, Any],
    output_dir: Path,
) -> None:
    _headline("the answer")
    announce(comparison_table(differences), "")
    rows = [[name, *_test_row(name, parts)] for name, parts in _by_run(records).items()]
    announce(format_table(["run", "test accuracy" if rows[0][1] else "", "seconds"], rows, "lrr"), "")
    for name, test in tests.items():
        if test:
            announce(
                f"McNemar, {name}: {test.only_base} pairs right with the base only, {test.only_adapted} with the "
                f"adapted only, {format_p_value(test.p_value)}"
            )
    before, after = _perplexity(stage1, before=True), _perplexity(stage1)
    if before and after:
        announce(f"perplexity of held-out documents: {before:,.2f} before, {after:,.2f} after")
    announce("", answer.sentence, "")
    announce("written:", *(f"  {path}" for path in _written(output_dir, records)))


def _written(output_dir: Path, records: dict[str, list[dict[str, Any]]]) -> list[str]:
    """What a finished pipeline leaves, for a person to open."""
    return [
        f"{output_dir / REPORT_NAME}  (one page: the answer, curves, errors, cost, lineage)",
        f"{output_dir / RESULTS_NAME}  (all numbers of the answer)",
        f"{output_dir / 'comparison.png'}  (the differences with their intervals)",
        f"{output_dir / ADAPTED_DIR}/  (the adapted model, run.json, log_history.json, history.png)",
        *(
            f"{output_dir / name}/  (the best fine-tuned model by validation, of {len(parts)} in seed-N)"
            for name, parts in records.items()
        ),
    ]


def _by_run(records: dict[str, list[dict[str, Any]]]) -> dict[str, dict[str, Any]]:
    return {
        f"{name}, seed {record['identity']['seed']}": record["metrics"] for name in records for record in records[name]
    }


def _test_row(name: str, metrics: dict[str, Any]) -> list[str]:
    test = metrics["test"]
    accuracy = format_accuracy(test["correct"], test["total"]) if "correct" in test else ""
    return [accuracy, f"{metrics.get('train_runtime', 0):.0f}"]


def _headline(text: str) -> None:
    announce("", f"== {text}")
