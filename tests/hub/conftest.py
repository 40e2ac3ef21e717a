"""The stand-in as this process's Hub, and a finished run with all that lies in its folder and must not leave."""

import json
import shutil

import pytest
from huggingface_hub import close_session, constants
from huggingface_hub.utils._xet import abort_xet_session

from pair_pkg.hub import upload
from pair_pkg.records import read_record, write_json, write_record
from tests.hub.stand_in import TOKEN, serve

SECRET = "hf_" + "Zq7" * 12
PRIVATE = "a customer's own words"


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in; huggingface_hub in this process speaks to it, with its token and without Xet."""
    with serve() as hub:
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        close_session()  # the next request makes a client that knows the line above
        yield hub
        close_session()


@pytest.fixture
def with_xet(hub, monkeypatch, tmp_path):
    """The same stand-in by the Xet path, the library's default, with the real hf_xet and nothing that it remembers."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setenv("HF_XET_CACHE", str(tmp_path / "xet"))
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_BASE_DELAY", "1ms")
    monkeypatch.setenv("HF_XET_CLIENT_RETRY_MAX_DURATION", "1s")
    abort_xet_session()
    yield hub
    abort_xet_session()


@pytest.fixture
def no_waiting(monkeypatch):
    """Pauses between attempts, as they would have been."""
    pauses = []
    monkeypatch.setattr(upload.time, "sleep", pauses.append)  # in the library's own attempts too
    for function in (upload.open_repository, upload.push_files):
        monkeypatch.setitem(function.__kwdefaults__, "wait", pauses.append)
    return pauses


@pytest.fixture
def model_dir(tiny_cross_encoder, tmp_path):
    """A finished run's folder, with all that lies in one and must not leave."""
    folder = tmp_path / "run"
    shutil.copytree(tiny_cross_encoder, folder)
    test = {"accuracy": 0.75, "correct": 75, "total": 100, "f1": 0.7, "mcc": None}
    metrics = {
        "test_split": "test",
        "test": test,
        "baselines": {"majority": {"accuracy": 0.5}},
        "intervals": {"confidence": 0.95, "bounds": {"model": {"accuracy": [0.66, 0.83]}, "majority": {}}},
        "decision": {"kind": "binary", "temperature": 1.0, "center": 0.0, "threshold": 0.5, "decide_by": "accuracy"},
        "calibration": {"test": {"before": {"ece": 0.2}, "after": {"ece": 0.05}}},
    }
    lineage = {"stage": "mlm", "base_model": "someone/base-encoder", "lineage": None}
    identity = {"model": str(tmp_path / "mlm"), "learning_rate": 5e-5}
    more = {"status": "finished", "stage": "pairs", "identity": identity, "metrics": metrics, "lineage": lineage}
    write_record(folder, {**read_record(folder), **more, "base_model": str(tmp_path / "mlm")})
    for name in ("training_args.bin", "optimizer.pt", ".env", "test_predictions.csv", "worst_pairs.csv", "report.html"):
        (folder / name).write_text(f"{PRIVATE} {SECRET}")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "model.safetensors").write_text(PRIVATE)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "_name_or_path": str(tmp_path / "mlm")})
    return folder
