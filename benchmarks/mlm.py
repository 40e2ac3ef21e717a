"""MLM training: real tokens a second, ours against the library's Trainer in float32 and at its best in bfloat16."""

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from benchmarks.ablation import run_ablation
from benchmarks.arithmetic import Shape, training_flops_per_token
from benchmarks.hardware import matrix_product
from benchmarks.inputs import SHAPES, corpus_path, load_masked_lm, load_tokenizer_for, read_texts
from benchmarks.mlm_sides import build_rows, build_stock_dataset, build_store, describe_rows, our_trainer, stock_trainer
from benchmarks.result import Result, comparison, number
from benchmarks.timing import Contestant, Laps, alternate
from benchmarks.training_laps import best_batch_size, count_real_tokens, training_contestant
from pair_pkg.modeling.precision import supports_bfloat16

BATCH_SIZE = 32
CEILING = "bfloat16 matrix product"
OURS = "ours"
JOB_SHAPES = ("minilm", "bert-base")


@dataclass(frozen=True)
class Job:
    """One row of the issue's table: a shape, rows of a length, and the peers to meet."""

    name: str
    shape: str
    max_seq_length: int
    line_by_line: bool = False
    float32_peer: bool = True
    candidates: tuple[int, ...] = (BATCH_SIZE,)  # batch sizes of the peer in bfloat16, ascending
    widen: bool = False  # where the best of them is the first or the last, halves or doubles are tried too


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    rounds: int
    lap_tokens: int  # a lap has as many steps as this takes, at least one
    max_documents: int

    def steps(self, batch_tokens: int) -> int:
        return max(1, round(self.lap_tokens / batch_tokens))


QUICK, FULL = Effort(3, 4_096, 2_000), Effort(5, 16_384, 8_000)
MOST_TRIED_TOKENS = 16_384  # of a batch: the library's logits of these take 2 GB, a few times over


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a corpus file; unset: MedQuAD")
    parser.add_argument("--shapes", nargs="+", choices=JOB_SHAPES, help="unset: minilm, and without --quick bert-base")
    parser.add_argument("--ablation", action="store_true", help="ours with one technique at a time switched off")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 3 with --quick, else 5")


def run(
    quick: bool,
    corpus: str | None = None,
    shapes: Sequence[str] | None = None,
    ablation: bool = False,
    rounds: int | None = None,
) -> Result:
    effort = QUICK if quick else FULL
    effort = Effort(rounds or effort.rounds, effort.lap_tokens, effort.max_documents)
    path, notes = corpus_path(corpus)
    texts = read_texts(path, effort.max_documents)
    result = Result(notes=notes)
    with tempfile.TemporaryDirectory() as work_dir:
        if ablation:
            run_ablation(texts, effort.rounds, 2 if quick else 6, work_dir, result, both_lengths=not quick)
            return result
        for job in jobs(quick, shapes):
            _run_job(job, effort, texts, work_dir, result)
    return result


def jobs(quick: bool, shapes: Sequence[str] | None = None) -> list[Job]:
    """What is measured; ``quick`` leaves BERT-base out unless it is asked for, and tries fewer batch sizes."""
    short, long, large = ((16, 32), (8, 16), (32,)) if quick else ((8, 16, 32, 64), (4, 8, 16, 32), (8, 16, 32, 64))
    listed = [
        Job("MiniLM, T 128, packed", "minilm", 128, candidates=short, widen=not quick),
        Job("MiniLM, T 512, line by line", "minilm", 512, True, False, long, not quick),
        Job("BERT-base, T 128, packed", "bert-base", 128, candidates=large, widen=not quick),
    ]
    wanted = shapes or (JOB_SHAPES[:1] if quick else JOB_SHAPES)
    return [job for job in listed if job.shape in wanted]


def _run_job(job: Job, effort: Effort, texts: list[str], work_dir: str, result: Result) -> None:
    tokenizer, notes = load_tokenizer_for(texts)
    start = load_masked_lm(job.shape)
    rows = build_rows(build_store(texts, tokenizer, Path(work_dir)), tokenizer, job.max_seq_length, job.line_by_line)
    dataset = build_stock_dataset(texts, tokenizer, job.max_seq_length, job.line_by_line)
    count = count_real_tokens(tokenizer.pad_token_id)

    def stock(bf16: bool, batch_size: int) -> Contestant:
        build = partial(_build, stock_trainer, start, dataset, tokenizer, work_dir, batch_size, bf16)
        return training_contestant(build, count, effort.steps(batch_size * job.max_seq_length))

    build_ours = partial(_build, our_trainer, start, rows, tokenizer, work_dir, BATCH_SIZE, None)
    ours_steps = effort.steps(BATCH_SIZE * job.max_seq_length)
    contestants = {OURS: training_contestant(build_ours, count, ours_steps)}
    if job.float32_peer:
        contestants[f"stock, float32, batch {BATCH_SIZE}"] = stock(False, BATCH_SIZE)
    tried: dict[int, float] = {}
    if supports_bfloat16("cpu"):
        largest = MOST_TRIED_TOKENS // job.max_seq_length if job.widen else None
        best, tried = best_batch_size(job.candidates, partial(stock, True), largest)
        if job.widen and best == max(tried):
            notes.append(f"note: {job.name}: the library's best batch, {best} rows, is the largest that was tried")
        contestants[f"stock, bfloat16, batch {best}"] = stock(True, best)
        contestants[CEILING] = matrix_product(torch.bfloat16)
    else:
        notes.append("note: this processor does not multiply in bfloat16: no such peer, no such ceiling")
    laps = alternate(contestants, effort.rounds)

    attended, predicted = describe_rows(rows)
    flops = training_flops_per_token(Shape.of(SHAPES[job.shape]), attended, predicted)
    _report(job, laps, flops, result)
    result.notes += [note for note in notes if note not in result.notes]
    result.values[job.name] = {
        "units_per_second": laps.to_json(),
        "mean_keys_seen": round(attended, 1),
        "predicted_fraction": round(predicted, 4),
        "useful_mflop_per_token": round(flops / 1e6, 1),
        "stock_bfloat16_batch_sizes": {size: round(rate) for size, rate in tried.items()},
    }


def _build(trainer_of, start, dataset, tokenizer, work_dir, batch_size, bf16, max_steps: int, seed: int):
    """A trainer of either side for one lap."""
    return trainer_of(
        start, dataset, tokenizer, work_dir, batch_size=batch_size, max_steps=max_steps, seed=seed, bf16=bf16
    )


def _report(job: Job, laps: Laps, flops: float, result: Result) -> None:
    sides = Laps({name: values for name, values in laps.by_name.items() if name != CEILING})
    extra: dict[str, dict[str, object]] = {}
    if CEILING in laps.by_name:
        extra = {name: {"of the ceiling": f"{flops * laps.ratio(name, CEILING):.1%}"} for name in sides.by_name}
        ceiling = number(laps.rate(CEILING) / 1e9)
        result.notes.append(
            f"{job.name}: ceiling {ceiling} GFLOP/s in bfloat16, {flops / 1e6:.1f} useful MFLOP a token"
        )
    result.tables.append(comparison(job.name, "real tokens/s", sides, OURS, extra))
