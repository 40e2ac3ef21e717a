"""Told to stop, a run stops with everything saved and status 75; continued, it is the run that was not told."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from transformers import TrainerCallback

from pair_pkg.data import draws, row_files, rows
from pair_pkg.errors import EXIT_INTERRUPTED, run_door
from pair_pkg.interrupts import Interrupted, deferred, obey_signals, was_signalled
from pair_pkg.records import read_json, read_record
from pair_pkg.stages import adapt, mlm_data, mlm_trainer
from pair_pkg.training.manifest import find_damage
from pair_pkg.training.trainer import StageTrainer

# The signals themselves.


def test_a_signal_stops_work_at_once_and_its_handler_is_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="SIGTERM: stopped"), obey_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("it went on")
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_deferred_signal_waits_for_the_end_of_the_block(capfd):
    with pytest.raises(Interrupted, match="SIGINT"), obey_signals():
        with deferred():
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
            assert was_signalled()
            os.kill(os.getpid(), signal.SIGTERM)  # a launcher's, behind that of the terminal
            time.sleep(0.01)
        raise AssertionError("it went on")
    assert capfd.readouterr().err == "SIGINT: stops when what is done is saved\n"


def test_the_third_ctrl_c_waits_for_nothing():
    with pytest.raises(Interrupted), obey_signals(), deferred():
        for _ in range(3):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.01)
        raise AssertionError("it went on")


# In a run. 40 rows in batches of 8: an epoch is 5 steps.


class At(TrainerCallback):
    """Does something at the ``count``-th call of an event."""

    def __init__(self, event, count, act):
        self.left, self.act = count, act
        setattr(self, event, self.call)

    def call(self, args, state, control, **settings):
        self.left -= 1
        if self.left == 0:
            self.act()


def send(number):
    return lambda: os.kill(os.getpid(), number)


def die():
    raise KeyboardInterrupt  # what nothing handles, as a kill


TERMINATE = send(signal.SIGTERM)


@pytest.fixture
def run(mlm_words, tmp_path, monkeypatch):
    """``run(name, flags, event, count, act)``: stage 1 with dropout into a folder; the exit status."""

    def run_stage(name, flags, event=None, count=1, act=TERMINATE):
        callbacks = [] if event is None else [At(event, count, act)]
        monkeypatch.setattr(mlm_trainer, "StageTrainer", functools.partial(StageTrainer, callbacks=callbacks))
        settings = ("--max_train_samples=40", "--max_eval_samples=17", "--validation_split_percentage=20",
                    "--per_device_eval_batch_size=8", "--max_steps=8", "--no_report_slices",
                    "--attention_probs_dropout_prob=0.1",
                    "--learning_rate=1e-3")  # fmt: skip
        return run_door(adapt.main, mlm_words(tmp_path / name, *settings, *flags))

    return run_stage


STEPS = ("--save_strategy=steps", "--save_steps=3", "--eval_strategy=steps", "--eval_steps=2", "--logging_steps=4")
EPOCHS = ("--save_strategy=epoch", "--eval_strategy=epoch", "--logging_strategy=epoch", "--max_steps=10")
MIXED = ("--save_strategy=steps", "--save_steps=5", "--eval_strategy=epoch", "--logging_strategy=epoch")
BEST = ("--save_strategy=steps", "--save_steps=2", "--eval_strategy=steps", "--eval_steps=2", "--logging_steps=3",
        "--load_best_model_at_end", "--learning_rate=2e-2")  # fmt: skip
# Flags, event, its count, and the checkpoint that the interrupted run leaves.
SIGNALS = {
    "in a step": (STEPS, "on_step_begin", 3, "checkpoint-3"),
    "in the first step": (STEPS, "on_step_begin", 1, "checkpoint-1"),
    "in the evaluation before": (STEPS, "on_prediction_step", 2, None),
    "in an evaluation": (STEPS, "on_prediction_step", 5, "checkpoint-2"),
    "in a save": (STEPS, "on_save", 1, "checkpoint-3"),
    "in the last step": (STEPS, "on_step_end", 8, "checkpoint-8"),
    "in the last evaluation": (STEPS, "on_prediction_step", 14, "checkpoint-8"),
    "at the end of an epoch": (EPOCHS, "on_epoch_end", 1, "checkpoint-5"),
    "in the last step of an epoch": (EPOCHS, "on_step_end", 5, "checkpoint-5"),
    "in the evaluation of an epoch": (EPOCHS, "on_prediction_step", 5, "checkpoint-5"),
    "within an epoch": (EPOCHS, "on_step_end", 7, "checkpoint-7"),
    "between two duties of an epoch": (MIXED, "on_prediction_step", 5, "checkpoint-5"),
    "best so far, not to be saved": (BEST, "on_step_end", 3, "checkpoint-3"),
    "best so far, in an evaluation": (BEST, "on_prediction_step", 8, "checkpoint-4"),
    "without saves": (("--save_strategy=no",), "on_step_end", 4, "checkpoint-4"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folders of runs that nothing interrupted, by their flags."""
    return {}, tmp_path_factory.mktemp("whole")


@pytest.fixture
def same_end(run, same_run, finished, tmp_path):
    """``same_end(flags)``: the run ``cut`` ended as one with these flags that nothing interrupted."""
    folders, parent = finished

    def check(flags):
        if flags not in folders:
            folders[flags] = parent / str(len(folders))
            assert run(folders[flags], flags) == 0
        same_run(tmp_path / "cut", folders[flags])

    return check


@pytest.mark.parametrize(("flags", "event", "count", "expected"), SIGNALS.values(), ids=SIGNALS)
def test_a_signalled_run_is_saved_and_continues_bit_equal(
    run, same_end, tmp_path, capfd, flags, event, count, expected
):
    assert run("cut", flags, event, count) == EXIT_INTERRUPTED
    errors = capfd.readouterr().err
    assert "interrupted: SIGTERM: " in errors or "interrupted: told to stop" in errors
    assert "Traceback" not in errors
    steps = [int(path.name.split("-")[1]) for path in (tmp_path / "cut").glob("checkpoint-*")]
    assert (f"checkpoint-{max(steps)}" if steps else None) == expected
    assert read_record(tmp_path / "cut")["status"] == "running"
    assert run("cut", flags) == 0
    same_end(flags)


KILLS = {
    "behind the last save": (STEPS, "on_save", 3),
    "behind the save before an epoch's duties": (MIXED, "on_save", 1),
    "in the evaluation of an epoch": (MIXED, "on_prediction_step", 5),
    "behind the save of the last epoch": (EPOCHS, "on_save", 2),
    "within what is logged together": (STEPS, "on_step_begin", 8),
    "twice best": (BEST, "on_step_begin", 7),
}


@pytest.mark.parametrize(("flags", "event", "count"), KILLS.values(), ids=KILLS)
def test_a_run_that_was_cut_off_continues_bit_equal(run, same_end, flags, event, count):
    assert run("cut", flags, event, count, die) == EXIT_INTERRUPTED
    assert run("cut", flags) == 0
    same_end(flags)


def test_a_run_that_is_interrupted_again_and_again_ends_the_same(run, same_end):
    for event, count in (("on_step_begin", 3), ("on_step_begin", 2), ("on_prediction_step", 1), ("on_step_begin", 1)):
        assert run("cut", STEPS, event, count, send(signal.SIGINT)) == EXIT_INTERRUPTED
    assert run("cut", STEPS) == 0
    same_end(STEPS)


def test_a_run_over_parts_of_rows_continues_bit_equal(run, same_end, monkeypatch):
    """Large corpora are split, cut and shuffled in parts; here seven documents, windows or rows are one."""
    for module in (draws, rows, row_files):
        monkeypatch.setattr(module, "PART", 7)
    flags = (*STEPS, "--seed=5")
    assert run("cut", flags, "on_step_begin", 4) == EXIT_INTERRUPTED
    assert run("cut", flags) == 0
    same_end(flags)


def test_without_the_epochs_unfinished_duties_the_logs_differ(run, same_end, monkeypatch):
    """The control: what ``_continue`` does is what makes the logs equal."""
    assert run("cut", MIXED, "on_save", 1, die) == EXIT_INTERRUPTED
    with monkeypatch.context() as patch:
        patch.setattr(StageTrainer, "_continue", lambda trainer: None)
        assert run("cut", MIXED) == 0
    with pytest.raises(AssertionError):
        same_end(MIXED)


def test_the_preparation_of_data_stops_at_once_and_leaves_no_half(mlm_words, tmp_path, monkeypatch, capfd):
    cache = tmp_path / "cache"
    reading = mlm_data.load_rows

    def signalled(*arguments, **settings):
        source, *rest = arguments
        documents = type(source).documents

        def slow(self, audit):
            for number, document in enumerate(documents(self, audit)):
                if number == 50:
                    os.kill(os.getpid(), signal.SIGTERM)
                yield document

        monkeypatch.setattr(type(source), "documents", slow)
        return reading(source, *rest, **settings)

    with monkeypatch.context() as patch:
        patch.setattr(mlm_data, "load_rows", signalled)
        assert run_door(adapt.main, mlm_words(tmp_path / "out", f"--token_cache_dir={cache}")) == EXIT_INTERRUPTED
    monkeypatch.undo()
    assert list(cache.iterdir()) == [] and not (tmp_path / "out").exists()
    assert "interrupted: SIGTERM: stopped" in capfd.readouterr().err


# As the system sends them: to a launcher, which may die of it, and to one worker of two.

ROOT = Path(__file__).parents[2]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=1", "--cpu", "--num_machines=1",
              "--mixed_precision=no", "--dynamo_backend=no"]  # fmt: skip


@pytest.fixture
def launched(mlm_words, tmp_path):
    """``launched(launcher)``: the process of an endless run that has begun to train, and those below it."""
    processes = []

    def launch(launcher, *flags):
        words = mlm_words(tmp_path / "out", "--max_steps=1000000", "--eval_strategy=no", *flags)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
        log = tmp_path / "log"
        with open(log, "wb") as file:
            process = subprocess.Popen(
                [*launcher, str(ROOT / "run_mlm.py"), *words],
                cwd=ROOT, start_new_session=True, env=environment, stdout=file, stderr=file,
            )  # fmt: skip
        processes.append(process)
        for _ in range(900):
            if "step 0, validation" in log.read_text():  # the last line before the first step
                time.sleep(1)
                return process, psutil.Process(process.pid).children(recursive=True)
            assert process.poll() is None, log.read_text()[-3000:]
            time.sleep(0.1)
        raise AssertionError(log.read_text()[-3000:])

    yield launch
    for process in processes:
        process.kill()


def assert_saved(folder, process, family):
    """The run is saved to the step, and nothing of it is left behind."""
    log = folder / "log"
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive, log.read_text()[-3000:]
    assert "saved behind step" in log.read_text()
    (saved,) = (folder / "out").glob("checkpoint-*")
    assert find_damage(saved) is None and read_json(saved / "manifest.json")["scheduled"] is False


@pytest.mark.slow
def test_the_death_of_a_launcher_saves_and_leaves_no_orphan(launched, tmp_path):
    """``accelerate launch`` of one process dies of SIGTERM and tells nobody."""
    process, family = launched(ACCELERATE)
    assert any("run_mlm.py" in " ".join(child.cmdline()) for child in family)
    process.terminate()
    assert_saved(tmp_path, process, family)


@pytest.mark.slow
def test_a_signal_to_one_worker_stops_and_saves_all(launched, tmp_path):
    process, family = launched(TORCHRUN, "--ddp_backend=gloo", "--dataloader_num_workers=1")
    workers = [child for child in psutil.Process(process.pid).children() if "run_mlm.py" in " ".join(child.cmdline())]
    assert len(workers) == 2
    workers[1].terminate()
    assert_saved(tmp_path, process, family)
