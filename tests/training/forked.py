"""Runs of both doors in several processes, which one process forks: its imports, the most of a tiny run, are paid once.

    python tests/training/forked.py groups.json

A group is ``{"processes": N, "environment": {...}, "runs": [...]}``: N processes that find each other as torchrun
would have them, and do these runs one after the other; N = 1 is a plain process. The groups follow each other. A run
is ``{"door": ..., "words": [...]}``; with ``stop_at`` the last process gets SIGTERM behind that step, with ``die_at``
SIGKILL, after which its group does no other run, and with ``rows`` process n writes the [epoch, row] of its training
batches to ``<rows>-<n>.json``. Whether weights are divided is looked at behind each step. Ends with 1 as soon as a
process fails.
"""

import functools
import json
import multiprocessing
import os
import signal
import socket
import sys
import time
from pathlib import Path

import torch
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback

from pair_pkg.data.batches import FROZEN
from pair_pkg.errors import EXIT_INTERRUPTED, run_door
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.processes import process_group_ends
from pair_pkg.stages import adapt, finetune, mlm_trainer, pair_model
from pair_pkg.training.sharding import wants_fsdp
from pair_pkg.training.trainer import StageTrainer

DOORS = {"run_mlm.py": adapt, "run_pair_cls.py": finetune}


class Watch(TrainerCallback):
    def __init__(self, stop_at, die_at):
        self.signals = {stop_at: signal.SIGTERM, die_at: signal.SIGKILL}

    def on_step_end(self, args, state, control, model, **settings):
        assert all(isinstance(weight, DTensor) == wants_fsdp(args) for weight in model.parameters())
        if state.global_step in self.signals and args.process_index == args.world_size - 1:
            os.kill(os.getpid(), self.signals[state.global_step])


def do(run, rank):
    watched_trainer = functools.partial(StageTrainer, callbacks=[Watch(run.get("stop_at"), run.get("die_at"))])
    mlm_trainer.StageTrainer = pair_model.StageTrainer = watched_trainer
    build_batch, seen = MaskedRows.build_batch, []

    def watched(dataset, items):
        if items[0].epoch != FROZEN:
            seen.append([[item.epoch, item.row] for item in items if not item.is_filler])
        return build_batch(dataset, items)

    MaskedRows.build_batch = watched
    door = DOORS[run["door"]]
    status = run_door(door.main if "die_at" in run else door.run, run["words"])
    MaskedRows.build_batch = build_batch
    if "rows" in run:
        Path(f"{run['rows']}-{rank}.json").write_text(json.dumps(seen))
    if status != (EXIT_INTERRUPTED if {"stop_at", "die_at"} & run.keys() else 0):
        raise SystemExit(f"status {status} of {run}")


def work(group, rank, port):
    torch.set_num_threads(1)
    os.environ.update(group.get("environment", {}))
    if group["processes"] > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": group["processes"]}
        place |= {"LOCAL_WORLD_SIZE": group["processes"], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in place.items()})
    with process_group_ends():
        for run in group["runs"]:
            do(run, rank)


def run_group(group):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=work, args=(group, rank, port)) for rank in range(group["processes"])]
    for worker in workers:
        worker.start()
    expected = {0, -signal.SIGKILL} if any("die_at" in run for run in group["runs"]) else {0}
    while any(worker.is_alive() for worker in workers):
        if {worker.exitcode for worker in workers} - {None, *expected}:
            for worker in workers:
                worker.kill()
        time.sleep(0.05)
    if {worker.exitcode for worker in workers} - expected:
        raise SystemExit(1)


if __name__ == "__main__":
    for one in json.loads(Path(sys.argv[1]).read_text()):
        run_group(one)
