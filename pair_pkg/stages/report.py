"""``python -m pair_pkg report RUN_DIR [RUN_DIR ...]``: what finished runs say, as one HTML page that needs no network.

The answer comes first. Several runs stand side by side. What an older run did not write down is left out.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from pair_pkg import __version__
from pair_pkg.errors import InputError
from pair_pkg.pairs.metrics import format_accuracy
from pair_pkg.report.numbers import format_change, format_p_value, metric_title
from pair_pkg.report.page import Answer, Block, Chart, Charts, Page, Section, Table, Text, Tile, render_page
from pair_pkg.report.plots import draw_comparison
from pair_pkg.report.statistics import HELPED, HURT, Difference
from pair_pkg.report.svg import inline_svg
from pair_pkg.report.tables import Cells, comparison_cells
from pair_pkg.stages.report_charts import ranking_charts
from pair_pkg.stages.report_sections import run_answer, run_sections
from pair_pkg.stages.run_folders import ADAPTED, ADAPTED_DIR, BASE, PipelineFolder, RunFolder, read_folders
from pair_pkg.stages.side_by_side import side_by_side
from pair_pkg.stages.terminal import CommandParser, announce, set_up_logging

REPORT_NAME = "report.html"
TONES = {HELPED: "good", HURT: "bad"}


def main(argv: Sequence[str] | None = None) -> Path:
    """Parse, write the page, print where it is; returns its path."""
    set_up_logging()
    options = build_parser().parse_args(argv)
    if options.output is None and len(options.runs) > 1:
        raise InputError("several runs: name the page with --output, such as report.html")
    path = write_report(options.runs, options.output or Path(options.runs[0], REPORT_NAME), not options.no_texts)
    announce(f"written: {path}")
    return path


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg report", description="One HTML page of finished runs, with no outside part.")
    parser.add_argument("runs", nargs="+", metavar="RUN_DIR", help="folder of a run, or of a pipeline")
    parser.add_argument("--output", help=f"the page (default: {REPORT_NAME} in the folder of a single run)")
    parser.add_argument("--no_texts", action="store_true", help="leave the texts of the worst pairs out")
    return parser


def write_report(folders: Sequence[str | os.PathLike], path: str | os.PathLike, with_texts: bool) -> Path:
    """Write the page of some folders; ``with_texts`` shows the worst pairs. Raises ``InputError``."""
    path = Path(path)
    text = render_page(build_page(read_folders([str(folder) for folder in folders]), with_texts))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}); give another --output") from error
    return path


def build_page(folders: Sequence[RunFolder | PipelineFolder], with_texts: bool) -> Page:
    """The page of some runs: a single one's sections at the top level, several ones' under their names."""
    title = folders[0].name if len(folders) == 1 else f"{len(folders)} runs"
    sections: list[Section] = []
    if len(folders) > 1:
        compared = side_by_side([run for folder in folders for run in _runs_of(folder)])
        sections += [compared] if compared else []
        sections += [Section(folder.name, [], _sections_of(folder, with_texts)) for folder in folders]
    else:
        sections += _sections_of(folders[0], with_texts)
    answers = [_answer_of(folder) for folder in folders]
    return Page(f"Report: {title}", f"pair_pkg {__version__}; {_when(folders)}", answers, sections)


def _runs_of(folder: RunFolder | PipelineFolder) -> list[RunFolder]:
    """A run, or those of a pipeline under names that tell whose they are."""
    if isinstance(folder, RunFolder):
        return [folder]
    return [
        RunFolder(run.key, f"{folder.name}: {run.name}", run.record, run.history, run.predictions, run.worst)
        for run in folder.parts.values()
    ]


def _answer_of(folder: RunFolder | PipelineFolder) -> Answer:
    if isinstance(folder, RunFolder):
        return run_answer(folder)
    results = folder.results
    tone = TONES.get(results["answer"], "plain")
    return Answer(folder.name, results["sentence"], _pipeline_tiles(results), tone)


def _pipeline_tiles(results: dict) -> list[Tile]:
    main = results["main_metric"]
    difference = Difference(**results["comparison"][main])
    low, high = (format_change(main, bound) for bound in (difference.low, difference.high))
    change = format_change(main, difference.difference, unit=True)
    tiles = [Tile(f"{metric_title(main)}, adapted less base", change, f"{low} to {high}")]
    perplexity = results.get("perplexity", {})
    if perplexity.get("before") and perplexity.get("after"):
        note = f"{perplexity['before']:,.2f} before adaptation"
        tiles.append(Tile("perplexity of held-out documents", f"{perplexity['after']:,.2f}", note))
    tiles.append(Tile("test pairs", f"{results['test_pairs']:,}", f"{len(results['seeds'])} training seeds"))
    if "seconds" in results:
        tiles.append(Tile("time of the last call", f"{results['seconds']:,.0f} s", "finished parts are not run again"))
    return tiles


def _sections_of(folder: RunFolder | PipelineFolder, with_texts: bool) -> list[Section]:
    if isinstance(folder, RunFolder):
        return run_sections(folder, with_texts)
    titles = {
        ADAPTED_DIR: "Stage 1: adaptation to the corpus",
        BASE: "Stage 2 from the base model",
        ADAPTED: "Stage 2 from the adapted model",
    }
    parts = [Section(titles[name], [], run_sections(run, with_texts)) for name, run in folder.parts.items()]
    return [Section("Base against adapted", list(_comparison_blocks(folder))), *parts]


def _comparison_blocks(folder: PipelineFolder) -> list[Block]:
    results = folder.results
    differences = {name: Difference(**values) for name, values in results["comparison"].items()}
    blocks: list[Block] = [Table("Test figures, means over the seeds", comparison_cells(differences))]
    figure = draw_comparison(differences)
    if figure:
        caption = "Adapted less base with intervals: right of the dashed line adaptation helps, left of it it hurts."
        blocks.append(Charts([Chart(inline_svg(figure, caption, f"{folder.key}-forest"), caption)]))
    blocks.append(Table("Every run", Cells(["run", "right", "training seconds"], _seed_rows(results), "lrr")))
    for name, test in results.get("mcnemar", {}).items():
        if test:
            blocks.append(
                Text(
                    f"McNemar's exact test, {name}: {test['only_base']} pairs right with the base only, "
                    f"{test['only_adapted']} with the adapted only, {format_p_value(test['p_value'])}."
                )
            )
    both = {name: folder.parts[name] for name in (BASE, ADAPTED) if name in folder.parts}
    charts = ranking_charts(both, f"{folder.key}-both")
    return [*blocks, Charts(charts)] if charts else blocks


def _seed_rows(results: dict) -> list[list[str | None]]:
    rows = []
    for name, runs in results.get("runs", {}).items():
        for seed, run in zip(results["seeds"], runs):
            test = run["metrics"].get("test", {})
            right = format_accuracy(test["correct"], test["total"]) if "correct" in test else None
            runtime = run["metrics"].get("train_runtime")
            rows.append([f"{name}, seed {seed}", right, runtime if runtime is None else f"{runtime:,.0f}"])
    return rows


def _when(folders: Sequence[RunFolder | PipelineFolder]) -> str:
    """When the newest of the runs was written."""
    dates = [run.record.get("written_at", "") for folder in folders for run in _runs_of(folder)]
    newest = max(dates, default="")
    return f"runs of {newest.replace('T', ' ')}" if newest else "runs without a date"
