"""A bi-encoder on the English STS benchmark: ours against the same training by sentence-transformers alone.

Same weights, data, loss (CoSENT), batch, rate, schedule and seeds on both sides; what is compared is the Spearman
correlation on the test part, and the seconds of training.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.sentence_transformer.losses import CoSENTLoss

from benchmarks.inputs import ROOT, minilm_dir
from benchmarks.mlm_sides import QUIET
from benchmarks.result import Result, Table, number
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.errors import InputError
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.report.numbers import format_change
from pair_pkg.report.statistics import compare_metrics
from pair_pkg.stages import finetune
from pair_pkg.stages.predictions import read_predictions

STSB = ROOT.parent / "shared/data/stsb_en"
MAX_SEQ_LENGTH = 128
BATCH_SIZE, LEARNING_RATE, WARMUP = 16, 2e-5, 0.1  # of sentence-transformers' own STS benchmark example
OURS = "ours"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", help="a folder with train.csv, dev.csv and test.csv of scored pairs; unset: STS-B")
    parser.add_argument("--epochs", type=int, help="unset: 1 with --quick, else 4")
    parser.add_argument("--seeds", type=int, nargs="+", help="unset: 1 with --quick, else 1 2 3")


def run(quick: bool, data: str | None = None, epochs: int | None = None, seeds: Sequence[int] | None = None) -> Result:
    folder = Path(data) if data else STSB
    if not (folder / "train.csv").is_file():
        raise InputError(f"{folder}: holds no train.csv; name the folder of the STS benchmark with --data")
    seeds, epochs = seeds or ([1] if quick else [1, 2, 3]), epochs or (1 if quick else 4)
    parts = {name: load_pairs([str(folder / f"{name}.csv")], labelled=True)[0] for name in ("train", "test")}
    precisions = {"float32": False, "bfloat16": True} if supports_bfloat16("cpu") else {"float32": False}
    peers = {f"SentenceTransformerTrainer, {name}": bf16 for name, bf16 in precisions.items()}
    scores: dict[str, list[np.ndarray]] = {name: [] for name in (OURS, *peers)}
    seconds: dict[str, list[float]] = {name: [] for name in scores}
    with tempfile.TemporaryDirectory() as work_dir:
        for seed in seeds:
            ours, elapsed, groups = _train_ours(folder, Path(work_dir, f"ours-{seed}"), epochs, seed)
            results = {OURS: (ours, elapsed)}
            for name, bf16 in peers.items():
                results[name] = _train_peer(parts, Path(work_dir, f"peer-{seed}"), epochs, seed, bf16)
            for name, (test_scores, elapsed) in results.items():
                scores[name].append(test_scores)
                seconds[name].append(elapsed)
    return _result(parts["test"], groups, scores, seconds, f"STS-B, {epochs} epochs, {len(seeds)} seeds")


def _train_ours(folder: Path, output_dir: Path, epochs: int, seed: int) -> tuple[np.ndarray, float, np.ndarray]:
    """Test scores, seconds of training, and the groups of test pairs that share a text."""
    metrics = finetune.run(
        [
            f"--model_name_or_path={minilm_dir()}",
            "--architecture=bi_encoder",
            "--pooling=mean",
            "--loss=cosent",
            f"--train_file={folder / 'train.csv'}",
            f"--validation_file={folder / 'dev.csv'}",
            f"--test_file={folder / 'test.csv'}",
            "--allow_leaks",  # the published splits share texts; both sides learn from the same rows
            f"--max_seq_length={MAX_SEQ_LENGTH}",
            f"--output_dir={output_dir}",
            "--eval_strategy=no",
            *(f"--{name}={value}" for name, value in _shared(epochs, seed).items()),
        ]
    )
    predictions = read_predictions(output_dir)
    return predictions.scores, metrics["train_runtime"], predictions.groups()


def _train_peer(
    parts: dict[str, Pairs], output_dir: Path, epochs: int, seed: int, bf16: bool
) -> tuple[np.ndarray, float]:
    """Cosines of the test pairs and seconds of training."""
    torch.manual_seed(seed)
    model = SentenceTransformer(minilm_dir(), device="cuda" if torch.cuda.is_available() else "cpu")
    model.max_seq_length = MAX_SEQ_LENGTH
    train = parts["train"]
    low, high = float(train.labels.min()), float(train.labels.max())
    dataset = Dataset.from_dict(
        {
            "sentence1": train.sentence1,
            "sentence2": train.sentence2,
            "label": ((train.labels - low) / (high - low)).astype(float).tolist(),
        }
    )
    args = SentenceTransformerTrainingArguments(
        output_dir=str(output_dir), bf16=bf16, use_cpu=not torch.cuda.is_available(), **_shared(epochs, seed)
    )
    trainer = SentenceTransformerTrainer(model, args, dataset, loss=CoSENTLoss(model))
    begin = time.perf_counter()
    trainer.train()
    elapsed = time.perf_counter() - begin
    columns = (parts["test"].sentence1, parts["test"].sentence2)
    vectors1, vectors2 = (model.encode(column, normalize_embeddings=True).astype(np.float64) for column in columns)
    return (vectors1 * vectors2).sum(1), elapsed


def _shared(epochs: int, seed: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": BATCH_SIZE,
        "num_train_epochs": epochs,
        "learning_rate": LEARNING_RATE,
        "warmup_steps": WARMUP,
        "seed": seed,
        "logging_strategy": "no",
        **QUIET,
    }


def _result(
    test: Pairs, groups: np.ndarray, scores: dict[str, list[np.ndarray]], seconds: dict[str, list[float]], title: str
) -> Result:
    rows, values = [], {}
    for name, by_seed in scores.items():
        # the peer takes the base's place: a positive difference says that ours is better
        sides = test.labels, np.stack(by_seed), np.stack(scores[OURS])
        difference = compare_metrics("scores", *sides, groups=groups, num_resamples=10_000, seed=0)["spearman"]
        ratios = [theirs / ours for theirs, ours in zip(seconds[name], seconds[OURS])]
        is_peer = name != OURS
        low, high = (format_change("spearman", value) for value in (difference.low, difference.high))
        rows.append(
            [
                name,
                number(difference.base, 4),
                format_change("spearman", difference.difference) if is_peer else None,
                f"{low} to {high}" if is_peer else None,
                number(float(np.median(seconds[name])), 1),
                f"{np.median(ratios):.2f} x" if is_peer else None,
            ]
        )
        values[name] = {"spearman": asdict(difference), "seconds": seconds[name]}
    header = ["", "test Spearman", "ours minus it", "95 % interval", "training seconds", "ours is faster"]
    return Result([Table(title, header, rows)], {"sides": values})
