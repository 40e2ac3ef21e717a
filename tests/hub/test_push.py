"""A push against a stand-in for the Hub: what arrives, what never leaves, and what a fault leads to."""

import json
import os

import pytest
import torch
import yaml
from huggingface_hub import close_session, constants
from safetensors.torch import save_file
from transformers import AutoModelForSequenceClassification

from pair_pkg.errors import InputError, PushFailure, run_door
from pair_pkg.hub import upload
from pair_pkg.records import write_json, write_record
from pair_pkg.report.card import build_card
from pair_pkg.stages import push
from tests.hub.conftest import PRIVATE, SECRET

pytestmark = pytest.mark.usefixtures("no_waiting")


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


def test_files_of_an_earlier_model_go_and_other_files_stay(hub, model_dir):
    old = dict.fromkeys(
        ("1_Pooling/config.json", "modules.json", "model-00001-of-00002.safetensors", "notes.md"), b"{}"
    )
    hub.repositories["someone/pump-pairs"] = {"private": True, "commits": [old], "messages": []}
    result = push.main([str(model_dir), "someone/pump-pairs"])
    assert set(hub.repositories["someone/pump-pairs"]["commits"][-1]) == {*result["files"], "notes.md"}
    assert len(hub.repositories["someone/pump-pairs"]["commits"]) == 2  # all of it in one commit


def test_a_second_push_of_the_same_model_commits_nothing_and_compares_again(hub, model_dir):
    first = push.main([str(model_dir), "someone/pump-pairs"])
    hub.requests.clear()
    assert push.main([str(model_dir), "someone/pump-pairs"])["commit"] == first["commit"]
    assert not [path for _, path, *_ in hub.requests if "/commit/" in path]
    hub.spoil = {"config.json": b"{}"}
    with pytest.raises(PushFailure, match=r"config.json came back otherwise"):
        push.main([str(model_dir), "someone/pump-pairs"])


def test_offline_is_told_at_once(hub, model_dir, monkeypatch, no_waiting):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    close_session()  # the next request makes a client that knows the line above
    with pytest.raises(InputError, match="HF_HUB_OFFLINE forbids it; unset it to push"):
        push.main([str(model_dir), "someone/pump-pairs"])
    assert no_waiting == [] and hub.requests == []


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
