"""A run is killed at a random instant, half of the times inside a save, and continued: is its end the same to the bit?

Each run is a fork of a process that has imported everything and computed nothing, so that a run takes a second and
``--count 200`` is a matter of minutes. The same instants are drawn for the library's Trainer with its own collator,
and for a control: this package, but taking the checkpoint of the highest number whatever it holds.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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

from benchmarks.result import Result, Table
from pair_pkg.errors import EXIT_INTERRUPTED, run_door
from pair_pkg.records import file_sha256
from pair_pkg.stages import adapt, finetune
from pair_pkg.training import checkpoints
from pair_pkg.training.durable import DurableTrainer
from pair_pkg.training.trainer import StageTrainer

ROOT = Path(__file__).parents[1]
MODEL, CORPUS, PAIRS = ROOT / "data/tiny_encoder", ROOT / "data/corpus.jsonl", ROOT / "data/pairs.csv"
STEPS, NUM_PAIRS, NUM_TEXTS = 12, 200, 200
STATE_FILES = ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth")
TIMINGS = ("tokens_per_second", "runtime", "per_second", "total_flos", "train_loss")
SCHEDULE = {"max_steps": STEPS, "save_steps": 3, "logging_steps": 2, "save_strategy": "steps", "seed": 1,
            "per_device_train_batch_size": 4, "learning_rate": 1e-3, "report_to": "none"}  # fmt: skip
Run = Callable[[Path], int]


@dataclass(frozen=True)
class Outcome:
    """What a killed run was and became."""

    inside_a_save: bool
    is_equal: bool
    why: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, help="kills of each side; unset: 6 with --quick, else 200")
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL", help="what the run is sent")
    parser.add_argument("--sides", nargs="+", choices=list(SIDES), default=list(SIDES), help="who is killed")
    parser.add_argument("--seed", type=int, default=0, help="of the instants")


def run(
    quick: bool, count: int | None = None, signal: str = "KILL", sides: list[str] | None = None, seed: int = 0
) -> Result:
    count = count or (6 if quick else 200)
    rows, values = [], {}
    with tempfile.TemporaryDirectory() as work_dir:
        for side in sides or list(SIDES):
            begin = time.perf_counter()
            outcomes = kill_and_continue(SIDES[side](Path(work_dir)), Path(work_dir, side), count, signal, seed)
            inside = [outcome for outcome in outcomes if outcome.inside_a_save]
            seconds = round(time.perf_counter() - begin)
            rows.append(
                [side, *(f"{sum(o.is_equal for o in part)} of {len(part)}" for part in (outcomes, inside)), seconds]
            )
            values[side] = [{"inside_a_save": o.inside_a_save, "equal": o.is_equal, "why": o.why} for o in outcomes]
    title = f"SIG{signal} at a random instant of {STEPS} steps, then continued: equal to the bit"
    return Result([Table(title, ["", "all", "inside a save", "seconds"], rows)], {"outcomes": values})


def kill_and_continue(target: Run, folder: Path, count: int, signal_name: str, seed: int) -> list[Outcome]:
    """``count`` runs of ``target``, each signalled once and then run to its end, against one that was left alone."""
    folder.mkdir(parents=True)
    torch.set_num_threads(1)
    begin = time.perf_counter()
    draw = random.Random(seed)
    whole = _Child(target, folder / "whole")
    status = whole.wait()
    assert status == 0, whole.log()
    expected = final_state(folder / "whole")
    begins, ends = whole.times(b"s"), whole.times(b"e")
    save_seconds = sum(end - begin for begin, end in zip(begins, ends)) / len(ends)
    outcomes: list[Outcome] = []
    while len(outcomes) < count:
        place = folder / f"run{len(outcomes)}"
        child = _Child(target, place)
        if len(outcomes) % 2:
            child.sleep_until_save(draw.randrange(len(begins)) + 1)
            time.sleep(draw.uniform(0, save_seconds))
        else:
            time.sleep(draw.uniform(0.02, whole.seconds))  # by then it has its handlers
        sent = child.send(getattr(signal, f"SIG{signal_name}"))
        status = child.wait()
        if sent and status:  # else it was faster, and another instant is drawn
            fault = "" if signal_name == "KILL" or status == EXIT_INTERRUPTED else f"exit status {status}"
            outcomes.append(_continued(target, place, expected, child.is_in_save(), fault))
            seconds = round(time.perf_counter() - begin)  # told at once: two hundred take a while
            print(f"{folder.name} {len(outcomes)}: {outcomes[-1]}, {seconds} s", file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
    return outcomes


def _continued(target: Run, place: Path, expected: dict[str, Any], inside: bool, fault: str) -> Outcome:
    child = _Child(target, place)
    status = child.wait()
    if status:
        last = child.log().strip().splitlines()[-1:]
        return Outcome(inside, False, f"exit status {status} when continued: {last}")
    found = final_state(place)
    differing = [name for name in expected if found.get(name) != expected[name]]
    return Outcome(inside, not differing and not fault, fault or ", ".join(differing))


def final_state(place: Path) -> dict[str, Any]:
    """Digests of the last checkpoint's weights, optimizer, schedule and random state, and the log without timings."""
    last = place / f"checkpoint-{STEPS}"
    state = {name: file_sha256(last / name) for name in STATE_FILES if (last / name).is_file()}
    history = json.loads((last / "trainer_state.json").read_text())["log_history"]
    state["log"] = [{k: v for k, v in entry.items() if not k.endswith(TIMINGS)} for entry in history]
    if (place / "model.safetensors").is_file():
        state["final model"] = file_sha256(place / "model.safetensors")
    return state


class _Child:
    """A fork that runs a target, writes what it prints to a file, and tells of its saves through a pipe."""

    def __init__(self, target: Run, place: Path):
        self.log_path = place.with_suffix(".log")
        self.begin = time.perf_counter()
        self.seconds = 0.0
        self.marks: list[tuple[bytes, float]] = []
        self.reader, writer = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._become(target, place, writer)
        os.close(writer)
        os.set_blocking(self.reader, False)
        self.status: int | None = None

    def _become(self, target: Run, place: Path, writer: int) -> None:
        status = 1
        try:
            log = os.open(self.log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            for kind in (StageTrainer, Trainer):
                _tell_of_saves(kind, writer)
            status = target(place)
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)

    def send(self, number: int) -> bool:
        """Signal the child; says whether it was still running."""
        self._read()
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if done:
            self.status = os.waitstatus_to_exitcode(status)
            return False
        os.kill(self.pid, number)
        return True

    def wait(self) -> int:
        """The exit status."""
        while self.status is None:
            self._read()
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                self.status = os.waitstatus_to_exitcode(status)
            time.sleep(0.001)
        self.seconds = time.perf_counter() - self.begin
        self._read()
        os.close(self.reader)
        return self.status

    def sleep_until_save(self, number: int) -> None:
        """Wait for the begin of a save (from 1), or the end of the child."""
        while (
            len(self.times(b"s")) < number
            and os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        ):
            self._read()
            time.sleep(0.0002)

    def times(self, mark: bytes) -> list[float]:
        return [when for found, when in self.marks if found == mark]

    def is_in_save(self) -> bool:
        """Whether the last that was heard is the begin of a save."""
        return bool(self.marks) and self.marks[-1][0] == b"s"

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def _read(self) -> None:
        try:
            while mark := os.read(self.reader, 1):
                self.marks.append((mark, time.perf_counter()))
        except BlockingIOError:
            pass


def _tell_of_saves(kind: type, writer: int) -> None:
    """Let every trainer of just this class tell when a save begins and when it has ended."""
    own = kind.__dict__.get("_save_checkpoint")

    def told(self, *arguments: Any, **settings: Any) -> None:
        save = partial(own, self) if own else super(kind, self)._save_checkpoint
        is_outer = type(self) is kind
        if is_outer:
            os.write(writer, b"s")
        save(*arguments, **settings)
        if is_outer:
            os.write(writer, b"e")

    kind._save_checkpoint = told


def _stage_1(work_dir: Path) -> Run:
    corpus = work_dir / "corpus.jsonl"
    corpus.write_text("".join(CORPUS.read_text(encoding="utf-8").splitlines(keepends=True)[:NUM_TEXTS]))
    words = _words(train_file=corpus, token_cache_dir=work_dir / "tokens", eval_strategy="steps", eval_steps=4,
                   max_eval_samples=40, attention_probs_dropout_prob=0.1)  # fmt: skip
    return lambda place: run_door(adapt.main, [*words, f"--output_dir={place}"])


def _stage_2(work_dir: Path) -> Run:
    pairs = work_dir / "pairs.csv"
    pairs.write_text("".join(PAIRS.read_text(encoding="utf-8").splitlines(keepends=True)[: NUM_PAIRS + 1]))
    words = _words(train_file=pairs, eval_strategy="steps", eval_steps=4, frozen_baseline="false")
    return lambda place: run_door(finetune.main, [*words, f"--output_dir={place}"])


def _control(work_dir: Path) -> Run:
    run_stage = _stage_1(work_dir)

    def careless(place: Path) -> int:
        def highest(folder: Path, *_: Any) -> str | None:
            return get_last_checkpoint(str(folder))

        checkpoints.newest_checkpoint = highest  # in the fork only
        DurableTrainer._save_checkpoint = Trainer._save_checkpoint  # below what tells of saves
        StageTrainer._continue = lambda trainer: None
        return run_stage(place)

    return careless


def _stock(work_dir: Path) -> Run:
    """What the library's examples do: a collator that draws masks as it goes, and ``resume_from_checkpoint``."""
    texts = [json.loads(line)["text"] for line in CORPUS.read_text(encoding="utf-8").splitlines()[:NUM_TEXTS]]

    def train(place: Path) -> int:
        tokenizer = AutoTokenizer.from_pretrained(MODEL)
        rows = [tokenizer(text, truncation=True, max_length=64, return_special_tokens_mask=True) for text in texts]
        torch.manual_seed(1)
        trainer = Trainer(
            model=AutoModelForMaskedLM.from_pretrained(MODEL),
            args=TrainingArguments(
                output_dir=str(place), use_cpu=True, eval_strategy="steps", eval_steps=4, **SCHEDULE
            ),
            train_dataset=rows[:-40],
            eval_dataset=rows[-40:],
            data_collator=DataCollatorForLanguageModeling(tokenizer),
        )
        trainer.train(resume_from_checkpoint=get_last_checkpoint(str(place)) if place.is_dir() else None)
        return 0

    return train


def _words(**flags: Any) -> list[str]:
    common = {"model_name_or_path": MODEL, "max_seq_length": 64, "bf16": "false", "use_cpu": "true"}
    return [f"--{name}={value}" for name, value in {**common, **SCHEDULE, **flags}.items()]


SIDES = {"stage 1": _stage_1, "stage 2": _stage_2, "control: unverified": _control, "stock Trainer": _stock}
