"""Several runs beside each other: their figures in one table, their curves in one plot, and paired differences."""

from collections.abc import Iterator, Sequence
from typing import Any

from pair_pkg.pairs.metrics import format_accuracy
from pair_pkg.report.evaluation import SHOWN_METRICS, answer_metric
from pair_pkg.report.numbers import format_change, format_value, metric_title
from pair_pkg.report.page import Block, Charts, Section, Table
from pair_pkg.report.tables import Cells
from pair_pkg.stages.comparison import compare_tested, same_pairs
from pair_pkg.stages.report_charts import ranking_charts
from pair_pkg.stages.report_sections import confidence_words, cost_rows, model_interval
from pair_pkg.stages.run_folders import RunFolder


def side_by_side(runs: Sequence[RunFolder]) -> Section | None:
    """A section on two runs of a stage or more, or None where there are not so many."""
    adapted = [run for run in runs if run.stage == "mlm"]
    tuned = [run for run in runs if run.stage == "pairs" and run.metrics.get("test")]
    blocks: list[Block] = []
    if len(adapted) > 1:
        blocks.append(Table("Stage 1", _mlm_cells(adapted)))
    if len(tuned) > 1:
        blocks += _pair_blocks(tuned)
    if len(adapted) > 1 or len(tuned) > 1:
        blocks.append(Table("Cost", _cost_cells([run for run in runs if cost_rows(run)])))
    return Section("Side by side", blocks) if blocks else None


def _mlm_cells(runs: Sequence[RunFolder]) -> Cells:
    rows = []
    for run in runs:
        before, after = run.metrics.get("before", {}).get("eval_perplexity"), run.metrics.get("eval_perplexity")
        rows.append([run.name, *(value if value is None else f"{value:,.2f}" for value in (before, after))])
    return Cells(["run", "perplexity before", "perplexity after"], rows, "lrr")


def _pair_blocks(runs: Sequence[RunFolder]) -> Iterator[Block]:
    shared = [name for name in SHOWN_METRICS if any(name in run.metrics["test"] for run in runs)]
    rows: list[list[Any]] = []
    if any("correct" in run.metrics["test"] for run in runs):
        rows.append(["right", *map(_counted, runs)])
    for name in shared:
        rows.append([metric_title(name), *(_value(run, name) for run in runs)])
        bounds = [model_interval(run.metrics, name) for run in runs]
        if any(bounds):
            intervals = next(run.metrics["intervals"] for run, bound in zip(runs, bounds) if bound)
            rows.append([confidence_words(intervals), *bounds])
    same = len({_test_fingerprint(run) for run in runs}) == 1
    note = "" if same else "the runs were scored on different test pairs, so their figures do not compare to the point"
    cells = Cells(["test pairs", *(run.name for run in runs)], rows, "l" + "r" * len(runs))
    yield Table("Stage 2", cells, note)
    differences = list(_difference_rows(runs))
    if differences:
        header = ["run", "metric", f"difference to {runs[0].name}", "95 % interval"]
        yield Table("Paired differences on the same test pairs", Cells(header, differences, "llrr"))
    charts = ranking_charts({run.name: run for run in runs}, "all")
    if charts:
        yield Charts(charts)


def _difference_rows(runs: Sequence[RunFolder]) -> Iterator[list[str]]:
    """The main metric of each later run against the first, where both scored the very same pairs."""
    for run in runs[1:]:
        if not same_pairs(runs[0].predictions, run.predictions):
            continue
        name = answer_metric(run.predictions.kind, run.decided_by)
        difference = compare_tested(runs[0], run)[name]
        low, high = (format_change(name, bound) for bound in (difference.low, difference.high))
        yield [run.name, metric_title(name), format_change(name, difference.difference, unit=True), f"{low} to {high}"]


def _cost_cells(runs: Sequence[RunFolder]) -> Cells:
    costs = [dict(cost_rows(run)) for run in runs]
    names = dict.fromkeys(name for cost in costs for name in cost)
    rows = [[name, *(cost.get(name) for cost in costs)] for name in names]
    return Cells(["what it took", *(run.name for run in runs)], rows, "l" + "r" * len(runs))


def _counted(run: RunFolder) -> str | None:
    test = run.metrics["test"]
    return format_accuracy(test["correct"], test["total"]) if "correct" in test else None


def _value(run: RunFolder, name: str) -> str | None:
    test = run.metrics["test"]
    return format_value(name, test[name]) if name in test else None


def _test_fingerprint(run: RunFolder) -> str | None:
    identity = run.record.get("identity", {})
    return identity.get("test_pairs", identity.get("validation_pairs"))
