"""Batch 8 = 4 accumulated twice = two processes of 4? Stage 1 and the library's Trainer on the same small BERT.

The library's Trainer gets rows that are masked beforehand, so that nothing but the split can change a number (its own
collator draws masks as it goes). The control is this package with a loss that is the mean of each batch.
"""

import argparse
import json
import math
import os
import random
import socket
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    Trainer,
    TrainingArguments,
)

from benchmarks.forks import Fork
from benchmarks.result import Result, Table
from benchmarks.tiny_runs import CORPUS, MODEL, NUM_EVAL, NUM_TEXTS, SCHEDULE, Run, stage_1, stock_rows
from pair_pkg.mlm.loss import masked_lm_loss
from pair_pkg.records import read_json, read_record
from pair_pkg.stages import mlm_trainer

STEPS, SPLITS = 6, ("4 accumulated twice", "two processes of 4")
SHAPE = {"max_steps": STEPS, "logging_steps": 1, "save_strategy": "no", "adam_epsilon": 1e-6,
         "per_device_train_batch_size": 8}  # fmt: skip
CUT = {"per_device_train_batch_size": 4}
FLAGS = {SPLITS[0]: {**CUT, "gradient_accumulation_steps": 2, "per_device_eval_batch_size": 3},
         SPLITS[1]: {**CUT, "ddp_backend": "gloo"}}  # fmt: skip
METRICS = "metrics.json"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES))


def run(quick: bool, sides: list[str] | None = None) -> Result:
    rows, values = [], {}
    for side in sides or list(SIDES):
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            values[side] = differences(SIDES[side], Path(folder))
        for split, found in values[side].items():
            seconds = round(time.perf_counter() - begin)
            rows.append([f"{side}, {split}", *(f"{value:.1e}" for value in found.values()), seconds])
    header = ["", "loss", "gradient norm", "weights", "perplexity", "s"]
    title = f"Largest difference from batches of 8, over {STEPS} steps (perplexity: relative)"
    return Result([Table(title, header, rows)], {"differences": values})


def differences(build: Callable[..., Run], folder: Path, splits: tuple[str, ...] = SPLITS) -> dict[str, dict]:
    """By split: the largest absolute differences of what is logged and of the weights, the relative of perplexity."""
    torch.set_num_threads(1)
    model = str(_save_bert(folder / "bert"))
    whole = _finish(build(folder, model, **SHAPE), folder / "whole", num_processes=1)
    found = {}
    for number, split in enumerate(splits):
        target = build(folder, model, **{**SHAPE, **FLAGS[split]})
        cut = _finish(target, folder / f"cut{number}", num_processes=2 if split == SPLITS[1] else 1)
        logged, perplexity = (np.abs(np.subtract(cut[name], whole[name])) for name in ("logged", "perplexity"))
        weights = [(cut["weights"][name] - value).abs().max().item() for name, value in whole["weights"].items()]
        loss, norm = logged.max(axis=0).tolist()
        relative = float(perplexity) / whole["perplexity"]
        found[split] = {"loss": loss, "gradient norm": norm, "weights": max(weights), "perplexity": relative}
    return found


def _save_bert(folder: Path) -> Path:
    """A BERT without dropout that knows the sample domain's words; its loss ignores what the Trainer tells it."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64)
    none = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **none)
    with torch.random.fork_rng():
        torch.manual_seed(13)
        BertForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _finish(target: Run, place: Path, num_processes: int) -> dict[str, Any]:
    """Run to the end, as a launcher would start it where there are several processes."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]

    def as_rank(rank: int) -> Run:
        ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": num_processes, "LOCAL_WORLD_SIZE": num_processes}
        variables = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, **ranks} if num_processes > 1 else {}

        def run_target(_: Path) -> int:
            os.environ.update({name: str(value) for name, value in variables.items()})
            return target(place)

        return run_target

    forks = [Fork(as_rank(rank), place.with_name(f"{place.name}-{rank}")) for rank in range(num_processes)]
    for fork in forks:
        assert fork.wait() == 0, fork.log()
    entries = [entry for entry in read_json(place / "log_history.json") if "grad_norm" in entry]
    metrics = read_json(place / METRICS) if (place / METRICS).is_file() else read_record(place)["metrics"]
    return {
        "logged": [(entry["loss"], entry["grad_norm"]) for entry in entries],
        "perplexity": metrics["eval_perplexity"],
        "weights": load_file(place / "model.safetensors"),
    }


def _ours(work_dir: Path, model: str, **flags: Any) -> Run:
    none = {"attention_probs_dropout_prob": 0, "hidden_dropout_prob": 0}
    return stage_1(work_dir, model_name_or_path=model, eval_strategy="no", report_slices="false", **none, **flags)


def _control(work_dir: Path, model: str, **flags: Any) -> Run:
    target = _ours(work_dir, model, **flags)

    def careless(place: Path) -> int:
        mlm_trainer.masked_lm_loss = lambda outputs, labels, num_items_in_batch=None: masked_lm_loss(outputs, labels)
        return target(place)

    return careless


def _stock(work_dir: Path, model: str, **arguments: Any) -> Run:
    """Rows that are masked once, by the library's collator, and only padded from then on."""
    texts = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()[:NUM_TEXTS]]

    def train(place: Path) -> int:
        tokenizer = AutoTokenizer.from_pretrained(model)
        torch.manual_seed(1)
        random.seed(1)
        mask = DataCollatorForLanguageModeling(tokenizer)
        masked = [{name: value[0] for name, value in mask([row]).items()} for row in stock_rows(tokenizer, texts)]
        trainer = Trainer(
            model=AutoModelForMaskedLM.from_pretrained(model, dtype=torch.float32),
            args=TrainingArguments(output_dir=str(place), use_cpu=True, disable_tqdm=True, **{**SCHEDULE, **arguments}),
            train_dataset=masked[:-NUM_EVAL],
            eval_dataset=masked[-NUM_EVAL:],
            data_collator=DataCollatorForTokenClassification(tokenizer),
        )
        trainer.train()
        loss = trainer.evaluate()["eval_loss"]
        trainer.save_model()
        if trainer.args.should_save:
            (place / "log_history.json").write_text(json.dumps(trainer.state.log_history))
            (place / METRICS).write_text(json.dumps({"eval_perplexity": math.exp(loss)}))
        return 0

    return train


SIDES: dict[str, Callable[..., Run]] = {"ours": _ours, "control: means": _control, "stock Trainer": _stock}
