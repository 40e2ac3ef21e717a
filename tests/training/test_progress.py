"""What a training shows on a terminal, and what without one."""

import fcntl
import json
import logging
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest
import torch

from pair_pkg.__main__ import main as command
from pair_pkg.errors import InputError, run_door
from pair_pkg.stages import finetune
from pair_pkg.training import progress

ROOT = Path(__file__).parents[2]


@pytest.fixture
def trainer(build_model, build_trainer):
    """``trainer(...)``: three logged steps of a small cross-encoder, an evaluation behind each."""

    def build(**arguments):
        return build_trainer(build_model(), eval_strategy="steps", **arguments)

    return build


def test_a_bar_shows_steps_rate_loss_and_end(trainer, capsys):
    trainer(disable_tqdm=False).train()
    output, errors = capsys.readouterr()
    assert re.search(r"100%\|.*\| step 3/3, [\d,]+ tokens/s, loss \d\.\d{4}, ends \d\d:\d\d:\d\d", errors)
    for step in (1, 2, 3):
        assert re.search(rf"step {step}: loss \d\.\d{{4}}, [\d,]+ tokens/s, learning rate .*, gradient norm ", errors)
        assert re.search(rf"step {step}, validation: loss \d.*accuracy ", errors)
    assert output == ""  # results only are there


def test_a_slow_evaluation_gets_a_bar_of_its_batches(trainer, capsys, monkeypatch):
    one = trainer(disable_tqdm=False, per_device_eval_batch_size=4)
    one.evaluate()
    assert "\r" not in capsys.readouterr().err  # it was quick
    monkeypatch.setattr(progress, "QUICK_SECONDS", 0)
    one.evaluate()
    batches = len(one.get_eval_dataloader())
    assert batches > 1 and f"evaluating, batch 0/{batches}" in capsys.readouterr().err
    assert one.progress.batches_bar is None


def test_a_continued_run_begins_its_bar_where_it_is(trainer, capsys):
    one = trainer(disable_tqdm=False)
    one.state.global_step, one.state.max_steps = 100, 400
    one._tr_loss = torch.tensor(0.0)
    one.progress.on_train_begin(one.args, one.state, one.control)
    one.progress.close()
    assert "step 100/400" in capsys.readouterr().err


def test_without_a_terminal_a_line_comes_now_and_then(trainer, capsys, caplog, monkeypatch):
    with caplog.at_level(logging.INFO, "pair_pkg"):
        trainer().train()
    lines = [record.getMessage() for record in caplog.records]
    assert [line for line in lines if line.startswith("training")] == []  # three steps take no half minute
    assert len([line for line in lines if re.match(r"step \d, validation: loss ", line)]) == 3
    caplog.clear()
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    with caplog.at_level(logging.INFO, "pair_pkg"):
        trainer().train()
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("training")]
    assert len(lines) == 2  # the last step is told by what comes behind it
    assert re.fullmatch(r"training: step 1 of 3, [\d,]+ tokens/s, loss \d\.\d{4}, ends [\d:]+", lines[0])
    assert capsys.readouterr().out == ""


def test_the_shown_loss_is_the_logged_one(trainer, caplog, monkeypatch):
    monkeypatch.setattr(progress, "LOG_SECONDS", 0)
    shown = []
    one = trainer(max_steps=4)
    monkeypatch.setattr(one.progress, "describe", lambda loss: shown.append(loss) or "")
    with caplog.at_level(logging.INFO, "pair_pkg"):
        one.train()
    logged = [entry["loss"] for entry in one.state.log_history if "loss" in entry]
    window_means = [sum(logged[: step + 1]) / (step + 1) for step in range(3)]  # all steps lie in the window
    assert shown == pytest.approx(window_means, abs=1e-3)


def in_terminal(words):
    """Run a command with a terminal on both streams; gives its status and what came."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.environ["OMP_NUM_THREADS"] = "1"
        os.execv(sys.executable, [sys.executable, *words])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))  # rows, columns
    seen = bytearray()
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not part:
            break
        seen += part
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), seen.decode()


@pytest.mark.slow
def test_stage_1_in_a_real_terminal_shows_its_perplexity(mlm_words, tmp_path):
    status, seen = in_terminal(["run_mlm.py", *mlm_words(tmp_path / "out", "--max_steps=4", "--eval_steps=2")])
    assert status == 0
    assert re.search(r"step 4/4, [\d,]+ tokens/s, perplexity [\d.,]+, ends \d\d:\d\d:\d\d", seen)
    assert "step 2, validation: loss " in seen and "masked tokens" in seen


@pytest.mark.slow
def test_a_pipe_gets_no_bar_and_no_more_than_asked_for(mlm_words, tmp_path):
    words = mlm_words(tmp_path / "out", "--max_steps=4", "--eval_steps=2", "--log_level=warning")
    run = subprocess.run(
        [sys.executable, "run_mlm.py", *words], cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert run.stderr == ""
    assert "\r" not in run.stdout and "perplexity" in run.stdout


def test_the_level_of_a_command_is_set(tmp_path):
    logger = logging.getLogger("pair_pkg")
    command(["doctor", "--log_level", "error", "--output_dir", str(tmp_path)])
    assert logger.level == logging.ERROR
    finetune.parse(["--model_name_or_path=m", "--train_file=f", "--output_dir=o", "--log_level=warning"])
    assert logger.level == logging.WARNING
    finetune.parse(["--model_name_or_path=m", "--train_file=f", "--output_dir=o"])
    assert logger.level == logging.WARNING
    with pytest.raises(InputError, match="invalid choice: 'loud'"):
        command(["doctor", "--log_level", "loud"])


def test_debug_shows_the_traceback_and_leaves_the_librarys_own_alone(capsys):
    heard = []

    def fail(words):
        heard.append(words)
        raise InputError("no such file")

    assert run_door(fail, ["a", "--debug", "--b"]) == 2
    errors = capsys.readouterr().err
    assert "Traceback" in errors and errors.endswith("error: no such file\n")
    assert run_door(fail, ["a", "--debug", "underflow_overflow"]) == 2
    assert capsys.readouterr().err == "error: no such file\n"
    assert heard == [["a", "--b"], ["a", "--debug", "underflow_overflow"]]
    flags = finetune.parse(
        ["--model_name_or_path=m", "--train_file=f", "--output_dir=o", "--debug", "underflow_overflow"]
    )
    assert json.loads(flags.training.to_json_string())["debug"] == ["underflow_overflow"]
