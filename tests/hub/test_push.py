"""A push against a stand-in for the Hub: what arrives, what never leaves, and what a fault leads to."""

import json
import os
import shutil

import pytest
import torch
import yaml
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

from pair_pkg.errors import InputError, PushFailure, run_door
from pair_pkg.hub import upload
from pair_pkg.records import read_record, write_json, write_record
from pair_pkg.report.card import build_card
from pair_pkg.stages import push

SECRET = "hf_" + "Zq7" * 12
PRIVATE = "a customer's own words"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    """Pauses between attempts, as they would have been."""
    pauses = []
    monkeypatch.setattr(upload.time, "sleep", pauses.append)
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


def test_the_model_arrives_whole_and_nothing_else_leaves(hub, model_dir, tmp_path, capsys):
    result = push.main([str(model_dir), "pump-pairs", "--license", "apache-2.0", "--language", "en", "zh"])
    repository = hub.repositories["someone/pump-pairs"]
    files = repository["commits"][-1]
    assert result["repo"] == "someone/pump-pairs" and repository["private"]
    expected = {"README.md", "config.json", "decision.json", "model.safetensors", "run.json"}
    assert set(files) - {"tokenizer.json", "tokenizer_config.json"} == expected and "tokenizer.json" in files
    assert files["model.safetensors"] == (model_dir / "model.safetensors").read_bytes()
    sent = b"\n".join(body for *_, body in hub.requests)
    for content in (sent, *files.values()):
        for private in (PRIVATE, SECRET, hub.token, str(tmp_path)):
            assert private.encode() not in content
    assert {authorization for _, path, authorization, _ in hub.requests if path.startswith("/objects/")} == {None}
    assert f"commit {result['commit']}" in capsys.readouterr().out


def test_what_arrived_loads_and_scores_as_before(hub, model_dir, tmp_path):
    push.main([str(model_dir), "someone/pump-pairs"])
    copy = tmp_path / "copy"
    copy.mkdir()
    for name, content in hub.repositories["someone/pump-pairs"]["commits"][-1].items():
        (copy / name).write_bytes(content)
    ids = torch.tensor([[2, 7, 9, 3, 11, 3]])
    models = [AutoModelForSequenceClassification.from_pretrained(folder).eval() for folder in (model_dir, copy)]
    with torch.no_grad():
        assert torch.equal(*(model(ids).logits for model in models))


def test_the_card_says_what_the_record_says(hub, model_dir):
    push.main([str(model_dir), "someone/pump-pairs", "--license", "mit"])
    card = hub.repositories["someone/pump-pairs"]["commits"][-1]["README.md"].decode()
    head = yaml.safe_load(card.split("---")[1])
    assert head["license"] == "mit" and head["base_model"] == "someone/base-encoder"
    assert head["pipeline_tag"] == "text-classification" and head["library_name"] == "transformers"
    assert {"pair_pkg", "sentence-transformers", "cross-encoder"} == set(head["tags"])
    assert head["widget"][0] == {"text": "The pump starts by itself. [SEP] The pump begins to run on its own."}
    results = head["model-index"][0]["results"][0]
    accuracy = next(part for part in results["metrics"] if part["type"] == "accuracy")
    assert accuracy["value"] == 0.75
    assert accuracy["args"] == {"interval": {"low": 0.66, "high": 0.83, "confidence": 0.95}}
    assert "| accuracy | 75.0 % | 66.0 to 83.0 | 50.0 % |" in card
    assert 'CrossEncoder("someone/pump-pairs")' in card and "**0.5000**" in card
    assert "`someone/base-encoder` -> masked-language-model" in card


@pytest.mark.parametrize(
    ("stage", "architecture", "pipeline", "library", "example"),
    [
        ("mlm", None, "fill-mask", "transformers", {"text": "水泵又<mask>了。"}),
        (
            "pairs",
            "bi_encoder",
            "sentence-similarity",
            "sentence-transformers",
            {"source_sentence": "水泵自己启动了。", "sentences": ["水泵自动开始运转。", "盖子是蓝色的。"]},
        ),
    ],
)
def test_the_widget_has_examples_in_the_languages_and_tokens_of_the_model(
    stage, architecture, pipeline, library, example
):
    labels = {"kind": "binary", "names": ["0", "1"]}
    record = {"stage": stage, "architecture": architecture, "labels": labels}
    tokens = {"mask": "<mask>", "sep": "</s>"}
    card = build_card(record, repo_id="me/model", language=["fr", "zh"], special_tokens=tokens)
    assert card.data.pipeline_tag == pipeline and card.data.library_name == library
    assert yaml.safe_load(str(card).split("---")[1])["widget"] == [example]


def test_a_dry_run_shows_the_files_and_speaks_to_nobody(hub, model_dir, capsys):
    push.main([str(model_dir), "someone/pump-pairs", "--dry_run"])
    printed = capsys.readouterr().out
    assert "model.safetensors" in printed and "library_name: transformers" in printed
    assert hub.requests == []


@pytest.mark.parametrize(
    "where",
    ["create", r"GET /api/models/someone/pump-pairs(\?|$)", "preupload", "batch", "PUT /objects", "commit", "resolve"],
)
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_passing_fault_is_waited_out(hub, model_dir, where, status):
    hub.faults = [(where, status)]
    push.main([str(model_dir), "someone/pump-pairs"])
    assert hub.faults == []
    assert "model.safetensors" in hub.repositories["someone/pump-pairs"]["commits"][-1]


def test_a_hub_that_stays_away_has_its_own_exit_status(hub, model_dir, no_waiting, monkeypatch, capsys):
    hub.faults = [("commit/", 503)] * 200
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    assert run_door(push.main, [str(model_dir), "someone/pump-pairs"]) == 69
    error = capsys.readouterr().err
    assert "gave up after 5 attempts" in error and hub.token not in error
    assert {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("status", "error", "cure"), [(403, InputError, "may not write"), (507, PushFailure, "no room")]
)
def test_a_refusal_is_not_tried_again(hub, model_dir, status, error, cure, no_waiting):
    hub.faults = [("commit/", status)] * 2
    with pytest.raises(error, match=cure):
        push.main([str(model_dir), "someone/pump-pairs"])
    assert len(hub.faults) == 1 and not [pause for pause in no_waiting if pause >= upload.FIRST_WAIT]


def test_a_file_that_comes_back_otherwise_is_a_failure(hub, model_dir):
    hub.spoil = {"model.safetensors": b"something else"}
    with pytest.raises(PushFailure, match=r"model.safetensors came back otherwise than it was sent"):
        push.main([str(model_dir), "someone/pump-pairs"])


def test_a_public_repository_is_not_published_to_by_default(hub, model_dir):
    hub.repositories["someone/open"] = {"private": False, "commits": [{}], "messages": []}
    with pytest.raises(InputError, match="is public; give --public"):
        push.main([str(model_dir), "someone/open"])
    assert len(hub.repositories["someone/open"]["commits"]) == 1
    push.main([str(model_dir), "someone/open", "--public"])
    assert "README.md" in hub.repositories["someone/open"]["commits"][-1]


def test_no_token_and_a_wrong_one(hub, model_dir, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_" + "wrong" * 8)
    with pytest.raises(InputError, match="hf auth login") as caught:
        push.main([str(model_dir), "someone/pump-pairs"])
    assert "wrongwrong" not in str(caught.value)
    monkeypatch.setattr(push, "get_token", lambda: None)
    with pytest.raises(InputError, match="no token for the Hub"):
        push.main([str(model_dir), "someone/pump-pairs"])


def spoil_config(folder, **values):
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, **values})


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: spoil_config(folder, note=SECRET), "looks like a secret"),
        (lambda folder: spoil_config(folder, note="/home/me/project/data.csv"), "path of this machine"),
        (lambda folder: spoil_config(folder, note=os.environ["HF_TOKEN"]), "looks like a secret"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"<html>"), "is no whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights as safetensors"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "holds no tokenizer.json"),
        (lambda folder: (folder / "config.json").unlink(), "holds no config.json"),
        (lambda folder: (folder / "run.json").unlink(), "holds no run.json"),
        (lambda folder: write_record(folder, {"status": "running"}), "not finished"),
        (
            lambda folder: save_file({"a": torch.zeros(1)}, folder / "model.safetensors", {"note": SECRET}),
            "looks like a secret",
        ),
    ],
)
def test_what_must_not_leave_is_refused_before_anything_is_asked(hub, model_dir, damage, message):
    damage(model_dir)
    with pytest.raises(InputError, match=message):
        push.main([str(model_dir), "someone/pump-pairs"])
    assert hub.requests == []


def test_a_link_out_of_the_folder_is_not_followed(hub, model_dir, tmp_path):
    (tmp_path / "outside.txt").write_text(PRIVATE)
    (model_dir / "vocab.txt").symlink_to(tmp_path / "outside.txt")
    assert "vocab.txt" not in push.main([str(model_dir), "someone/pump-pairs"])["files"]
