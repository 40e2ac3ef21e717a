"""Several processes on one work: each does its share, and the file is that of one process, to the byte."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pair_pkg.pairs.decision import load_decision, save_decision
from pair_pkg.records import read_record, write_record
from pair_pkg.search import vector_job

pytestmark = pytest.mark.slow  # processes of their own, which import everything once

ROOT = Path(__file__).parents[2]
TEXTS = [f"the {word} pump number {row} leaks" for row in range(40) for word in ("old", "new")]
TEXTS += ["", "水泵漏水", *TEXTS[3:60:7], "the new filter"]

# Imports everything once and forks the processes of each launch, as torchrun would start them; a line of JSON each.
HOST = """
import importlib, json, os, signal, socket, sys
import numpy as np
import torch
from pair_pkg.errors import run_door
from pair_pkg.modeling import embedding
from pair_pkg.pairs import scorer
from pair_pkg.processes import Processes
from pair_pkg.search import vector_job
from pair_pkg.stages import embed, finetune, score

torch.set_num_threads(1)

def become(rank, job):
    rank_of = dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    count_of = dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), str(job["count"]))
    os.environ.update(rank_of | count_of, MASTER_ADDR="localhost", MASTER_PORT=str(job["port"]), OMP_NUM_THREADS="1")
    log = os.open(job["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(log, 1), os.dup2(log, 2)
    signal.alarm(300)
    exec(job["code"], {**globals(), "rank": rank})
    return run_door(importlib.import_module(job["door"]).main, job["words"])

for line in sys.stdin:
    job = json.loads(line)
    with socket.socket() as free:
        free.bind(("localhost", 0))
        job["port"] = free.getsockname()[1]
    family = []
    for rank in range(job["count"]):
        pid = os.fork()
        if not pid:
            status = 1
            try:
                status = become(rank, job)
            except BaseException:
                sys.excepthook(*sys.exc_info())
            finally:
                sys.stdout.flush()
                os._exit(status)
        family.append(pid)
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in family]), flush=True)
os._exit(0)
"""
COUNTED = """
def counted(work, place):
    def wrapper(*values, **settings):
        if values[place] != [""]:
            os.write(1, f"together {rank} {json.dumps(values[place])}\\n".encode())
        return work(*values, **settings)
    return wrapper
vector_job.CHUNK_ROWS, vector_job.encode_texts = 8, counted(vector_job.encode_texts, 1)
"""
KILLED = """
save = vector_job.write_beside
def killed(path, write):
    save(path, write)
    if rank == 1 and len(list(path.parent.glob("*.npz"))) > 3:
        os.kill(os.getpid(), signal.SIGKILL)
vector_job.write_beside = killed
"""


@pytest.fixture(scope="module")
def host():
    process = subprocess.Popen(
        [sys.executable, "-c", HOST], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    yield process
    process.stdin.close()
    process.wait()


@pytest.fixture
def launch(host, tmp_path):
    """``launch(count, door, *words, code=)``: exit statuses of the processes, and what they wrote to the terminal."""

    def run(count, door, *words, code=""):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        job = {"count": count, "door": door, "words": list(map(str, words)), "code": code, "log": str(log)}
        host.stdin.write(json.dumps(job) + "\n")
        host.stdin.flush()
        return json.loads(host.stdout.readline()), log.read_text()

    return run


@pytest.fixture
def embed(launch, tiny_bi_encoder, tmp_path):
    """``embed(count, output, code=)``: the statuses, the log, and the file's bytes where there is one."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")

    def run(count, output, code=COUNTED):
        path = tmp_path / output
        words = ["--model", tiny_bi_encoder, texts, "--batch_tokens=64", "--output", path]
        statuses, log = launch(count, "pair_pkg.stages.embed", *words, code=code)
        return statuses, log, path.read_bytes() if path.exists() else None

    return run


def groups_in(log):
    """The texts that were encoded together, by process."""
    groups = {0: [], 1: [], 2: []}
    for line in log.splitlines():
        if line.startswith("together "):
            _, rank, texts = line.split(" ", 2)
            groups[int(rank)].append(json.loads(texts))
    return groups


def all_of(groups):
    return sorted(group for part in groups.values() for group in part)


@pytest.mark.parametrize("suffix", ["npy", "jsonl", "parquet"])
def test_vectors_of_several_processes_are_the_file_of_one(embed, tmp_path, suffix):
    statuses, log, expected = embed(1, f"one.{suffix}")
    groups = groups_in(log)
    assert statuses == [0] and len(groups[0]) == 12
    statuses, log, shared = embed(3, f"three.{suffix}")
    assert statuses == [0, 0, 0] and shared == expected, log
    assert all_of(groups_in(log)) == all_of(groups)  # what is encoded together decides on the last bits
    assert [len(part) for part in groups_in(log).values()] == [4, 4, 4]
    assert log.count("three.") == 1  # one process speaks
    records = [json.loads((tmp_path / f"{name}.{suffix}.json").read_text()) for name in ("one", "three")]
    assert records[0] | {"seconds": 0} == records[1] | {"seconds": 0}
    assert not list(tmp_path.glob("*.part*")) and not list(tmp_path.glob("*.state.json"))


def test_a_killed_process_ends_all_and_any_number_goes_on(embed):
    _, log, expected = embed(1, "one.npy")
    groups = all_of(groups_in(log))
    statuses, log, nothing = embed(2, "cut.npy", COUNTED + KILLED)
    assert statuses == [75, -signal.SIGKILL] and nothing is None
    assert "interrupted: another process of this launch ended; the same command goes on" in log
    done = all_of(groups_in(log))
    statuses, log, shared = embed(3, "cut.npy")
    assert statuses == [0, 0, 0] and shared == expected, log
    assert f"going on behind row 0 of 92, with {len(done)} chunks of 8 rows from beyond it" in log
    assert len(done) > 3 and sorted(done + all_of(groups_in(log))) == groups  # none is encoded twice


def test_a_part_in_the_wrong_place_is_another_file(embed, tmp_path):
    """The control: bytes are compared, and they are those of the parts."""
    expected = embed(1, "one.npy")[2]
    embed(2, "cut.npy", COUNTED + KILLED)
    first, second = (tmp_path / "cut.npy.parts" / f"0000000{number}.npz" for number in (1, 3))
    first.rename(tmp_path / "first"), second.rename(first), (tmp_path / "first").rename(second)
    assert embed(2, "cut.npy")[2] != expected


def test_bad_input_is_told_once_by_each_and_nothing_is_left(embed, tmp_path):
    (tmp_path / "v.npy").write_bytes(b"")
    statuses, log, _ = embed(2, "v.npy")
    assert statuses == [2, 2] and log.count("exists, and holds other vectors") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "texts.txt", "v.npy"]


def test_torchrun_ends_with_a_killed_process_and_goes_on(launch, tiny_bi_encoder, tmp_path):
    """As a user starts it: the death of one worker ends the launcher and the other, and leaves what they have done."""
    (tmp_path / "texts.txt").write_text("".join(f"pump {row}\n" for row in range(vector_job.CHUNK_ROWS + 50)))
    words = ["--model", tiny_bi_encoder, str(tmp_path / "texts.txt"), "--output"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    with open(tmp_path / "torchrun", "wb") as log:
        process = subprocess.Popen(
            [*torchrun, "pair_pkg", "embed", *words, str(tmp_path / "cut.npy")], cwd=ROOT, stdout=log, stderr=log
        )
    parts = tmp_path / "cut.npy.parts"
    while not list(parts.glob("*1.npz")):  # of the second process, which then waits for the first
        assert process.poll() is None, (tmp_path / "torchrun").read_text()
        time.sleep(0.02)
    first, second = (child.pid for child in psutil.Process(process.pid).children() if "embed" in child.cmdline())
    os.kill(second, signal.SIGKILL)
    assert process.wait(timeout=120) != 0 and not psutil.pid_exists(first) and not (tmp_path / "cut.npy").exists()
    assert launch(1, "pair_pkg.stages.embed", *words, tmp_path / "cut.npy")[0] == [0]
    assert launch(1, "pair_pkg.stages.embed", *words, tmp_path / "one.npy")[0] == [0]
    assert (tmp_path / "cut.npy").read_bytes() == (tmp_path / "one.npy").read_bytes()


# ---- pairs ----

SCORED = (
    COUNTED
    + """
scorer.CHUNK_PAIRS = embedding.CHUNK_TEXTS = 16
scorer.Pairs = counted(scorer.Pairs, 0)
embedding.tokenize_singles = counted(embedding.tokenize_singles, 0)
"""
)
MEASURED = """
from pair_pkg.stages import pair_evaluation
pair_evaluation.bootstrap_metrics = counted(pair_evaluation.bootstrap_metrics, 0)
"""
DEALT_ONE_BY_ONE = "Processes.own = lambda self, num_items, size: np.arange(num_items)[self.index :: self.count]\n"


def write_csv(path, header, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


@pytest.fixture
def pairs_path(tmp_path, tiny_pairs):
    rows = [(one, tiny_pairs[row ^ (row % 3)][1], row % 2) for row, (one, _) in enumerate(tiny_pairs[:90])]
    return write_csv(tmp_path / "pairs.csv", ("sentence1", "sentence2", "label"), [*rows, ("水泵", "水泵漏水", 1)])


@pytest.fixture(params=["cross_encoder", "bi_encoder", "ensemble"])
def model(request, tiny_cross_encoder, tiny_bi_encoder, tmp_path):
    """Folder of a finished model of binary labels."""
    if request.param == "cross_encoder":
        return tiny_cross_encoder
    folder, record = tmp_path / "model", read_record(tiny_cross_encoder)
    if request.param == "bi_encoder":
        shutil.copytree(tiny_bi_encoder, folder)
        write_record(folder, record | {"architecture": "bi_encoder"})
    else:
        for name in ("fold-1", "fold-2"):
            shutil.copytree(tiny_cross_encoder, folder / name)
        write_record(folder, record | {"members": ["fold-1", "fold-2"]})
    save_decision(load_decision(tiny_cross_encoder), folder)
    return str(folder)


def test_scores_of_several_processes_are_the_file_of_one(launch, model, pairs_path, tmp_path):
    def score(count, name, code=SCORED):
        words = ["--model", model, pairs_path, "--output", tmp_path / name]
        statuses, log = launch(count, "pair_pkg.stages.score", *words, code=code)
        assert statuses == [0] * count, log
        return groups_in(log), (tmp_path / name).read_bytes(), log

    groups, expected, _ = score(1, "one.csv")
    shared, found, log = score(3, "three.csv")
    assert found == expected and all_of(shared) == all_of(groups)
    sizes = [sum(map(len, part)) for part in shared.values()]
    assert max(sizes) <= sum(sizes) / 3 + 2 * 16, "a process did more than its share"
    assert log.count("three.csv") == log.count("accuracy") == 1  # one process speaks
    dealt_otherwise, _, _ = score(3, "control.csv", SCORED + DEALT_ONE_BY_ONE)
    assert all_of(dealt_otherwise) != all_of(groups)


@pytest.mark.parametrize("work", [["--do_eval"], ["--do_predict", "--predict_file"]])
def test_predictions_of_stage_2_are_those_of_one_process(launch, pairs_path, tiny_cross_encoder, tmp_path, work):
    words = [f"--model_name_or_path={tiny_cross_encoder}", f"--train_file={pairs_path}", "--max_seq_length=24"]
    words += ["--use_cpu", "--bf16=false", "--per_device_eval_batch_size=8", *work]
    words += [pairs_path] if work[-1] == "--predict_file" else []
    for count in (1, 2):
        out = tmp_path / f"{count}"
        statuses, log = launch(count, "pair_pkg.stages.finetune", *words, f"--output_dir={out}", code=SCORED + MEASURED)
        assert statuses == [0] * count, log
    names = sorted(path.name for path in (tmp_path / "1").iterdir() if path.suffix == ".csv")
    assert ("test_predictions.csv" if work == ["--do_eval"] else "predictions.csv") in names
    for name in names:
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name
    if work == ["--do_eval"]:
        one, two = (read_record(tmp_path / name)["metrics"] for name in "12")
        measured = ("test", "baselines", "intervals", "slices", "decision", "calibration", "eval_accuracy")
        assert {name: two[name] for name in measured} == {name: one[name] for name in measured}
        assert not [group for rank, group in groups_in(log).items() if rank and "binary" in group]  # the first measures


# ---- a corpus ----

TOKENIZE = """
import time, types
from datetime import timedelta
from pathlib import Path
from transformers import TrainingArguments
from pair_pkg.data import tokens
from pair_pkg.modeling.loading import load_tokenizer
from pair_pkg.stages.arguments.mlm import CorpusArguments
from pair_pkg.stages.corpus import Source
from pair_pkg.training.arguments import StageTrainingArguments

model, corpus, cache, machines, seconds, overwrite = job["words"]
per_machine = job["count"] // int(machines)
os.environ.update(LOCAL_RANK=str(rank % per_machine), LOCAL_WORLD_SIZE=str(per_machine))

build = tokens._build_store
def slow(*values):
    os.write(1, f'together {rank} ["built"]\\n'.encode())
    time.sleep(float(seconds))
    build(*values)
tokens._build_store = slow

def main(words):
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=3))  # a step's, as of --ddp_timeout
    args = StageTrainingArguments(output_dir=cache, use_cpu=True)
    own = cache.replace("MACHINE", str(rank // per_machine))
    flags = CorpusArguments(train_file=[corpus], token_cache_dir=own, overwrite_cache=overwrite == "overwrite")
    with args.main_process_first():
        store = Source(flags, (Path(corpus),)).store(load_tokenizer(model), None, True)
    assert store.num_documents == 200
    torch.distributed.barrier()

sys.modules["tokenize_corpus"] = types.SimpleNamespace(main=main)
"""
LIBRARYS_WAY = "StageTrainingArguments.main_process_first = TrainingArguments.main_process_first\n"
DIES = "tokens._build_store = lambda *values: os.kill(os.getpid(), signal.SIGKILL)\n"


@pytest.fixture
def tokenize(launch, tiny_bert, tiny_corpus, tmp_path):
    """``tokenize(count, machines=, cache=, seconds=, overwrite=, code=)``: the statuses, and who built a store."""

    def run(count, machines=1, cache="cache", seconds=0.2, overwrite="", code=""):
        words = [tiny_bert, tiny_corpus, tmp_path / cache, machines, seconds, overwrite]
        statuses, log = launch(count, "tokenize_corpus", *words, code=TOKENIZE + code)
        return statuses, [rank for rank in range(4) if f'together {rank} ["built"]' in log], log

    return run


def test_a_corpus_is_tokenized_by_the_first_process_of_each_machine(tokenize):
    assert tokenize(4, machines=2, cache="of-MACHINE")[:2] == ([0] * 4, [0, 2])
    assert tokenize(4, machines=2, cache="of-MACHINE")[:2] == ([0] * 4, [])


def test_in_a_cache_that_machines_share_it_is_tokenized_once(tokenize):
    statuses, builders, _ = tokenize(4, machines=2)
    assert statuses == [0] * 4 and len(builders) == 1 and builders[0] in (0, 2)
    statuses, builders, log = tokenize(2, overwrite="overwrite")
    assert statuses == [0, 0] and builders == [0] and log.count('["built"]') == 1


def test_tokenizing_may_take_longer_than_a_step(tokenize):
    """The control is the library's own way, which ends with the time limit of a step."""
    assert tokenize(2, seconds=6)[:2] == ([0, 0], [0])
    statuses, _, log = tokenize(2, seconds=6, cache="other", code=LIBRARYS_WAY)
    assert 0 not in statuses and "imed out" in log, log


def test_a_killed_tokenizer_ends_the_launch(tokenize):
    statuses, _, log = tokenize(2, code=DIES)
    assert statuses == [-signal.SIGKILL, 75] and "another process of this launch ended" in log
