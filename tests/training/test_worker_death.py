"""A killed process ends its whole launch soon and leaves no orphan, and the same command goes on to the same bits."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from pair_pkg.training.manifest import find_damage

ROOT = Path(__file__).parents[2]
WITHIN = 60  # seconds in which a launch has ended
LAUNCHERS = {
    "torchrun": ["torch.distributed.run", "--standalone", "--nproc_per_node=2"],
    "accelerate launch": ["accelerate.commands.launch", "--config_file=recipes/accelerate/ddp.yaml"],
}
KILLED = {"torchrun": 1, "accelerate launch": 0}  # the rank


@pytest.fixture
def launch(tmp_path):
    """``launch(words, log)``: the launcher's process, in a group of its own that does not outlive the test."""
    launched = []

    def start(words, log):
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", *words],
                cwd=ROOT,
                env=environment,
                start_new_session=True,
                stdout=file,
                stderr=file,
            )
        launched.append(process)
        return process

    yield start
    for process in launched:
        process.kill()


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def wait_for(path, process, log):
    for _ in range(1200):
        if path.exists():
            return
        assert process.poll() is None, log.read_text()[-3000:]
        time.sleep(0.1)
    raise AssertionError(log.read_text()[-3000:])


def worker_of_rank(family, rank):
    return next(process for process in family if process.environ().get("RANK") == str(rank))


@pytest.mark.slow
def test_a_killed_worker_ends_the_launch_and_the_same_command_goes_on(
    mlm_words, launch, run_forked, same_run, tmp_path
):
    settings = ("--max_train_samples=40", "--max_steps=100", "--save_strategy=steps", "--save_steps=10",
                "--eval_strategy=no", "--learning_rate=1e-3", "--attention_probs_dropout_prob=0.1",
                "--per_device_train_batch_size=4", "--no_report_slices", "--ddp_backend=gloo")  # fmt: skip
    words = {name: mlm_words(tmp_path / name, *settings) for name in ("whole", *LAUNCHERS)}
    for name, launcher in LAUNCHERS.items():
        log = tmp_path / f"{name}.log"
        port = [] if name == "torchrun" else [f"--main_process_port={free_port()}"]
        process = launch([*launcher, *port, "run_mlm.py", *words[name]], log)
        wait_for(tmp_path / name / "checkpoint-10", process, log)
        family = psutil.Process(process.pid).children(recursive=True)
        killed_at = time.monotonic()
        worker_of_rank(family, KILLED[name]).send_signal(signal.SIGKILL)
        assert process.wait(timeout=WITHIN) != 0
        _, alive = psutil.wait_procs(family, timeout=WITHIN - (time.monotonic() - killed_at))
        assert not alive, log.read_text()[-3000:]
        checkpoints = list((tmp_path / name).glob("checkpoint-*"))
        assert checkpoints and [find_damage(path) for path in checkpoints] == [None] * len(checkpoints)
        assert not (tmp_path / name / "model.safetensors").exists()  # it was cut off before its end
    run_forked({"processes": 2, "runs": [{"door": "run_mlm.py", "words": run} for run in words.values()]})
    for name in LAUNCHERS:
        same_run(tmp_path / name, tmp_path / "whole")
