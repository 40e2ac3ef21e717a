"""A damaged checkpoint is never taken silently: every file, damaged in every way."""

import logging
import pickle
import shutil
from pathlib import Path

import pytest

from benchmarks.damage import WAYS, damage_file, flip_bit
from pair_pkg.errors import EXIT_BAD_INPUT, run_door
from pair_pkg.records import read_json, read_record, write_json, write_record
from pair_pkg.stages import adapt
from pair_pkg.training import checkpoints
from pair_pkg.training.checkpoints import RUNNING, newest_checkpoint, rotate_checkpoints

SETTINGS = ("--max_steps=4", "--save_strategy=steps", "--save_steps=2", "--eval_strategy=no", "--max_train_samples=40")


@pytest.fixture(scope="module")
def two_runs(tmp_path_factory, tiny_bert, tiny_corpus, token_cache):
    """Folders of a run with checkpoints 2 and 4, and of an older one of another seed."""
    folder = tmp_path_factory.mktemp("runs")
    for name, seed in (("out", 1), ("older", 2)):
        words = [f"--model_name_or_path={tiny_bert}", f"--train_file={tiny_corpus}", "--use_cpu", "--bf16=false",
                 f"--token_cache_dir={token_cache}", f"--output_dir={folder / name}", "--max_seq_length=48",
                 f"--seed={seed}", *SETTINGS]  # fmt: skip
        adapt.main(words)
    return folder / "out", folder / "older"


@pytest.fixture
def run(two_runs, tmp_path):
    """A copy of the run, to be damaged."""
    return Path(shutil.copytree(two_runs[0], tmp_path / "out"))


@pytest.fixture
def other_files(two_runs):
    """What a file is swapped with: that of the checkpoint before, and that of another run."""
    return {"swapped": two_runs[0] / "checkpoint-2", "stale": two_runs[1] / "checkpoint-4"}


@pytest.fixture
def warnings(monkeypatch):
    """The warnings so far."""
    messages = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: messages.append(record.getMessage())
    monkeypatch.setattr(logging.getLogger("pair_pkg"), "handlers", [handler])
    return messages


def identity(run):
    return read_record(run)["identity"]


def test_every_file_damaged_in_every_way_is_named_and_passed_over(two_runs, other_files, tmp_path, warnings):
    whole = two_runs[0]
    names = sorted(path.name for path in (whole / "checkpoint-4").iterdir())
    assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"} < {*names}
    damages = 0
    for name in names:
        for how in WAYS:
            run = Path(shutil.copytree(whole, tmp_path / "out"))
            changed = damage_file(run / "checkpoint-4" / name, how, other_files)
            expected = "checkpoint-2" if changed else "checkpoint-4"  # settings are the same in both
            found = newest_checkpoint(run, identity(run))
            assert Path(found).name == expected, f"{name} {how}"
            assert len(warnings) == changed, f"{name} {how}"
            if changed and not (name == "manifest.json" and how in ("swapped", "stale")):
                assert warnings[0].startswith(f"{run}/checkpoint-4: {name} "), f"{name} {how}"
            damages += changed
            warnings.clear()
            shutil.rmtree(run)
    assert damages >= 4 * len(names) + 8


def test_without_the_manifest_damage_is_taken(run, other_files, monkeypatch):
    """The control: what is refused above is taken where nothing is verified."""
    monkeypatch.setattr(checkpoints, "find_damage", lambda checkpoint: None)
    assert damage_file(run / "checkpoint-4" / "optimizer.pt", "swapped", other_files)
    assert newest_checkpoint(run, identity(run)).endswith("checkpoint-4")


def test_a_checkpoint_of_another_step_or_run_or_with_more_files_is_passed_over(run, two_runs, warnings):
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-9")
    shutil.copytree(two_runs[1] / "checkpoint-4", run / "checkpoint-500").joinpath("manifest.json").write_text(
        (two_runs[1] / "checkpoint-4" / "manifest.json").read_text().replace('"step": 4', '"step": 500')
    )
    shutil.copytree(two_runs[1] / "checkpoint-2", run / "checkpoint-12")
    (run / "checkpoint-4" / "scaler.pt").write_bytes(pickle.dumps("anything"))
    assert newest_checkpoint(run, identity(run)).endswith("checkpoint-2")
    reasons = [message.split(": ", 1)[1].removesuffix("; an older checkpoint is taken") for message in warnings]
    assert reasons == [
        "manifest.json is damaged",  # a step that was written in by hand breaks the seal
        "it holds step 2",
        "it holds step 4",
        "scaler.pt is no file of it",
    ]


def test_a_stale_checkpoint_of_another_run_is_named(run, two_runs, warnings):
    shutil.rmtree(run / "checkpoint-4")
    shutil.copytree(two_runs[1] / "checkpoint-4", run / "checkpoint-4")
    assert newest_checkpoint(run, identity(run)).endswith("checkpoint-2")
    assert warnings == [f"{run}/checkpoint-4: it is of another run (seed: 2 -> 1); an older checkpoint is taken"]


def test_where_none_is_whole_the_run_starts_anew_and_says_so(run, warnings):
    for step in (2, 4):
        (run / f"checkpoint-{step}" / "optimizer.pt").write_bytes(b"")
    assert newest_checkpoint(run, identity(run)) is None
    assert warnings[-1] == f"{run}: no checkpoint is whole, so the run starts from its beginning"


def test_a_damaged_checkpoint_that_is_named_is_refused(run, two_runs, tiny_bert, tiny_corpus, token_cache, capsys):
    flip_bit(run / "checkpoint-4" / "model.safetensors", 3)
    words = [f"--model_name_or_path={tiny_bert}", f"--train_file={tiny_corpus}", "--use_cpu", "--bf16=false",
             f"--token_cache_dir={token_cache}", f"--output_dir={run}", "--max_seq_length=48", "--seed=1", *SETTINGS,
             f"--resume_from_checkpoint={run / 'checkpoint-4'}"]  # fmt: skip
    assert run_door(adapt.main, words) == EXIT_BAD_INPUT
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == (
        f"error: {run}/checkpoint-4: no whole checkpoint of this run (model.safetensors is not what was saved "
        "(sha256 differs)); give another folder checkpoint-N"
    )


def test_a_changed_setting_that_is_allowed_goes_on(run, tiny_bert, tiny_corpus, token_cache, capfd):
    """From the checkpoint that stands, with a line that names old and new; another change is still refused."""
    record = read_record(run)
    write_record(run, {**record, "status": RUNNING})
    (run / "checkpoint-4" / "optimizer.pt").unlink()
    words = [f"--model_name_or_path={tiny_bert}", f"--train_file={tiny_corpus}", "--use_cpu", "--bf16=false",
             f"--token_cache_dir={token_cache}", f"--output_dir={run}", "--max_seq_length=48", "--seed=1", *SETTINGS,
             "--weight_decay=0.1"]  # fmt: skip
    assert run_door(adapt.main, words) == EXIT_BAD_INPUT
    assert "weight_decay: 0.0 -> 0.1" in capfd.readouterr().err
    assert run_door(adapt.main, [*words, "--allow_changed", "seed"]) == EXIT_BAD_INPUT
    assert run_door(adapt.main, [*words, "--allow_changed", "weight_decay"]) == 0
    errors = capfd.readouterr().err
    assert "goes on changed, as --allow_changed says (weight_decay: 0.0 -> 0.1)" in errors
    assert "checkpoint-4: optimizer.pt is missing; an older checkpoint is taken" in errors
    assert read_json(run / "checkpoint-4" / "trainer_state.json")["global_step"] == 4


def test_rotation_deletes_old_checkpoints_of_this_run_only(run, two_runs):
    shutil.copytree(run / "checkpoint-4", run / "checkpoint-final-backup")
    shutil.copytree(two_runs[1] / "checkpoint-2", run / "checkpoint-1")
    (run / "checkpoint-3").mkdir()
    rotate_checkpoints(run, None, {4}, identity(run))
    rotate_checkpoints(run, 1, {2, 4}, identity(run))
    assert (run / "checkpoint-2").is_dir()  # the best one
    rotate_checkpoints(run, 1, {None, 4}, identity(run))
    left = sorted(path.name for path in run.glob("checkpoint-*"))
    assert left == ["checkpoint-1", "checkpoint-3", "checkpoint-4", "checkpoint-final-backup"]


def test_a_save_leaves_nothing_but_whole_checkpoints(run):
    assert sorted(path.name for path in run.iterdir() if path.name.startswith(".")) == []
    manifest = read_json(run / "checkpoint-4" / "manifest.json")
    assert manifest["step"] == 4 and manifest["identity"] == identity(run) and manifest["scheduled"]
    write_json(run / "checkpoint-4" / "manifest.json", {**manifest, "scheduled": False})
    assert newest_checkpoint(run, identity(run)).endswith("checkpoint-2")
