"""Files that were made to do harm do nothing: no code runs, nothing outside the folder is read, memory stays flat."""

import gzip
import json
import logging
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
from contextlib import suppress
from pathlib import Path

import faiss
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sentence_transformers.util import import_from_string
from transformers import AutoConfig, AutoModel, dynamic_module_utils

from pair_pkg.__main__ import main as command
from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import EXIT_BAD_INPUT, run_door
from pair_pkg.records import file_sha256, fingerprint, read_json, read_record, write_json, write_record
from pair_pkg.report.card import build_card
from pair_pkg.search import faiss_index
from pair_pkg.search.index_changes import create_index
from pair_pkg.search.index_folder import open_index
from pair_pkg.search.text_store import Record
from pair_pkg.stages import adapt
from pair_pkg.stages.terminal import announce, set_up_logging
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
    else:
        torch.load(checkpoint / name, weights_only=False)
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


@pytest.mark.parametrize("form", ["raw", "zip"])
@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_a_pickle_in_a_module_of_an_encoder_is_not_run(encoder, embed, tmp_path, form):
    marker = tmp_path / "marker"
    path = add_dense(encoder, "torch.nn.modules.activation.Tanh") / "pytorch_model.bin"
    if form == "raw":
        path.write_bytes(pickle.dumps(RunsCode(marker)))
    else:
        torch.save({"linear.weight": RunsCode(marker)}, path)
    embed("one that would run code, which is never done")
    assert not marker.exists()
    with suppress(RuntimeError):  # the trap does work
        torch.load(path, weights_only=False)
    assert marker.exists()


def test_a_function_that_an_encoder_names_is_not_imported(encoder, embed, tmp_path, monkeypatch):
    marker = write_evil(tmp_path / "evil.py", tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    folder = add_dense(encoder, "evil.Evil")
    embed("activation_function 'evil.Evil' is code that is not run")
    assert not marker.exists()
    import_from_string(read_json(folder / "config.json")["activation_function"])  # the trap does work
    assert marker.exists()


def add_dense(encoder, function):
    """A dense layer behind the encoder's modules, without weights."""
    folder = encoder / "9_Dense"
    folder.mkdir()
    settings = {"in_features": 128, "out_features": 8, "bias": False, "activation_function": function}
    write_json(folder / "config.json", settings)
    kind = "sentence_transformers.models.Dense"
    module = {"idx": 9, "name": "9", "path": "9_Dense", "type": kind}
    write_json(encoder / "modules.json", [*read_json(encoder / "modules.json"), module])
    return folder


def write_evil(path, folder):
    """A module that makes a folder when it is imported; gives that folder."""
    marker = folder / "marker"
    path.write_text(
        f"import os\nfrom transformers import BertConfig\n\nos.mkdir({str(marker)!r})\n\n\n"
        "class Evil(BertConfig):\n    pass\n"
    )
    return marker


# A checkpoint to begin from.

CODE_KEYS = {
    "auto_map": {"auto_map": {"AutoConfig": "evil.Evil"}},
    "nested": {"text_config": {"auto_map": {"AutoConfig": "evil.Evil"}}},
    "kernels": {"_attn_implementation": "someone/kernels"},
    "kernels within": {"_experts_implementation_internal": "someone/kernels"},
}


@pytest.fixture
def checkpoint(tiny_bert, tmp_path):
    return Path(shutil.copytree(tiny_bert, tmp_path / "model"))


@pytest.mark.parametrize("keys", CODE_KEYS.values(), ids=CODE_KEYS)
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_a_config_names_is_not_run(checkpoint, mlm_words, tmp_path, capfd, monkeypatch, file, keys):
    marker = write_evil(checkpoint / "evil.py", tmp_path)
    write_json(checkpoint / file, {**read_json(checkpoint / file), **keys})
    words = mlm_words(tmp_path / "out", f"--model_name_or_path={checkpoint}")
    assert_refused(capfd, run_door(adapt.main, words), f"{checkpoint}/{file}", "names code", "never run")
    assert not marker.exists()
    if file == "config.json" and "auto_map" in keys:
        monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
        AutoConfig.from_pretrained(checkpoint, trust_remote_code=True)  # the trap does work
        assert marker.exists()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("shard", ["../other/model.safetensors", "ABSOLUTE", "part/model.safetensors", ".."])
def test_shards_elsewhere_are_not_read(checkpoint, mlm_words, tmp_path, capfd, kind, shard):
    other = tmp_path / "other"
    other.mkdir()
    (checkpoint / "model.safetensors").rename(other / "model.safetensors")
    shard = shard.replace("ABSOLUTE", str(other / "model.safetensors"))
    names = load_file(other / "model.safetensors")
    name = "model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json"
    write_json(checkpoint / name, {"metadata": {"total_size": 1}, "weight_map": dict.fromkeys(names, shard)})
    words = mlm_words(tmp_path / "out", f"--model_name_or_path={checkpoint}")
    assert_refused(capfd, run_door(adapt.main, words), name, "does not name weights in its own folder")
    if kind == "safetensors" and "other" in shard:
        AutoModel.from_pretrained(checkpoint)  # the trap does work: the library reads what lies elsewhere


# An index whose manifest was made to fit; a file that does not fit its manifest is refused: ``test_index_folder``.


@pytest.fixture(params=["flat", "hnsw", "ivf_pq"])
def index(request, tmp_path, monkeypatch):
    """The file of an index, for ``search_sealed``."""
    monkeypatch.setattr(faiss_index, "MIN_IVF_PQ_ROWS", 0)
    rows = 300 if request.param == "ivf_pq" else 40
    vectors = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = {"model": {"name": "m", "fingerprint": "abc"}, "ids": "row numbers", "next_row_number": rows}
    records = [Record(str(row), f"text {row}") for row in range(rows)]
    (tmp_path / "index").mkdir()
    create_index(tmp_path / "index", records, vectors, facts, index_type=request.param)
    return tmp_path / "index/g000001.index.faiss"


def search_sealed(path, content):
    """The exit status of a child that opens and searches an index with this content."""
    path.write_bytes(content)
    manifest = read_json(path.with_name("manifest.json"))
    manifest["files"]["index"] |= {"bytes": len(content), "sha256": file_sha256(path)}
    write_json(path.with_name("manifest.json"), manifest)
    child = os.fork()
    if child == 0:
        status = 70
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            faiss.omp_set_num_threads(1)
            status = run_door(lambda _: open_index(path.parent).search(np.eye(8, dtype=np.float32), 5), [])
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_an_index_that_was_made_to_do_harm_is_survived(index):
    """Refused in one line, or searched; no crash, no hang, no memory that the file does not have."""
    whole, draw = index.read_bytes(), random.Random(3)
    assert search_sealed(index, whole) == 0
    crafted = [whole[:37] + (255 << 24).to_bytes(8, "little") + whole[45:]]  # a vector of 34 GB, in a graph
    if b"IwPQ" in whole:  # parts of another width, which FAISS alone writes beyond its memory for
        crafted.append(whole.replace(b"IwPQ" + bytes([8, 0, 0, 0]), b"IwPQ" + bytes(4)))
    for content in crafted:
        assert search_sealed(index, content) == EXIT_BAD_INPUT
    for _ in range(12):
        place = draw.randrange(200 if draw.random() < 0.7 else len(whole) - 8)
        content = whole[:place] + draw.randbytes(draw.choice((1, 4, 8))) + whole[place + 8 :]
        assert search_sealed(index, content) in (0, EXIT_BAD_INPUT), place


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


@pytest.mark.parametrize("is_terminal", [True, False])
def test_log_and_announcements_do_not_steer_a_terminal(capsys, monkeypatch, is_terminal):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    monkeypatch.setattr(logging.getLogger("pair_pkg"), "handlers", [])
    set_up_logging()
    logging.getLogger("pair_pkg").warning("a label %s\nand a name %s", HOSTILE[0], HOSTILE[3])
    announce("\n".join(HOSTILE))
    output, errors = capsys.readouterr()
    assert errors.count("\n") == 2 and not any(mark in errors for mark in ("\x1b", "\x07", "\u202e"))
    assert ("\x1b" in output) != is_terminal and output.count("\n") == len(HOSTILE)


def test_a_card_holds_no_markup_of_a_label():
    """Pages: ``test_report``; sheets: ``test_spreadsheet``."""
    names = ["no", "<script>alert(1)</script>`\n---\nlicense: mit\n---\n<b>"]
    record = {"stage": "pairs", "architecture": "cross_encoder", "labels": LabelScheme("binary", names).to_json()}
    decision = {"kind": "binary", "temperature": 1.0, "center": 0.0, "threshold": 0.5}
    record |= {"settings": {"loss": "<img src=x>|[a](b)"}, "metrics": {"decision": decision}}
    card = build_card(record, repo_id="someone/pairs")
    assert card.data.license is None and card.content.count("\n---\n") == 1
    assert "\\<img" in card.content and not re.search(r"(?<!\\)<img", card.content)
    code = re.findall("`[^`]*<script>[^`]*`", card.content)
    assert len(code) == card.content.count("<script>") == 2  # in a line of code, where Markdown reads no HTML
