"""Corpus to ids, from a file to ids on disk by both cores: ours against ``run_mlm.py``'s map and group."""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import datasets
from transformers import PreTrainedTokenizerFast

from benchmarks.corpora import write_corpus
from benchmarks.inputs import corpus_path, load_tokenizer_for, read_texts
from benchmarks.mlm_sides import build_rows, stock_map
from benchmarks.result import Result, comparison
from benchmarks.timing import Contestant, Lap, alternate, call_in_subprocess
from benchmarks.training_laps import best_batch_size
from pair_pkg.data.corpus import CorpusAudit, clean_documents, read_documents
from pair_pkg.data.tokens import TokenStore, load_or_build_store
from pair_pkg.records import fingerprint_files

MAX_SEQ_LENGTH = 128
LIBRARY_BATCH_SIZE = 1000  # texts in a batch of map, its default
BATCH_SIZES = (100, LIBRARY_BATCH_SIZE)
OURS = "ours"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--corpus", help="a corpus file; unset: MedQuAD")
    parser.add_argument("--megabytes", type=float, help="size of the corpus; unset: 10 with --quick, else 60")
    parser.add_argument("--num_proc", type=int, default=2, help="processes of the peer's map")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of laps")


def run(
    quick: bool, corpus: str | None = None, megabytes: float | None = None, num_proc: int = 2, rounds: int = 3
) -> Result:
    source, notes = corpus_path(corpus)
    texts = read_texts(source)
    with tempfile.TemporaryDirectory() as work_dir:
        path = write_corpus(texts, Path(work_dir, "corpus.jsonl"), megabytes or (10 if quick else 60))
        size = path.stat().st_size / 1e6
        tokenizer, more_notes = load_tokenizer_for(texts)
        tokenizer.save_pretrained(Path(work_dir, "tokenizer"))
        arguments = {"path": str(path), "tokenizer_dir": str(Path(work_dir, "tokenizer"))}

        def stock(batch_size: int) -> Contestant:
            return partial(_lap, stock_seconds, size, num_proc=num_proc, batch_size=batch_size, **arguments)

        best, _ = best_batch_size(BATCH_SIZES, stock)
        peers = {
            f"datasets' map and group, {num_proc} processes, batches of {batch_size:,}": stock(batch_size)
            for batch_size in sorted({best, LIBRARY_BATCH_SIZE})
        }
        laps = alternate({OURS: partial(_lap, ours_seconds, size, **arguments), **peers}, rounds)
    title = f"corpus of {size:.0f} MB to packed rows of {MAX_SEQ_LENGTH} ids"
    return Result([comparison(title, "MB/s", laps, OURS)], {"megabytes_per_second": laps.to_json()}, notes + more_notes)


def ours_seconds(path: str, tokenizer_dir: str) -> float:
    """Seconds from a file to our store and rows; imports are not counted."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as cache_dir:
        begin = time.perf_counter()
        build_rows(build_store_of_file(path, tokenizer, cache_dir), tokenizer, MAX_SEQ_LENGTH, line_by_line=False)
        return time.perf_counter() - begin


def build_store_of_file(path: str, tokenizer: PreTrainedTokenizerFast, cache_dir: str) -> TokenStore:
    """What ``run_mlm.py --train_file`` does before the first row is cut."""
    audit = CorpusAudit()
    return load_or_build_store(
        cache_dir,
        fingerprint_files([path]),
        tokenizer,
        lambda: (
            document.text
            for document in clean_documents(read_documents([Path(path)]), audit, digest_dir=Path(cache_dir))
        ),
        lambda: asdict(audit),
        quiet=True,
    )


def stock_seconds(path: str, tokenizer_dir: str, num_proc: int, batch_size: int) -> float:
    """Seconds from a file to the library's grouped rows in its cache; imports are not counted."""
    datasets.disable_progress_bars()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tokenizer_dir)
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as cache_dir:
        begin = time.perf_counter()
        dataset = datasets.load_dataset("json", data_files=path, split="train", cache_dir=cache_dir)
        stock_map(dataset, tokenizer, MAX_SEQ_LENGTH, line_by_line=False, num_proc=num_proc, batch_size=batch_size)
        return time.perf_counter() - begin


def _lap(seconds_of: Callable[..., float], size: float, **arguments: object) -> Lap:
    """A lap in a process of its own: neither side finds threads, caches or forks of the other."""
    seconds, _ = call_in_subprocess(seconds_of, **arguments)
    return Lap(size, seconds)
