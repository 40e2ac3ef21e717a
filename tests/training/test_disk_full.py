"""A disk that fills up in a save: one line, status 74, and the checkpoint before it stands."""

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.torch import load_file
from transformers import TrainerState

from pair_pkg.data.arrays import create_npy
from pair_pkg.errors import EXIT_DISK_FULL, is_disk_full, run_door
from pair_pkg.records import read_record
from pair_pkg.stages import adapt, exporting, finetune
from pair_pkg.training import durable, manifest, room
from pair_pkg.training.checkpoints import newest_checkpoint
from pair_pkg.training.trainer import StageTrainer

SETTINGS = ("--max_steps=2", "--save_strategy=steps", "--save_steps=1", "--eval_strategy=no", "--max_train_samples=40")
FULL = "/dev/full"  # whoever writes to it, in Python or below, gets the system's own "No space left on device"
FILES = ("optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json", "config.json", "tokenizer.json",
         "tokenizer_config.json")  # fmt: skip
pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason="needs /dev/full, which Linux has")


def no_space(*arguments, **settings):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "a file")


def fill_file(patch, name):
    """The second save finds a full disk where it writes ``name``."""
    save = StageTrainer.save_model

    def save_model(trainer, output_dir=None, _internal_call=False):
        if _internal_call and trainer.state.global_step == 2:
            Path(output_dir).mkdir(parents=True)
            Path(output_dir, name).symlink_to(FULL)
        save(trainer, output_dir, _internal_call)

    patch.setattr(StageTrainer, "save_model", save_model)


def fail_at_step_2(patch, place, name):
    """The second save finds a full disk in a function of this package or of the system."""
    works, facts = getattr(place, name), durable.DurableTrainer._facts

    def mark(trainer, scheduled):
        if trainer.state.global_step == 2:
            patch.setattr(place, name, no_space)
        return facts(trainer, scheduled)

    assert callable(works)
    patch.setattr(durable.DurableTrainer, "_facts", mark)


FAULTS = {
    **{name: lambda patch, name=name: fill_file(patch, name) for name in FILES},
    "manifest.json": lambda patch: fail_at_step_2(patch, manifest, "write_json"),
    "on its way to the disk": lambda patch: fail_at_step_2(patch, os, "fsync"),
    "model.safetensors": lambda patch: fail_at_step_2(patch, StageTrainer, "_save"),
}


@pytest.fixture
def words(mlm_words, tmp_path):
    return mlm_words(tmp_path / "out", *SETTINGS)


def assert_told(status, folder, capfd, step=1):
    assert status == EXIT_DISK_FULL
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))
    assert "the disk is full" in line and "give the same command" in line
    assert Path(newest_checkpoint(folder, read_record(folder)["identity"])).name == f"checkpoint-{step}"
    assert not (folder / manifest.STAGING_NAME).exists()


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_full_disk_is_told_and_the_checkpoint_before_stands(words, tmp_path, monkeypatch, capfd, fault):
    with monkeypatch.context() as patch:
        fault(patch)
        status = run_door(adapt.main, words)
    assert_told(status, tmp_path / "out", capfd)
    assert not (tmp_path / "out" / "checkpoint-2").exists()


def test_with_room_again_the_run_goes_on_to_the_same_end(words, mlm_words, same_run, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        fill_file(patch, "optimizer.pt")
        assert run_door(adapt.main, words) == EXIT_DISK_FULL
    assert run_door(adapt.main, words) == 0
    assert run_door(adapt.main, mlm_words(tmp_path / "whole", *SETTINGS)) == 0
    same_run(tmp_path / "out", tmp_path / "whole")


@pytest.fixture
def small_disk(tmp_path):
    """``small_disk(kilobytes)``: a folder on a disk of this size."""
    mounted = []

    def mount(kilobytes):
        folder = tmp_path / f"disk{len(mounted)}"
        folder.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "none", str(folder)]
        if subprocess.run(command, capture_output=True).returncode:
            pytest.skip("may not mount a small disk")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("share", [0.15, 0.4, 0.65, 0.9])
def test_a_disk_that_is_really_too_small(words, mlm_words, small_disk, tmp_path, monkeypatch, capfd, share):
    """It takes the first checkpoint and this share of the second, which nobody has seen before training."""
    monkeypatch.setattr(durable, "check_room", lambda *arguments: None)
    assert run_door(adapt.main, words) == 0
    saved = sum(-(-path.stat().st_size // 4096) * 4 for path in (tmp_path / "out" / "checkpoint-1").iterdir())
    folder = small_disk(int(saved * (1 + share)) + 24) / "out"
    capfd.readouterr()
    assert_told(run_door(adapt.main, mlm_words(folder, *SETTINGS)), folder, capfd)


@pytest.mark.parametrize("kilobytes", [8, 16, 24, 40])
def test_a_token_cache_without_room(mlm_words, small_disk, tmp_path, capfd, kilobytes):
    """Ids, word starts and rows take more than 40 kB; nothing half-built stays."""
    cache = small_disk(kilobytes)
    words = mlm_words(tmp_path / "out", *SETTINGS, f"--token_cache_dir={cache}")
    assert run_door(adapt.main, words) == EXIT_DISK_FULL
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and "the disk is full: free some space" in errors[0]
    assert not [path for path in cache.rglob("*") if path.name.endswith((".building", ".lock"))]
    subprocess.run(["mount", "-o", "remount,size=9m", str(cache)], check=True)
    assert run_door(adapt.main, words) == 0


def test_a_mapped_file_is_refused_that_a_disk_has_no_room_for(small_disk):
    """numpy's own is made, and whoever fills it is killed."""
    folder = small_disk(100)
    assert len(np.lib.format.open_memmap(folder / "hole.npy", "w+", np.float32, (100_000,))) == 100_000
    with pytest.raises(OSError, match="No space left"):
        create_npy(folder / "whole.npy", np.dtype(np.float32), (100_000,))


# The room that a run needs, asked for before its first step.


def refuse(main, words, folder, capfd):
    """The one line of a run that is refused before it trains."""
    capfd.readouterr()
    assert run_door(main, words) == EXIT_DISK_FULL
    (line,) = (line for line in capfd.readouterr().err.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: {folder}: the disk has ") and "give another --output" in line
    assert [*folder.glob("checkpoint-*")] == [*folder.glob("*.safetensors")] == []
    return line


def test_a_run_is_refused_that_a_small_disk_cannot_hold(mlm_words, small_disk, capfd):
    """Three checkpoints at a time: two are kept, and the new one is whole before the oldest goes."""
    folder = small_disk(800) / "out"
    refuse(adapt.main, mlm_words(folder, *SETTINGS, "--max_steps=9"), folder, capfd)
    words = mlm_words(folder, *SETTINGS, "--max_steps=9", "--save_strategy=no")
    assert run_door(adapt.main, words) == 0  # the model alone has room


def free_bytes(patch, free):
    patch.setattr(room.shutil, "disk_usage", lambda place: shutil._ntuple_diskusage(free, 0, free))


@pytest.mark.parametrize("door", ["stage 1", "stage 2"])
def test_both_doors_ask_for_room_and_go_on_when_there_is_some(
    door, words, tiny_bert, tiny_pairs, tmp_path, monkeypatch, capfd
):
    folder, main = tmp_path / "out", adapt.main
    if door == "stage 2":
        rows = [f"{left}\t{right}\t{row % 2}" for row, (left, right) in enumerate(tiny_pairs[:60])]
        (tmp_path / "pairs.tsv").write_text("\n".join(["sentence1\tsentence2\tlabel", *rows]) + "\n")
        main = finetune.main
        words = [f"--model_name_or_path={tiny_bert}", f"--train_file={tmp_path / 'pairs.tsv'}", "--use_cpu",
                 f"--output_dir={folder}", "--bf16=false", "--frozen_baseline=false", *SETTINGS[:4]]  # fmt: skip
    with monkeypatch.context() as patch:
        free_bytes(patch, 1000)
        line = refuse(main, words, folder, capfd)
    assert "the disk has 0.0 MB free" in line and "a checkpoint takes" in line
    assert run_door(main, words) == 0
    saved = folder / "checkpoint-2"
    model, checkpoint = room.checkpoint_bytes(load_file(saved / "model.safetensors").values(), "adamw_torch")
    assert model <= (saved / "model.safetensors").stat().st_size
    assert checkpoint == model  # nothing learns in what was loaded
    learning = [weight.requires_grad_() for weight in load_file(saved / "model.safetensors").values()]
    checkpoint = room.checkpoint_bytes(learning, "adamw_torch")[1]
    assert 0.7 * (written := sum(path.stat().st_size for path in saved.iterdir())) < checkpoint < written


PLANS = {
    "none": ("no", {}, 0),
    "every 10 steps of 25, and the end": ("steps", {"save_steps": 10}, 3),
    "what is left of them": ("steps", {"save_steps": 10, "global_step": 20}, 1),
    "the end alone": ("steps", {"save_steps": 0}, 1),
    "every epoch that is left": ("epoch", {"epoch": 1.5}, 2),
    "a stream's": ("epoch", {"num_train_epochs": sys.maxsize}, 25),
    "the best of each evaluation": ("best", {"eval_steps": 5}, 5),
}


@pytest.mark.parametrize(("strategy", "state", "saves"), PLANS.values(), ids=PLANS)
def test_the_saves_of_a_run_are_counted(strategy, state, saves):
    args = SimpleNamespace(save_strategy=strategy, eval_strategy="steps")
    plain = {"max_steps": 25, "num_train_epochs": 3, "save_steps": 0, "eval_steps": 0}
    assert room.planned_saves(args, TrainerState(**{**plain, **state})) == saves


def test_an_export_is_refused_that_has_no_room(tiny_cross_encoder, tmp_path, monkeypatch, capfd):
    with monkeypatch.context() as patch:
        free_bytes(patch, 1000)
        words = ["--model", tiny_cross_encoder, "--to", "torchscript", "half", "--output", str(tmp_path / "exports")]
        assert "torchscript, half; free some space" in refuse(exporting.main, words, tmp_path / "exports", capfd)
    assert not (tmp_path / "exports").exists()


def test_what_a_full_disk_is_called():
    assert is_disk_full(OSError(errno.EDQUOT, "x")) and is_disk_full(RuntimeError("I/O error: No space left on device"))
    assert is_disk_full(RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 128 vs 22"))
    assert is_disk_full(RuntimeError("basic_ios::clear: iostream error"))
    assert not is_disk_full(OSError(errno.EACCES, "x")) and not is_disk_full(ValueError("a full house"))
