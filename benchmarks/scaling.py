"""Cost against sequence length, batch tokens and corpus size, drawn as pictures."""

import argparse
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from torch import nn
from transformers import PreTrainedTokenizerFast

from benchmarks.corpora import write_corpus
from benchmarks.inputs import corpus_path, load_masked_lm, load_tokenizer_for, read_texts
from benchmarks.memory import read_corpus
from benchmarks.mlm_sides import build_rows, build_stock_dataset, build_store, our_trainer, stock_trainer
from benchmarks.result import Result, Table, number
from benchmarks.timing import Laps, alternate, call_in_subprocess
from benchmarks.training_laps import count_real_tokens, training_contestant
from pair_pkg.modeling.precision import supports_bfloat16

LENGTHS = (64, 128, 256, 512)
BATCH_TOKENS, MORE_BATCH_TOKENS = (1024, 2048, 4096), (8192, 16384)
MEGABYTES, QUICK_MEGABYTES = (1, 10, 100, 1000), (1, 4, 16)
OURS, PEER = "ours", "stock"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a corpus file; unset: MedQuAD")
    parser.add_argument("--output_dir", default="runs/benchmarks", help="folder of the pictures")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 1 with --quick, else 3")


def run(
    quick: bool, corpus: str | None = None, output_dir: str = "runs/benchmarks", rounds: int | None = None
) -> Result:
    path, notes = corpus_path(corpus)
    texts = read_texts(path)
    rounds = rounds or (1 if quick else 3)
    batch_tokens = BATCH_TOKENS if quick else (*BATCH_TOKENS, *MORE_BATCH_TOKENS)
    megabytes = QUICK_MEGABYTES if quick else MEGABYTES
    result = Result(notes=notes)
    with tempfile.TemporaryDirectory() as work_dir:
        race = _Race(texts[:2_000], Path(work_dir), rounds)
        by_length = {length: race.run(length, 2048 if quick else 4096) for length in LENGTHS}
        by_batch = {tokens: race.run(128, tokens) for tokens in batch_tokens}
        by_size = {size: _read(texts, size, race.tokenizer, Path(work_dir)) for size in megabytes}
    _report_training("sequence length", by_length, output_dir, result)
    _report_training("tokens a batch", by_batch, output_dir, result)
    _report_reading(by_size, output_dir, result)
    return result


class _Race:
    """Packed training of MiniLM, ours beside the stock Trainer in the precision that the machine multiplies in."""

    def __init__(self, texts: list[str], work_dir: Path, rounds: int):
        self.texts, self.work_dir, self.rounds = texts, work_dir, rounds
        self.tokenizer, _ = load_tokenizer_for(texts)
        self.start: nn.Module = load_masked_lm("minilm")
        self.store = build_store(texts, self.tokenizer, work_dir)

    def run(self, max_seq_length: int, batch_tokens: int) -> Laps:
        """Laps of both sides at one length and one size of a batch."""
        rows = build_rows(self.store, self.tokenizer, max_seq_length, line_by_line=False)
        dataset = build_stock_dataset(self.texts, self.tokenizer, max_seq_length, line_by_line=False)
        sides = {
            OURS: partial(our_trainer, self.start, rows),
            PEER: partial(stock_trainer, self.start, dataset, bf16=supports_bfloat16("cpu")),
        }

        def build(side: str, max_steps: int, seed: int):
            return sides[side](
                tokenizer=self.tokenizer,
                output_dir=str(self.work_dir),
                batch_size=batch_tokens // max_seq_length,
                max_steps=max_steps,
                seed=seed,
            )

        count = count_real_tokens(self.tokenizer.pad_token_id)
        steps = max(1, 4096 // batch_tokens)
        return alternate({side: training_contestant(partial(build, side), count, steps) for side in sides}, self.rounds)


def _read(
    texts: list[str], megabytes: float, tokenizer: PreTrainedTokenizerFast, work_dir: Path
) -> tuple[float, float]:
    """(seconds, peak MB) of reading a corpus of a size to ids and a few batches, process start included."""
    path = write_corpus(texts, work_dir / "large.jsonl", megabytes)
    tokenizer.save_pretrained(work_dir / "tokenizer")
    begin = time.perf_counter()
    _, peak = call_in_subprocess(
        read_corpus, path=str(path), tokenizer_dir=str(work_dir / "tokenizer"), work_dir=str(work_dir)
    )
    return time.perf_counter() - begin, peak / 1e6


def _report_training(title: str, laps_at: dict[int, Laps], output_dir: str, result: Result) -> None:
    rows = [
        [str(x), *(number(laps.rate(side)) for side in (OURS, PEER)), f"{laps.ratio(OURS, PEER):.2f} x"]
        for x, laps in laps_at.items()
    ]
    result.tables.append(Table(f"MiniLM, packed, by {title}", [title, OURS, PEER, "ours is faster"], rows))
    result.values[title] = {x: laps.to_json() for x, laps in laps_at.items()}
    curves = {side: [laps.rate(side) for laps in laps_at.values()] for side in (OURS, PEER)}
    name = title.replace(" ", "_")
    _draw(list(laps_at), {"real tokens a second": curves}, title, Path(output_dir, f"scaling_{name}.png"))


def _report_reading(reading_of: dict[float, tuple[float, float]], output_dir: str, result: Result) -> None:
    rows = [[f"{size} MB", number(seconds, 1), number(peak)] for size, (seconds, peak) in reading_of.items()]
    header = ["corpus", "seconds", "peak, MB"]
    result.tables.append(Table("ours, corpus to ids and twenty batches, in a process of its own", header, rows))
    result.values["corpus size"] = {size: {"seconds": s, "peak_megabytes": p} for size, (s, p) in reading_of.items()}
    seconds, peaks = zip(*reading_of.values())
    panels = {"seconds": {OURS: seconds}, "peak memory, MB": {OURS: peaks}}
    _draw(list(reading_of), panels, "corpus, MB", Path(output_dir, "scaling_corpus_size.png"))


def _draw(x: Sequence[float], panels: dict[str, dict[str, Sequence[float]]], x_label: str, path: Path) -> None:
    """One panel for each unit, x on a logarithmic scale."""
    figure = Figure(figsize=(6, 0.7 + 2.6 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for ax, (unit, curves) in zip(axes, panels.items()):
        for (name, values), style in zip(curves.items(), ("o-", "s--")):
            ax.plot(x, values, style, label=name)
        ax.set(xscale="log", ylabel=unit, xticks=list(x), xticklabels=[f"{value:g}" for value in x])
        ax.minorticks_off()
        ax.grid(alpha=0.3)
        ax.margins(y=0.2)  # room for the legend
        ax.set_ylim(bottom=0)
        if len(curves) > 1:
            ax.legend(loc="lower left")
    axes[-1].set_xlabel(x_label)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
