"""Whose folder it is; and a run that was cut off and continued is the run that was not."""

import functools
import logging
from pathlib import Path

import pytest
from transformers import TrainerCallback

from pair_pkg.errors import EXIT_INTERRUPTED, InputError, run_door
from pair_pkg.records import read_record
from pair_pkg.stages import adapt, mlm_trainer
from pair_pkg.training.checkpoints import FINISHED, RUNNING, Opened, begin_run, newest_checkpoint, open_run
from pair_pkg.training.manifest import seal_checkpoint
from pair_pkg.training.trainer import StageTrainer

IDENTITY = {"learning_rate": 1e-4, "seed": 1}


# A folder and what stands in it.


def checkpoint(folder, step, whole=True, identity=None):
    path, written = folder / f"checkpoint-{step}", folder / ".saving" / f"checkpoint-{step}"
    written.mkdir(parents=True)
    (written / "trainer_state.json").write_text("{}")
    if whole:
        facts = {"step": step, "identity": identity or IDENTITY, "can_be_continued": True, "scheduled": True}
        facts |= {"at_epoch_end": False, "not_logged": {}}
        seal_checkpoint(written, path, facts)
    else:
        written.rename(path)
    return str(path)


def begin(folder, identity=None, **record):
    begin_run(str(folder), {"identity": identity or IDENTITY, **record}, keep_checkpoints=True)


def test_a_new_and_an_empty_folder_are_free(tmp_path):
    assert open_run(str(tmp_path / "new"), IDENTITY) == open_run(str(tmp_path), IDENTITY) == Opened()
    assert not (tmp_path / "new").exists()


def test_the_same_run_is_continued_from_its_newest_checkpoint(tmp_path):
    begin(tmp_path)
    assert read_record(tmp_path)["status"] == RUNNING
    assert open_run(str(tmp_path), IDENTITY) == Opened()
    checkpoint(tmp_path, 9)
    newest = checkpoint(tmp_path, 10)  # by number, not by name
    assert open_run(str(tmp_path), IDENTITY) == Opened(checkpoint=newest)


def test_a_broken_checkpoint_is_named_and_passed_over(tmp_path, caplog):
    whole = checkpoint(tmp_path, 4)
    broken = checkpoint(tmp_path, 8, whole=False)
    (tmp_path / "checkpoint-best").mkdir()
    assert newest_checkpoint(tmp_path, IDENTITY) == whole
    assert [record.getMessage() for record in caplog.records] == [
        f"{broken}: manifest.json is missing, it was not saved to its end; an older checkpoint is taken"
    ]


def test_a_finished_run_is_found(tmp_path):
    begin(tmp_path, status=FINISHED, metrics={"eval_loss": 1.0})
    assert open_run(str(tmp_path), IDENTITY).finished["metrics"] == {"eval_loss": 1.0}


def test_another_run_is_refused_with_old_and_new(tmp_path):
    begin(tmp_path)
    with pytest.raises(InputError, match="learning_rate: 0.0001 -> 0.0002.*--overwrite_output_dir"):
        open_run(str(tmp_path), {**IDENTITY, "learning_rate": 2e-4})
    with pytest.raises(InputError, match="optim: None -> sgd"):
        open_run(str(tmp_path), {**IDENTITY, "optim": "sgd"})
    assert open_run(str(tmp_path), {**IDENTITY, "seed": 2}, overwrite=True) == Opened()
    assert open_run(str(tmp_path), {**IDENTITY, "seed": 2}, replace_other=True) == Opened()


def test_many_changes_are_cut_short(tmp_path):
    begin(tmp_path, identity={f"a{number}": 0 for number in range(9)})
    with pytest.raises(InputError, match="a4: 0 -> 1 and 4 more") as caught:
        open_run(str(tmp_path), {f"a{number}": 1 for number in range(9)})
    assert "a5" not in str(caught.value)


def test_foreign_model_files_and_a_file_are_refused(tmp_path):
    (tmp_path / "model.safetensors").write_text("")
    with pytest.raises(InputError, match="holds model.safetensors of something else"):
        open_run(str(tmp_path), IDENTITY)
    with pytest.raises(InputError, match="is a file"):
        open_run(str(tmp_path / "model.safetensors"), IDENTITY)


def test_a_checkpoint_that_is_named(tmp_path):
    newest = checkpoint(tmp_path / "mine", 3)
    broken = checkpoint(tmp_path / "mine", 5, whole=False)
    mine, other = str(tmp_path / "mine"), str(tmp_path / "other")
    assert open_run(mine, IDENTITY, resume_from_checkpoint="True") == Opened(checkpoint=newest)
    assert open_run(other, IDENTITY, resume_from_checkpoint=newest) == Opened(checkpoint=newest)
    with pytest.raises(InputError, match="checkpoint-5: no whole checkpoint of this run .manifest.json is missing"):
        open_run(mine, IDENTITY, resume_from_checkpoint=broken)
    with pytest.raises(InputError, match="it is of another run .seed: 1 -> 2"):
        open_run(mine, {**IDENTITY, "seed": 2}, resume_from_checkpoint=newest)
    with pytest.raises(InputError, match="holds no checkpoint to resume"):
        open_run(other, IDENTITY, resume_from_checkpoint="true")


def test_beginning_anew_clears_checkpoints_and_nothing_else(tmp_path):
    for name in ("checkpoint-3", "checkpoint-notes", "tokenizer"):
        (tmp_path / name).mkdir()
    begin_run(str(tmp_path), {"identity": IDENTITY}, keep_checkpoints=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-notes", "run.json", "tokenizer"]


def test_a_folder_that_cannot_be_written_is_the_users_to_mend(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        begin_run(str(tmp_path / "file" / "run"), {}, keep_checkpoints=False)


# Interrupted and continued. 40 rows in batches of 8: an epoch is 5 steps, or 3 with two micro-steps each.


class Interrupt(TrainerCallback):
    """The user's Ctrl-C once ``step`` steps are done."""

    def __init__(self, step):
        self.step = step

    def on_step_begin(self, args, state, control, **settings):
        if state.global_step == self.step:
            raise KeyboardInterrupt


@pytest.fixture
def run(mlm_words, tmp_path, monkeypatch):
    """``run(name, *flags, interrupt=step)``: stage 1 with dropout into a folder; the exit status."""

    def run_stage(name, *flags, interrupt=None):
        callbacks = [] if interrupt is None else [Interrupt(interrupt)]
        monkeypatch.setattr(mlm_trainer, "StageTrainer", functools.partial(StageTrainer, callbacks=callbacks))
        settings = ("--max_train_samples=40", "--num_train_epochs=3", "--save_strategy=steps", "--save_steps=4",
                    "--learning_rate=1e-3", "--eval_steps=3", "--attention_probs_dropout_prob=0.1")  # fmt: skip
        return run_door(adapt.main, mlm_words(tmp_path / name, *settings, *flags))

    return run_stage


def newest(folder):
    return newest_checkpoint(folder, read_record(folder)["identity"])


CASES = [
    pytest.param(6, "checkpoint-4", [], id="within epoch 0"),
    pytest.param(9, "checkpoint-8", [], id="within epoch 1"),
    pytest.param(5, "checkpoint-5", ["--save_steps=5"], id="between epochs"),
    pytest.param(2, None, [], id="before the first checkpoint"),
    pytest.param(5, "checkpoint-4", ["--gradient_accumulation_steps=2"], id="two micro-steps"),
    pytest.param(9, "checkpoint-8", ["--dataloader_num_workers=2"], id="two workers", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("step", "expected", "flags"), CASES)
def test_a_continued_run_is_bit_equal(run, same_run, tmp_path, monkeypatch, step, expected, flags):
    monkeypatch.delattr("accelerate.data_loader.SkipBatchSampler.__iter__")  # no batch is drawn to be dropped
    assert run("whole", *flags) == 0
    assert run("cut", *flags, interrupt=step) == EXIT_INTERRUPTED
    found = newest(tmp_path / "cut")
    assert (Path(found).name if found else None) == expected
    assert read_record(tmp_path / "cut")["status"] == RUNNING and not (tmp_path / "cut/model.safetensors").exists()
    assert run("cut", *flags) == 0
    same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_continued_run_passes_over_a_broken_checkpoint(run, same_run, tmp_path, caplog):
    assert run("whole") == 0
    assert run("cut", interrupt=9) == EXIT_INTERRUPTED
    (tmp_path / "cut/checkpoint-8/trainer_state.json").unlink()
    messages = []
    logging.getLogger("pair_pkg").addHandler(handler := logging.Handler())
    handler.emit = lambda record: messages.append(record.getMessage())
    assert run("cut") == 0
    assert f"{tmp_path}/cut/checkpoint-8: trainer_state.json is missing; an older checkpoint is taken" in messages
    same_run(tmp_path / "cut", tmp_path / "whole")


def test_a_finished_run_is_not_run_again(run, tmp_path, mlm_words, monkeypatch, capsys):
    assert run("out") == 0
    before = {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*"))}
    first = capsys.readouterr().out
    assert run("out", interrupt=0) == 0  # would stop before the first step
    assert {path: path.stat().st_mtime_ns for path in sorted((tmp_path / "out").rglob("*"))} == before
    second = capsys.readouterr().out
    assert "this run is finished" in second
    line = next(line for line in first.splitlines() if line.startswith("perplexity"))
    assert line in second


def test_a_changed_learning_rate_is_refused_and_overwriting_starts_anew(run, same_run, tmp_path, capsys):
    assert run("cut", interrupt=9) == EXIT_INTERRUPTED
    assert run("cut", "--learning_rate=2e-3") == 2
    assert "learning_rate: 0.001 -> 0.002" in capsys.readouterr().err.splitlines()[-1]
    assert newest(tmp_path / "cut").endswith("checkpoint-8")
    assert run("cut", "--learning_rate=2e-3", "--overwrite_output_dir") == 0
    assert run("fresh", "--learning_rate=2e-3") == 0
    same_run(tmp_path / "cut", tmp_path / "fresh")
