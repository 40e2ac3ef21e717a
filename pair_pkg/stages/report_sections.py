"""What a page tells of one run, section by section; a section without numbers is left out."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pair_pkg.columns import SENTENCE1, SENTENCE2
from pair_pkg.pairs.metrics import format_accuracy
from pair_pkg.pairs.shift import Shift
from pair_pkg.report.evaluation import (
    SMALL_NOTE,
    answer_metric,
    result_cells,
    shift_sentence,
    slice_cells,
    spread_cells,
)
from pair_pkg.report.numbers import format_interval, format_share, format_value, metric_title
from pair_pkg.report.page import Answer, Block, Charts, Section, Table, Text, Tile
from pair_pkg.report.tables import Cells
from pair_pkg.stages.mlm_report import adaptation_tables
from pair_pkg.stages.pair_report import decision_lines, symmetry_lines
from pair_pkg.stages.report_charts import calibration_chart, history_charts, ranking_charts, score_charts
from pair_pkg.stages.run_folders import RunFolder
from pair_pkg.training.checkpoints import FINISHED

MAX_OPEN_ROWS = 12  # of names and values; a longer table waits to be opened
TEXT_COLUMNS = {SENTENCE1, SENTENCE2}


def run_answer(run: RunFolder) -> Answer:
    """What a run says, in a sentence and a few numbers."""
    if run.record.get("status") != FINISHED:
        return Answer(run.name, "This run is not finished: its folder holds no result yet.", [])
    return _mlm_answer(run) if run.stage == "mlm" else _pair_answer(run)


def run_sections(run: RunFolder, with_texts: bool) -> list[Section]:
    """Everything that a run's folder tells, as sections."""
    found: tuple[tuple[str, Sequence[Block]], ...] = (
        ("Test figures", list(_test_blocks(run))),
        ("Curves of the test pairs", _curve_blocks(run)),
        ("Errors", list(_error_blocks(run, with_texts))),
        ("Training", list(_training_blocks(run))),
        ("Adaptation", _adaptation_blocks(run, with_texts)),
        ("Data", list(_data_blocks(run))),
        ("Cost", _table_of("what it took", cost_rows(run))),
        ("Origin", list(_origin_blocks(run))),
    )
    return [Section(title, list(blocks)) for title, blocks in found if blocks]


def cost_rows(run: RunFolder) -> list[list[str]]:
    """Time, tokens and what else of the cost the run wrote down."""
    metrics, rows = run.metrics, []
    if "train_runtime" in metrics:
        rows.append(["training time", _duration(metrics["train_runtime"])])
    if run.record.get("global_step"):
        rows.append(["optimizer updates", f"{run.record['global_step']:,}"])
    speeds = sorted(entry["tokens_per_second"] for entry in run.history if entry.get("tokens_per_second"))
    if speeds:
        rows.append(["tokens a second (median of the log)", f"{speeds[len(speeds) // 2]:,.0f}"])
    if "train_samples_per_second" in metrics:
        rows.append(["rows a second", f"{metrics['train_samples_per_second']:,.1f}"])
    operations = [entry["total_flos"] for entry in run.history if entry.get("total_flos")]
    if operations:
        rows.append(["floating-point operations (6 a token and parameter)", f"{operations[-1]:.3g}"])
    cost = run.record.get("cost", {})
    if cost.get("tokens"):
        rows.append(["tokens trained on since the last start", f"{cost['tokens']:,}"])
    if cost.get("peak_memory_bytes"):
        rows.append(["peak memory of the process", f"{cost['peak_memory_bytes'] / 2**30:.2f} GiB"])
    if cost.get("peak_gpu_memory_bytes"):
        rows.append(["peak memory of tensors on the GPU", f"{cost['peak_gpu_memory_bytes'] / 2**30:.2f} GiB"])
    if cost.get("energy_joules"):
        rows.append(["energy of the processors (whole machine)", f"{cost['energy_joules'] / 3600:,.2f} Wh"])
    return rows


def confidence_words(intervals: Mapping[str, Any]) -> str:
    """The head of an interval: "95 % interval"."""
    return f"{100 * intervals['confidence']:g} % interval"


def model_interval(metrics: Mapping[str, Any], name: str) -> str | None:
    """The bounds of the model's own metric, or None where they were not measured."""
    intervals = metrics.get("intervals")
    bounds = intervals["bounds"].get("model", {}).get(name) if intervals else None
    return format_interval(name, *bounds) if bounds and None not in bounds else None


def _mlm_answer(run: RunFolder) -> Answer:
    after, before = run.metrics.get("eval_perplexity"), run.metrics.get("before", {}).get("eval_perplexity")
    if after is None:
        return Answer(run.name, "No perplexity was measured in this run.", [])
    predicted = run.metrics.get("eval_predicted_tokens")
    note = f"over {predicted:,} predicted tokens" if predicted else ""
    tiles = [Tile("perplexity after", f"{after:,.2f}", note)]
    if before is None:
        return Answer(run.name, f"The perplexity of held-out documents is {after:,.2f}.", tiles)
    verb, tone = ("fell", "good") if after < before else ("rose", "bad")
    tiles = [Tile("perplexity before", f"{before:,.2f}"), *tiles, Tile("ratio", f"{before / after:,.2f}")]
    return Answer(
        run.name, f"The perplexity of held-out documents {verb} from {before:,.2f} to {after:,.2f}.", tiles, tone
    )


def _pair_answer(run: RunFolder) -> Answer:
    metrics = run.metrics
    test = metrics.get("test")
    if not test:
        return Answer(run.name, "No test figures were measured in this run.", [])
    kind = run.record.get("labels", {}).get("kind")
    main = answer_metric(kind, run.decided_by) if kind else None
    if main not in test:  # cosines without a decision
        main = next(name for name, value in test.items() if isinstance(value, float) or value is None)
    bounds = model_interval(metrics, main)
    surely = f" ({confidence_words(metrics['intervals'])} {bounds})" if bounds else ""
    split = metrics.get("test_split", "test")
    pairs = f"{test['total']:,} {split} pairs" if "total" in test else f"{split} pairs"
    sentence = f"{metric_title(main)[:1].upper()}{metric_title(main)[1:]} of the {pairs}: "
    sentence += f"{format_value(main, test[main])}{surely}"
    known = {name: part[main] for name, part in metrics.get("baselines", {}).items() if part.get(main) is not None}
    if known:
        best = max(known, key=known.get)
        sentence += f"; the best baseline, {metric_title(best)}, has {format_value(main, known[best])}"
    return Answer(run.name, f"{sentence}.", list(_pair_tiles(metrics, test)))


def _pair_tiles(metrics: Mapping[str, Any], test: Mapping[str, Any]) -> Iterator[Tile]:
    if "correct" in test:
        yield Tile("right", format_share(test["accuracy"]), format_accuracy(test["correct"], test["total"]))
    for name in ("f1", "macro_f1", "average_precision", "roc_auc", "pearson", "spearman"):
        if name in test:
            bounds = model_interval(metrics, name)
            yield Tile(metric_title(name), format_value(name, test[name]), bounds or "")
    decision = metrics.get("decision") or {}
    if decision.get("threshold") is not None:
        yield Tile("threshold", f"{decision['threshold']:.3f}", "on the calibrated probability")
    calibration = metrics.get("calibration", {}).get(metrics.get("test_split"))
    if calibration:
        note = f"{calibration['before']['ece']:.3f} before calibration"
        yield Tile("calibration error", f"{calibration['after']['ece']:.3f}", note)


def _test_blocks(run: RunFolder) -> Iterator[Block]:
    metrics = run.metrics
    if not metrics.get("test"):
        return
    title = f"{metrics.get('test_split', 'test')} pairs"
    figures = {"model": metrics["test"], **metrics.get("baselines", {})}
    yield Table("The model and the baselines", result_cells(title, figures, metrics.get("intervals")))
    for name, reason in metrics["test"].get("undefined", {}).items():
        yield Text(f"{metric_title(name)} is undefined: {reason}.")
    if "seeds" in metrics:
        seeds = metrics["seeds"]
        cells = spread_cells(f"{len(seeds['seeds'])} seeds", seeds["test"])
        yield Table("Spread over training seeds", cells, f"taken: seed {seeds['taken']}, {seeds['why']}")
    if metrics.get("decision") and "calibration" in metrics:
        yield from (Text(f"{line}.") for line in decision_lines(metrics))
    yield from (Text(f"{line}.") for line in symmetry_lines(metrics))


def _curve_blocks(run: RunFolder) -> list[Block]:
    charts = [*ranking_charts({run.name: run}, run.key), *calibration_chart(run), *score_charts(run)]
    return [Charts(charts)] if charts else []


def _error_blocks(run: RunFolder, with_texts: bool) -> Iterator[Block]:
    slices = run.metrics.get("slices")
    if slices:
        note = SMALL_NOTE if any(row["small"] for row in slices) else ""
        yield Table("Figures by slices of the test pairs", slice_cells("slice", slices), note)
    if not run.worst:
        return
    shown = [name for name in run.worst[0] if with_texts or name not in TEXT_COLUMNS]
    align = "".join("r" if name in ("rank", "probability", "score", "error") else "l" for name in shown)
    cells = Cells(shown, [[row[name] for name in shown] for row in run.worst], align)
    note = "" if with_texts else "texts were left out (--no_texts)"
    yield Table(f"The {len(run.worst)} pairs that the model got most wrong", cells, note, long=True, folded=True)


def _training_blocks(run: RunFolder) -> Iterator[Block]:
    charts = history_charts(run)
    if charts:
        yield Charts(charts)


def _adaptation_blocks(run: RunFolder, with_texts: bool) -> list[Block]:
    """What stage 1 did to masked tokens and to weights."""
    tables = adaptation_tables(run.metrics, with_texts)
    return [Table(title, cells, folded=len(cells.rows) > MAX_OPEN_ROWS) for title, cells in tables.items()]


def _data_blocks(run: RunFolder) -> Iterator[Block]:
    for shift in run.record.get("pairs", {}).get("shift", []):
        values = {name: value for name, value in shift.items() if name != "split"}
        if shift["differs"]:
            yield Text(f"{shift_sentence(Shift(**values), shift['split'], run.record['labels']['kind'])}.")
    for name in ("corpus", "pairs"):
        accounting = {key: value for key, value in run.record.get(name, {}).items() if key != "shift"}
        yield from _table_of(f"{name}: the accounting", list(_flat(accounting)))


def _origin_blocks(run: RunFolder) -> Iterator[Block]:
    record = run.record
    steps, link = [], {"stage": record.get("stage"), "base_model": record.get("base_model"), **record}
    while link:
        steps.append([link.get("stage"), link.get("base_model")])
        link = link.get("lineage")
    yield Table("Lineage, the newest first", Cells(["stage", "started from"], steps, "ll"))
    facts = [
        [name.replace("_", " "), record[name]]
        for name in ("written_at", "architecture", "max_seq_length")
        if name in record
    ]
    yield from _table_of("this run", facts)
    yield from _table_of("versions", [list(item) for item in record.get("versions", {}).items()])
    settings = list(_flat({**record.get("identity", {}), **record.get("settings", {}), **record.get("aids", {})}))
    yield from _table_of("settings and fingerprints", settings)


def _table_of(caption: str, rows: list[list[Any]]) -> list[Table]:
    """Names and values as a table, or nothing."""
    return [Table(caption, Cells(["what", "value"], rows, "ll"), folded=len(rows) > MAX_OPEN_ROWS)] if rows else []


def _flat(values: Mapping[str, Any], front: str = "") -> Iterator[list[Any]]:
    """Nested values as rows of name and value; None is left out, a list is shown whole where it is short.

    >>> list(_flat({"train": {"rows": 12000, "share": 0.25}, "names": ["a", "b"], "none": None}))
    [['train: rows', '12,000'], ['train: share', '0.25'], ['names', 'a, b']]
    """
    for key, value in values.items():
        name = f"{front}{key}".replace("_", " ")
        if isinstance(value, Mapping):
            yield from _flat(value, f"{name}: ")
        elif isinstance(value, list):
            yield [name, ", ".join(map(str, value)) if len(value) <= 12 else f"{len(value):,} entries"]
        elif value is not None:
            counted = isinstance(value, int) and not isinstance(value, bool) and value >= 10_000
            yield [name, f"{value:,}" if counted else f"{value:.6g}" if isinstance(value, float) else value]


def _duration(seconds: float) -> str:
    """Seconds in the units of a clock.

    >>> _duration(12.34), _duration(754), _duration(7384)
    ('12.3 s', '12 min 34 s', '2 h 3 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, left = divmod(minutes, 60)
    return f"{hours} h {left} min" if hours else f"{minutes} min {rest} s"
