"""Class weights, the focal loss and derived pairs through the door of stage 2."""

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pair_pkg.errors import InputError
from pair_pkg.stages import finetune

ROOT = Path(__file__).parents[2]


@pytest.fixture
def words(tiny_bert, tiny_pairs, tmp_path):
    """One positive in three; the positive pairs come in chains of three texts, so that each implies another."""
    path = tmp_path / "pairs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        for n in range(30):
            (a, b), (c, d), (e, f) = tiny_pairs[3 * n : 3 * n + 3]
            writer.writerows([(a, b, 1), (b, c, 1), (c, d, 0), (d, e, 0), (e, f, 0), (f, a, 0)])

    def build(name, *more):
        flags = {
            "model_name_or_path": tiny_bert,
            "train_file": path,
            "output_dir": tmp_path / name,
            "max_seq_length": 40,
            "hidden_dropout_prob": 0,
            "num_train_epochs": 1,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
            "disable_tqdm": "true",
        }
        return [*(f"--{name}={value}" for name, value in flags.items()), *map(str, more)]

    return build


def record_of(folder):
    return json.loads(Path(folder, "run.json").read_text())


def assert_same_run(folder, reference):
    """Losses, gradient norms and weights of two runs are the same to rounding."""
    found, wanted = (
        [(entry["loss"], entry["grad_norm"]) for entry in json.loads((run / "log_history.json").read_text())
         if "loss" in entry]
        for run in (folder, reference)
    )  # fmt: skip
    assert len(wanted) > 15
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)
    weights = load_file(folder / "model.safetensors")
    for name, value in load_file(reference / "model.safetensors").items():
        torch.testing.assert_close(weights[name], value, atol=2e-5, rtol=0, msg=name)


BALANCED = ["--class_weights", "auto", "--focal_gamma", 2]


def test_balanced_batch_8_is_2_accumulated_batches_of_4(words, tmp_path):
    finetune.main(words("whole", *BALANCED, "--per_device_train_batch_size=8"))
    cut = ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=2"]
    finetune.main(words("cut", *BALANCED, *cut))
    assert_same_run(tmp_path / "cut", tmp_path / "whole")
    settings = record_of(tmp_path / "whole")["settings"]
    assert settings["focal_gamma"] == 2 and settings["class_weights"] == pytest.approx([0.75, 1.5])
    finetune.main(words("plain", "--per_device_train_batch_size=8"))
    with pytest.raises(AssertionError):  # the weights do weigh
        assert_same_run(tmp_path / "plain", tmp_path / "whole")


def test_the_decision_takes_back_what_the_weights_did_and_the_log_says_so(words, tmp_path, capsys):
    metrics = finetune.main(words("out", "--class_weights", "0=1", "1=20", "--num_train_epochs=2"))
    before, after = (metrics["calibration"]["validation"][when] for when in ("before", "after"))
    positives = before["hit_fraction"]
    assert metrics["imbalance"]["margin_shift"] == pytest.approx(np.log(20))
    assert before["mean_confidence"] > positives + 0.2 and abs(after["mean_confidence"] - positives) < 0.1
    assert json.loads((tmp_path / "out" / "decision.json").read_text())["center"] > 0
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{positives:.3f} are positive, and their mean probability is {before['mean_confidence']:.3f}" in printed


@pytest.mark.slow
def test_balanced_batch_8_is_two_processes_of_4(words, tmp_path):
    finetune.main(words("whole", *BALANCED, "--per_device_train_batch_size=8"))
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    flags = words("two", *BALANCED, "--per_device_train_batch_size=4", "--ddp_backend=gloo")
    process = subprocess.Popen(
        [*launch, str(ROOT / "run_pair_cls.py"), *flags],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        _, errors = process.communicate(timeout=120)
    finally:
        process.terminate()  # the launcher takes its workers with it
    assert process.returncode == 0, errors[-3000:]
    assert_same_run(tmp_path / "two", tmp_path / "whole")


def test_derived_pairs_are_trained_on_and_counted(words, tmp_path, capsys):
    finetune.main(words("out", "--augment_graph", "--max_steps=1"))
    record = record_of(tmp_path / "out")
    counts = record["pairs"]["augmentation"]
    assert record["identity"]["augment_graph"] is True
    # 24 chains in training, each a = b = c and d, e, f apart: a = c, and b != f; c != f, a != d, b != d are open too
    assert counts["derived_positives"] == 24 and counts["derived_negatives"] == 48
    assert counts["contradictions"] == 0 and counts["dropped_for_ratio"] > 0
    assert "derived from the training pairs: 24 positive and 48 negative" in capsys.readouterr().out
    with pytest.raises(InputError, match="augment_graph: True -> False"):
        finetune.main(words("out", "--max_steps=1"))


@pytest.mark.parametrize(
    "more, message",
    [
        (["--class_weights", "auto", "--architecture=bi_encoder"], "--class_weights is for --architecture cross_enc"),
        (["--focal_gamma=2", "--architecture=bi_encoder"], "--focal_gamma is for --architecture cross_encoder"),
        (["--focal_gamma=-1"], "--focal_gamma -1.0 is out of range"),
        (["--class_weights", "0=2"], "1 has no weight"),
        (["--class_weights", "auto", "--label_kind=scores"], "--class_weights is for classes"),
        (["--focal_gamma=1", "--label_kind=scores"], "--focal_gamma is for classes"),
        (["--augment_graph", "--label_kind=scores"], "--augment_graph needs binary labels"),
    ],
)
def test_flags_that_do_not_fit_the_labels_are_refused(words, more, message):
    with pytest.raises(InputError, match=message):
        finetune.main(words("out", *more))
