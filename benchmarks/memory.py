"""Peak memory: one MLM step of ours beside the stock one, and what a hundred times the corpus adds to ours."""

import argparse
import itertools
import tempfile
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from benchmarks.corpora import write_corpus
from benchmarks.inputs import corpus_path, load_masked_lm, load_tokenizer_for, read_texts
from benchmarks.mlm_sides import build_rows, build_stock_dataset, build_store, our_trainer, stock_trainer
from benchmarks.result import Result, Table, number
from benchmarks.timing import call_in_subprocess, mapped_file_bytes, peak_bytes
from benchmarks.tokenize import build_store_of_file
from pair_pkg.data.batches import TrainSampler

BATCH_SIZE, MAX_SEQ_LENGTH = 32, 128
NUM_DOCUMENTS = 200
SMALL_MEGABYTES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a corpus file; unset: MedQuAD")
    parser.add_argument("--megabytes", type=float, help="the large corpus; unset: 200 with --quick, else 1000")


def run(quick: bool, corpus: str | None = None, megabytes: float | None = None) -> Result:
    source, notes = corpus_path(corpus)
    texts = read_texts(source)
    result = Result(notes=notes)
    with tempfile.TemporaryDirectory() as work_dir:
        _compare_steps(texts[:NUM_DOCUMENTS], work_dir, result)
        _compare_corpora(texts, megabytes or (200 if quick else 1000), Path(work_dir), result)
    return result


def step_of_ours(texts: list[str], work_dir: str) -> int:
    """Two steps of ours; returns the process's peak before the model was loaded."""
    tokenizer, _ = load_tokenizer_for(texts)
    rows = build_rows(build_store(texts, tokenizer, Path(work_dir)), tokenizer, MAX_SEQ_LENGTH, line_by_line=False)
    before = peak_bytes()
    start = load_masked_lm("minilm")
    our_trainer(start, rows, tokenizer, work_dir, batch_size=BATCH_SIZE, max_steps=2, seed=1).train()
    return before


def step_of_stock(texts: list[str], work_dir: str) -> int:
    """Two stock steps in float32; returns the process's peak before the model was loaded."""
    tokenizer, _ = load_tokenizer_for(texts)
    dataset = build_stock_dataset(texts, tokenizer, MAX_SEQ_LENGTH, line_by_line=False)
    before = peak_bytes()
    start = load_masked_lm("minilm")
    stock_trainer(start, dataset, tokenizer, work_dir, batch_size=BATCH_SIZE, max_steps=2, seed=1, bf16=False).train()
    return before


def read_corpus(path: str, tokenizer_dir: str, work_dir: str) -> tuple[int, int]:
    """Tokenize a corpus and build twenty batches: (tokens, peak bytes of the process's own memory).

    Its own is what no file stands behind: batches map more pages of a large store than of a small one, up to 128 kB for
    each row, and the kernel takes them back when it needs them.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    store = build_store_of_file(path, tokenizer, work_dir)
    rows = build_rows(store, tokenizer, MAX_SEQ_LENGTH, line_by_line=False)
    own = peak_bytes() - mapped_file_bytes()
    for items in itertools.islice(TrainSampler(len(rows), BATCH_SIZE, seed=1), 20):
        rows.build_batch(items)
    return store.num_tokens, own


def _compare_steps(texts: list[str], work_dir: str, result: Result) -> None:
    peaks = {}
    for name, function in {"ours": step_of_ours, "stock, float32": step_of_stock}.items():
        before, peak = call_in_subprocess(function, texts=texts, work_dir=work_dir)
        peaks[name] = {"peak_bytes": peak, "before_the_model_bytes": before}
    whole = peaks["stock, float32"]["peak_bytes"]
    rows = [
        [name, *(number(sizes[key] / 1e6) for key in ("peak_bytes", "before_the_model_bytes")),
         f"{sizes['peak_bytes'] / whole:.2f} x"]
        for name, sizes in peaks.items()
    ]  # fmt: skip
    title = f"peak memory of a training process, MiniLM, {BATCH_SIZE} x {MAX_SEQ_LENGTH}"
    result.tables.append(Table(title, ["", "peak, MB", "of it before the model", "of the stock peak"], rows))
    result.values["step"] = peaks


def _compare_corpora(texts: list[str], megabytes: float, work_dir: Path, result: Result) -> None:
    tokenizer, notes = load_tokenizer_for(texts)
    tokenizer.save_pretrained(work_dir / "tokenizer")
    rows, peaks, own_peaks = [], {}, {}
    for size in (SMALL_MEGABYTES, megabytes):
        path = write_corpus(texts, work_dir / "large.jsonl", size)
        (tokens, own), peak = call_in_subprocess(
            read_corpus, path=str(path), tokenizer_dir=str(work_dir / "tokenizer"), work_dir=str(work_dir)
        )
        peaks[f"{size:g} MB"], own_peaks[f"{size:g} MB"] = peak, own
        rows.append([f"{size:g} MB", number(tokens), number(own / 1e6), number(peak / 1e6)])
    large, small = f"{megabytes:g} MB", f"{SMALL_MEGABYTES} MB"
    growth, mapped = ((values[large] - values[small]) / 1e6 for values in (own_peaks, peaks))
    rows.append(["growth", None, number(growth), number(mapped)])
    header = ["corpus", "tokens", "peak of its own memory, MB", "and with the mapped store"]
    result.tables.append(Table("ours: corpus to ids and twenty batches", header, rows))
    result.values["corpus"] = {
        "peak_bytes": peaks,
        "own_peak_bytes": own_peaks,
        "growth_megabytes": round(growth, 1),
    }
    result.notes += notes
