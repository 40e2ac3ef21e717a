"""Files that were made to do harm do nothing: no code runs, nothing outside the folder is read, memory stays flat."""

import gzip
import json
import os
import pickle
import resource
import shutil
import sys
from pathlib import Path

import pytest
import torch

from pair_pkg.__main__ import main as command
from pair_pkg.errors import EXIT_BAD_INPUT, run_door
from pair_pkg.records import file_sha256, fingerprint, read_json, read_record, write_json, write_record
from pair_pkg.stages import adapt
from pair_pkg.training.checkpoints import RUNNING
from pair_pkg.training.manifest import MANIFEST_NAME

SETTINGS = ("--max_steps=2", "--save_strategy=steps", "--save_steps=1", "--eval_strategy=no", "--max_train_samples=40")


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def assert_refused(capfd, status, *expected):
    errors = capfd.readouterr().err
    assert status == EXIT_BAD_INPUT and "Traceback" not in errors, errors
    line = errors.splitlines()[-1]
    assert line.startswith("error: ") and all(part in line for part in expected), line


# A checkpoint to continue from, resealed by whoever put a pickle into it: a manifest keeps no one out, the loader does.


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Where the first test puts a run, for the others to copy."""
    return tmp_path_factory.mktemp("run") / "out"


@pytest.fixture
def cut(whole, mlm_words, tmp_path):
    """A run with checkpoints 1 and 2 that was cut off before its end."""
    if not whole.exists():
        assert run_door(adapt.main, mlm_words(whole, *SETTINGS, "--lora_rank=2")) == 0
        write_record(whole, {**read_record(whole), "status": RUNNING})
    return Path(shutil.copytree(whole, tmp_path / "out"))


@pytest.mark.parametrize(
    ("name", "form"),
    [("optimizer.pt", "raw"), *((name, "zip") for name in ("scheduler.pt", "rng_state.pth", "training_weights.pt"))],
)
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_in_a_checkpoint_is_not_run(cut, mlm_words, tmp_path, capfd, name, form):
    marker, checkpoint = tmp_path / "marker", cut / "checkpoint-2"
    assert (checkpoint / name).is_file()
    if form == "raw":
        (checkpoint / name).write_bytes(pickle.dumps(RunsCode(marker)))
    else:
        torch.save({"state": RunsCode(marker)}, checkpoint / name)
    reseal(checkpoint)
    capfd.readouterr()
    status = run_door(adapt.main, mlm_words(cut, *SETTINGS, "--lora_rank=2"))
    assert_refused(capfd, status, "checkpoint-2: holds a pickle that is damaged, or would run code")
    assert not marker.exists()
    if form == "raw":
        pickle.loads((checkpoint / name).read_bytes())  # the trap does work
        assert marker.exists()


def reseal(checkpoint, **changed):
    """A manifest that fits the files as they are now, and ``changed`` files that it names beside them."""
    document = read_json(checkpoint / MANIFEST_NAME)
    del document["seal"]
    for name in document["files"]:
        path = checkpoint / name
        document["files"][name] = {"bytes": path.stat().st_size, "sha256": file_sha256(path)}
    document["files"] |= changed
    write_json(checkpoint / MANIFEST_NAME, {"seal": fingerprint(document), **document})


def test_a_path_in_a_manifest_leads_nowhere_else(cut, mlm_words, capfd):
    """It would be hashed only, but no checkpoint of ours names such a file."""
    reseal(cut / "checkpoint-2", **{"../../../etc/hostname": {"bytes": 1, "sha256": "0"}})
    capfd.readouterr()
    assert run_door(adapt.main, mlm_words(cut, *SETTINGS, "--lora_rank=2")) == 0
    assert "checkpoint-2: ../../../etc/hostname is missing" in capfd.readouterr().err


# A sentence encoder's folder.


@pytest.fixture
def encoder(tiny_bi_encoder, tmp_path):
    return Path(shutil.copytree(tiny_bi_encoder, tmp_path / "model"))


@pytest.fixture
def embed(encoder, tmp_path, capfd):
    """``embed(*expected)``: the refusal of a command that loads the encoder."""
    (tmp_path / "texts.txt").write_text("the old pump leaks\n")

    def refused(*expected):
        words = ["embed", f"--model={encoder}", f"--output={tmp_path / 'out.npy'}", str(tmp_path / "texts.txt")]
        assert_refused(capfd, run_door(command, words), str(encoder), *expected)

    return refused


@pytest.mark.parametrize("path", ["../elsewhere", "/tmp", "1_Pooling/../../elsewhere"])
def test_modules_elsewhere_are_refused(encoder, embed, path):
    modules = read_json(encoder / "modules.json")
    modules[-1]["path"] = path
    write_json(encoder / "modules.json", modules)
    embed("names a module outside its folder")


@pytest.mark.parametrize("kind", ["os.system", "sentence_transformers_evil.Thing", "builtins.exec"])
def test_modules_of_others_are_refused(encoder, embed, kind):
    modules = read_json(encoder / "modules.json")
    modules[-1]["type"] = kind
    write_json(encoder / "modules.json", modules)
    embed("is no module of sentence-transformers, and no code is run")


@pytest.mark.parametrize("content", ["{", "[1]", '{"a": 1}', '[{"type": 3}]'])
def test_broken_modules_are_refused(encoder, embed, content):
    (encoder / "modules.json").write_text(content)
    embed("modules.json")


# Archives and texts.


@pytest.mark.parametrize("name", ["corpus.txt.gz", "corpus.jsonl.gz", "corpus.csv.gz"])
def test_an_archive_that_unpacks_to_one_endless_line_is_refused_at_its_limit(mlm_words, tmp_path, capfd, name):
    """300 MB out of 300 kB; memory grows by the limit of a line and no more."""
    head = b'{"text": "' if "json" in name else b"text\n" if "csv" in name else b""
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as file:
        file.write(head)
        for _ in range(300):
            file.write(b"a" * 1_000_000)
    assert (tmp_path / name).stat().st_size < 3_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = run_door(adapt.main, mlm_words(tmp_path / "out", f"--train_file={tmp_path / name}"))
    assert_refused(capfd, status, name, "67,108,864 bytes")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 512 * 1024
    assert not (tmp_path / "out").exists()


HOSTILE = ["\x1b]0;owned\x07\x1b[31mred", "<script>alert(1)</script>", "=cmd|'/C calc'!A0", "\u202etxt.exe", "@SUM(1)"]


@pytest.mark.parametrize("is_terminal", [True, False])
def test_hostile_texts_stay_texts(tiny_cross_encoder, tmp_path, capsys, monkeypatch, is_terminal):
    """No control character arrives in a terminal; a pipe gets the texts as they are. Sheets: ``test_spreadsheet``."""
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps({"sentence1": text, "sentence2": "a pump"}) + "\n" for text in HOSTILE))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    status = run_door(command, ["score", f"--model={tiny_cross_encoder}", str(pairs)])
    output, errors = capsys.readouterr()
    assert status == 0, errors
    assert any(mark in output for mark in ("\x1b", "\x07", "\u202e")) != is_terminal
    assert "<script>alert(1)</script>" in output and "\x1b" not in errors
