"""Runs of a second or two that the proofs of reliability kill, damage and continue: both stages and the stock Trainer.

A target takes a folder and trains into it; given again, it goes on from what stands there.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    Trainer,
    TrainingArguments,
)
from transformers.trainer_utils import get_last_checkpoint

from pair_pkg.errors import run_door
from pair_pkg.records import file_sha256
from pair_pkg.stages import adapt, finetune

ROOT = Path(__file__).parents[1]
MODEL, CORPUS, PAIRS = ROOT / "data/tiny_encoder", ROOT / "data/corpus.jsonl", ROOT / "data/pairs.csv"
STEPS, NUM_PAIRS, NUM_TEXTS, NUM_EVAL = 12, 200, 200, 40
STATE_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state*.pth")
TIMINGS = ("tokens_per_second", "runtime", "per_second", "total_flos", "train_loss")
SCHEDULE = {"max_steps": STEPS, "save_steps": 3, "logging_steps": 2, "save_strategy": "steps", "seed": 1,
            "per_device_train_batch_size": 4, "learning_rate": 1e-3, "report_to": "none"}  # fmt: skip
EVALUATION = {"eval_strategy": "steps", "eval_steps": 4}
Run = Callable[[Path], int]


def stage_1_words(work_dir: Path, **flags: Any) -> list[str]:
    """The flags of a small run of stage 1, but for its folder."""
    corpus = work_dir / "corpus.jsonl"
    corpus.write_text("".join(CORPUS.read_text(encoding="utf-8").splitlines(keepends=True)[:NUM_TEXTS]))
    own = {"train_file": corpus, "token_cache_dir": work_dir / "tokens", "max_eval_samples": NUM_EVAL,
           "attention_probs_dropout_prob": 0.1}  # fmt: skip
    return _words(**{**EVALUATION, **own, **flags})


def stage_1(work_dir: Path, **flags: Any) -> Run:
    """Stage 1 on texts of the sample domain, with dropout."""
    words = stage_1_words(work_dir, **flags)
    return lambda place: run_door(adapt.main, [*words, f"--output_dir={place}"])


def stage_2(work_dir: Path, **flags: Any) -> Run:
    """Stage 2 on pairs of the sample domain."""
    pairs = work_dir / "pairs.csv"
    pairs.write_text("".join(PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[: NUM_PAIRS + 1]))
    words = _words(**{"train_file": pairs, "frozen_baseline": "false", **EVALUATION, **flags})
    return lambda place: run_door(finetune.main, [*words, f"--output_dir={place}"])


def stock(work_dir: Path, num_texts: int = NUM_TEXTS, **arguments: Any) -> Run:
    """What the library's examples do: a collator that draws masks as it goes, and ``resume_from_checkpoint``."""
    texts = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()[:num_texts]]

    def train(place: Path) -> int:
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        rows = stock_rows(tokenizer, texts)
        torch.manual_seed(1)
        trainer = Trainer(
            # Its file is float16, and transformers 5 would train in that: AdamW's epsilon is 0 there, all weights NaN.
            model=AutoModelForMaskedLM.from_pretrained(MODEL, dtype=torch.float32),
            args=TrainingArguments(
                output_dir=str(place), use_cpu=True, **{**SCHEDULE, **EVALUATION, "disable_tqdm": True, **arguments}
            ),
            train_dataset=rows[:-NUM_EVAL],
            eval_dataset=rows[-NUM_EVAL:],
            data_collator=DataCollatorForLanguageModeling(tokenizer),
        )
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(place)) if place.is_dir() else None)
        trainer.save_model()
        return 0

    return train


def stock_rows(tokenizer: Any, texts: list[str]) -> list[Any]:
    """The texts as a stock collator takes them."""
    return [tokenizer(text, truncation=True, max_length=64, return_special_tokens_mask=True) for text in texts]


def final_state(place: Path) -> dict[str, Any]:
    """Digests of the last checkpoint's weights, optimizer, schedule and random state, and the log without timings."""
    last = max(place.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    files = [path for pattern in STATE_FILES for path in sorted(last.glob(pattern))]
    state: dict[str, Any] = {path.name: file_sha256(path) for path in files}
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    state["log"] = [{k: v for k, v in entry.items() if not k.endswith(TIMINGS)} for entry in history]
    if (place / "model.safetensors").is_file():
        state["final model"] = file_sha256(place / "model.safetensors")
    return state


def differing(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The parts of two states that are not the same."""
    return [name for name in {**expected, **found} if found.get(name) != expected.get(name)]


def _words(**flags: Any) -> list[str]:
    common = {"model_name_or_path": MODEL, "max_seq_length": 64, "bf16": "false", "use_cpu": "true"}
    return [f"--{name}={value}" for name, value in {**common, **SCHEDULE, **flags}.items()]
