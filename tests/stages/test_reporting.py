"""What ``--report_to`` gets of both stages: TensorBoard's file, read again, and any other target of the library."""

import csv
import math

import pytest
from transformers import TrainerCallback
from transformers.integrations import integration_utils

from pair_pkg.records import read_json
from pair_pkg.stages import adapt, finetune

event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


class Recorder(TrainerCallback):
    """A target that keeps what it is told."""

    heard: list = []

    def on_log(self, args, state, control, logs=None, **settings):
        self.heard.append((state.global_step, dict(logs)))


@pytest.fixture(autouse=True)
def recorder(monkeypatch):
    """``--report_to recorder`` is a target among the library's."""
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "recorder", Recorder)
    monkeypatch.setattr(Recorder, "heard", [])
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)


@pytest.fixture
def pair_file(tmp_path, tiny_pairs):
    path = tmp_path / "pairs.csv"
    rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 60][1], n % 2) for n in range(60)]
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])
    return path


def scalars_of(folder):
    """``{name: {step: value}}`` of the event file below a run's folder."""
    (path,) = folder.glob("runs/*/events.out.tfevents.*")
    events = event_accumulator.EventAccumulator(str(path)).Reload()
    return {name: {event.step: event.value for event in events.Scalars(name)} for name in events.Tags()["scalars"]}


def check_like_the_log(scalars, folder, names):
    """The event file, the other target and the run's own log say the same of ``names``."""
    log = read_json(folder / "log_history.json")
    for name in names:
        logged = {entry["step"]: entry[name] for entry in log if name in entry}
        told = {step: logs[name] for step, logs in Recorder.heard if name in logs}
        written = scalars[f"eval/{name.removeprefix('eval_')}" if name.startswith("eval_") else f"train/{name}"]
        assert logged and written == pytest.approx(logged, rel=1e-6) and told == logged, name


def test_stage_1_reports_perplexity_probe_and_tokens_a_second(mlm_words, pair_file, tmp_path):
    words = mlm_words(tmp_path / "out", "--max_steps=4", "--eval_steps=2", "--report_to", "tensorboard", "recorder")
    metrics = adapt.main([*words, f"--pair_file={pair_file}"])
    scalars = scalars_of(tmp_path / "out")
    names = ("eval_loss", "eval_perplexity", "eval_probe", "loss", "learning_rate", "grad_norm", "tokens_per_second")
    check_like_the_log(scalars, tmp_path / "out", names)
    assert list(scalars["eval/perplexity"]) == [0, 2, 4] and list(scalars["train/tokens_per_second"]) == [1, 2, 3, 4]
    assert scalars["eval/perplexity"][4] == pytest.approx(metrics["eval_perplexity"], rel=1e-6)
    assert scalars["eval/perplexity"][4] == pytest.approx(math.exp(scalars["eval/loss"][4]), rel=1e-5)
    assert scalars["eval/probe"][4] == pytest.approx(metrics["eval_probe"], rel=1e-6)
    assert min(scalars["train/tokens_per_second"].values()) > 0


def test_stage_2_reports_its_metrics_and_tokens_a_second(tiny_bert, pair_file, tmp_path):
    finetune.main(
        [
            f"--model_name_or_path={tiny_bert}",
            f"--train_file={pair_file}",
            f"--output_dir={tmp_path / 'out'}",
            "--max_seq_length=40",
            "--max_steps=4",
            "--logging_steps=2",
            "--eval_strategy=steps",
            "--save_strategy=no",
            "--bf16=false",
            "--use_cpu=true",
            "--report_to",
            "tensorboard",
            "recorder",
        ]  # fmt: skip
    )
    scalars = scalars_of(tmp_path / "out")
    names = ("eval_loss", "eval_accuracy", "eval_average_precision", "loss", "tokens_per_second")
    check_like_the_log(scalars, tmp_path / "out", names)
    assert list(scalars["train/tokens_per_second"]) == [2, 4]
