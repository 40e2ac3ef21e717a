"""Two machines, played by two network namespaces with a cable between them: ``torchrun --nnodes 2``.

Each has a loopback of its own and sees nothing but the other; the folder is shared, as it has to be. Making namespaces
needs root, and a system that allows it: elsewhere this is skipped.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pair_pkg.records import read_record
from pair_pkg.stages import adapt

ROOT = Path(__file__).parents[2]
ADDRESSES = ("10.213.0.1", "10.213.0.2")
SETTINGS = ("--hidden_dropout_prob=0", "--attention_probs_dropout_prob=0", "--max_train_samples=31", "--max_steps=6",
            "--learning_rate=1e-3", "--adam_epsilon=1e-6", "--disable_tqdm")  # fmt: skip


@pytest.fixture
def machines():
    """The names of the two namespaces, which are the names of their network devices too."""
    names = [f"pair{os.getpid() % 100000}{end}" for end in "ab"]
    cable = ["ip", "link", "add", names[0], "netns", names[0], "type", "veth", "peer", names[1], "netns", names[1]]
    commands = [["ip", "netns", "add", name] for name in names] + [cable]
    for name, address in zip(names, ADDRESSES):
        commands.append(["ip", "-n", name, "address", "add", f"{address}/24", "dev", name])
        commands += [["ip", "-n", name, "link", "set", device, "up"] for device in ("lo", name)]
    try:
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {' '.join(command)}: {done.stderr.strip()}")
        yield names
    except FileNotFoundError:
        pytest.skip("no network namespaces here: the command ip is not installed")
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], capture_output=True)


@pytest.mark.slow
def test_two_machines_train_what_one_process_trains(machines, mlm_words, close_run, tmp_path):
    words = mlm_words(tmp_path / "two", *SETTINGS, "--per_device_train_batch_size=4", "--save_strategy=steps")
    launches = []
    for number, name in enumerate(machines):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node_rank={number}",
                    "--nproc_per_node=1", f"--master_addr={ADDRESSES[0]}", "--master_port=29511"]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": name}
        with open(tmp_path / f"{name}.log", "wb") as log:
            launch = subprocess.Popen(
                ["ip", "netns", "exec", name, *torchrun, "run_mlm.py", *words],
                cwd=ROOT, env=environment, stdout=log, stderr=log,
            )  # fmt: skip
        launches.append(launch)
    adapt.main(mlm_words(tmp_path / "one", *SETTINGS))
    try:
        statuses = [launch.wait(timeout=900) for launch in launches]
    finally:
        for launch in launches:
            launch.kill()
    assert statuses == [0, 0], "\n".join((tmp_path / f"{name}.log").read_text()[-3000:] for name in machines)

    close_run(tmp_path / "two", tmp_path / "one", 6)
    ours, wanted = (read_record(tmp_path / name)["metrics"] for name in ("two", "one"))
    assert ours["eval_perplexity"] == pytest.approx(wanted["eval_perplexity"], rel=1e-6)
