"""What a run writes and prints names no token, user, host or folder of the machine: canaries are put and looked for."""

import getpass
import os
import socket
from pathlib import Path

import pytest

from pair_pkg.errors import run_door
from pair_pkg.stages import adapt, finetune

TOKEN, USER, HOST, FOLDER = "hf_cAnAryToken0123456789abcdefghij", "canaryuser", "canaryhost", "canaryfolder"


@pytest.fixture
def watched(tmp_path, monkeypatch):
    """A working folder with canaries all around it; flags name what lies in it without a path."""
    folder = tmp_path / FOLDER
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name, value in {
        "HF_TOKEN": TOKEN,
        "USER": USER,
        "LOGNAME": USER,
        "HOSTNAME": HOST,
        "HOME": f"/home/{USER}",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(getpass, "getuser", lambda: USER)
    monkeypatch.setattr(socket, "gethostname", lambda: HOST)
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", HOST, "1", "1", "x86_64")))
    return folder


def canaries_in(content: bytes) -> list[str]:
    return [canary for canary in (TOKEN, USER, HOST, FOLDER) if canary.encode() in content]


def test_nothing_of_the_machine_is_written_or_printed(watched, tiny_bert, tiny_corpus, tiny_documents, capfd):
    Path("model").symlink_to(tiny_bert)
    Path("corpus.txt").write_bytes(Path(tiny_corpus).read_bytes())
    texts = [text.replace(",", " ") for text in tiny_documents]
    rows = [f"{a},{b},{row % 2}" for row, (a, b) in enumerate(zip(texts[::2], texts[1::2]))]
    Path("pairs.csv").write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n", encoding="utf-8")
    common = ["--use_cpu", "--bf16=false", "--max_steps=2", "--save_strategy=steps", "--save_steps=1",
              f"--hub_token={TOKEN}", "--per_device_train_batch_size=8"]  # fmt: skip
    mlm = [*common, "--model_name_or_path=model", "--train_file=corpus.txt", "--output_dir=out/mlm",
           "--token_cache_dir=cache", "--max_seq_length=48"]  # fmt: skip
    pairs = [*common, "--model_name_or_path=out/mlm", "--train_file=pairs.csv", "--output_dir=out/pairs",
             "--metric_for_best_model=loss", "--load_best_model_at_end",
             "--eval_strategy=steps", "--eval_steps=1"]  # fmt: skip
    assert run_door(adapt.main, mlm) == 0
    assert run_door(finetune.main, pairs) == 0
    output, errors = capfd.readouterr()
    assert canaries_in(output.encode()) == [] and canaries_in(errors.encode()) == []
    files = [path for folder in ("out", "cache") for path in Path(folder).rglob("*") if path.is_file()]
    assert {"run.json", "manifest.json", "trainer_state.json", "model.safetensors"} <= {path.name for path in files}
    found = {str(path): canaries_in(path.read_bytes() + path.name.encode()) for path in files}
    assert {name: canaries for name, canaries in found.items() if canaries} == {}


def test_a_canary_would_be_found(watched):
    """The control."""
    Path("leak.json").write_text(f'{{"token": "{TOKEN}", "cwd": "{Path.cwd()}"}}')
    assert canaries_in(Path("leak.json").read_bytes()) == [TOKEN, FOLDER]
