"""Models and data sets by name, from a stand-in for the Hub's protocol on this machine: not the Hub itself."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "hf_" + "loopbackSecret" * 2
COMMIT = "0123456789abcdef0123456789abcdef01234567"


class StandIn:
    """Serves ``repositories``, {(models or datasets, name): {file: bytes}}, and keeps every request."""

    def __init__(self, repositories, private):
        self.repositories = repositories
        self.private = private
        self.requests: list[tuple[str, str, str | None]] = []  # (method, path, authorization)

    def answer(self, method, path, authorization):
        """(status, headers, body) of a request."""
        self.requests.append((method, path, authorization))
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        is_api = parts[0] == "api"
        parts = parts[is_api:]
        kind = parts.pop(0) if parts and parts[0] in ("models", "datasets") else "models"
        name, rest = "/".join(parts[:2]), parts[2:]
        files = self.repositories.get((kind, name))
        if files is None or (name in self.private and authorization != f"Bearer {TOKEN}"):
            return 401, {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"}, b""
        return self._api(name, files, rest) if is_api else self._file(files, rest)

    def _file(self, files, rest):
        file = "/".join(rest[2:])  # resolve/REVISION/FILE
        if rest[:1] != ["resolve"] or file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}, b""
        content = files[file]
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT}, content

    def _api(self, name, files, rest):
        if rest[:1] in (["tree"], ["paths-info"]):
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in files.items()
            ]
            return 200, {"Content-Type": "application/json"}, json.dumps(entries).encode()
        siblings = [{"rfilename": file} for file in files]
        info = {
            "_id": "1",
            "id": name,
            "sha": COMMIT,
            "private": name in self.private,
            "siblings": siblings,
            "tags": [],
        }
        return 200, {"Content-Type": "application/json"}, json.dumps(info).encode()


@pytest.fixture(scope="module")
def hub(tiny_bert, tiny_documents):
    """The stand-in, and its address as ``hub.url``."""
    model = {path.name: path.read_bytes() for path in Path(tiny_bert).iterdir()}
    config = json.loads(model["config.json"])
    with_code = {**model, "config.json": json.dumps({**config, "auto_map": {"AutoConfig": "evil.Evil"}}).encode()}
    with_code["evil.py"] = b"raise SystemExit('code of the repository was run')\n"
    lines = "\n".join(json.dumps({"text": text}, ensure_ascii=False) for text in tiny_documents) + "\n"
    hub = StandIn(
        {
            ("models", "someone/tiny-bert"): model,
            ("models", "someone/private-bert"): model,
            ("models", "someone/with-code"): with_code,
            ("datasets", "someone/tiny-corpus"): {"train.jsonl": lines.encode()},
        },
        private={"someone/private-bert", "someone/tiny-corpus"},
    )

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: N802 - the library's name
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, headers, body = hub.answer(self.command, self.path, self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()


@pytest.fixture(scope="module")
def run_with_hub(hub, tmp_path_factory):
    """Run Python in a process whose Hub is the stand-in: huggingface_hub reads its address at import."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING", "TRANSFORMERS"))
    }

    def run(*words, **variables):
        home = tmp_path_factory.mktemp("hf_home")
        address = {"HF_ENDPOINT": hub.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        environment = {**kept, **address, "PYTHONPATH": str(ROOT), "HF_HUB_DISABLE_TELEMETRY": "1"}
        environment |= {name: str(value) for name, value in variables.items()}
        words = [sys.executable, *map(str, words)]
        return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=300, cwd=home)

    return run


LOADS = """
import json, sys
from transformers import AutoModelForMaskedLM
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import carry_pooler, load_config, load_model, load_tokenizer

def load(name, **hub):
    try:
        tokenizer, config = load_tokenizer(name, **hub), load_config(name, **hub)
        model = load_model(AutoModelForMaskedLM, name, config, **hub)
        carried = carry_pooler(model, name, **hub)
        weights = {key: value.double().sum().item() for key, value in model.state_dict().items()}
        return {"ids": tokenizer("the old pump leaks")["input_ids"], "carried": carried, "weights": weights}
    except InputError as error:
        return {"error": str(error)}

folder, token = sys.argv[1:]
print(json.dumps({
    "folder": load(folder),
    "name": load("someone/tiny-bert"),
    "unknown": load("someone/nothing"),
    "private": load("someone/private-bert", token=token),
    "refused": load("someone/private-bert"),
    "code": load("someone/with-code"),
}))
"""


@pytest.fixture(scope="module")
def loads(run_with_hub, tiny_bert):
    """What loading by several names gave, and all that was printed meanwhile."""
    done = run_with_hub("-c", LOADS, tiny_bert, TOKEN)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), done.stdout + done.stderr


def test_a_name_gives_what_the_folder_gives(loads):
    results, _ = loads
    assert results["folder"]["carried"] and len(results["folder"]["weights"]) > 30
    assert results["name"] == results["folder"]


def test_an_unknown_repository_is_one_line_with_the_cure(loads):
    message = loads[0]["unknown"]["error"]
    assert message.startswith("someone/nothing: the tokenizer cannot be loaded (")
    assert message.endswith("; check the name, or the network and --token")
    assert "\n" not in message


def test_a_token_opens_a_private_repository_and_is_never_shown(loads, hub):
    results, printed = loads
    assert results["private"] == results["folder"]
    assert "the tokenizer cannot be loaded" in results["refused"]["error"]
    assert TOKEN not in printed
    sent = {authorization for _, path, authorization in hub.requests if "/someone/private-bert/resolve/" in path}
    assert f"Bearer {TOKEN}" in sent
    assert {authorization for _, path, authorization in hub.requests if "/someone/tiny-bert/" in path} == {None}


def test_code_of_a_repository_is_neither_run_nor_fetched(loads, hub):
    message = loads[0]["code"]["error"]
    assert message.startswith("someone/with-code/config.json: auto_map names code (")
    assert not [path for _, path, _ in hub.requests if path.endswith("evil.py")]


@pytest.mark.slow  # two processes that import everything, 20 s
def test_stage_1_from_a_private_data_set(run_with_hub, hub, tiny_documents, tmp_path):
    out = tmp_path / "out"
    words = ["--dataset_name=someone/tiny-corpus", "--model_name_or_path=someone/tiny-bert", f"--output_dir={out}"]
    flags = [
        "--max_steps=1",
        "--max_seq_length=48",
        "--use_cpu",
        "--bf16=false",
        f"--token_cache_dir={tmp_path / 'ids'}",
    ]
    done = run_with_hub(ROOT / "run_mlm.py", *words, *flags, f"--token={TOKEN}")
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert record["corpus"]["documents_kept"] == len(tiny_documents)
    assert record["corpus"]["characters"] == sum(map(len, tiny_documents))
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert TOKEN not in done.stdout + done.stderr
    assert not [path for path in written if TOKEN.encode() in path.read_bytes()]
    refused = run_with_hub(ROOT / "run_mlm.py", *words, *flags)
    assert refused.returncode == 2
    assert "error: someone/tiny-corpus: no such data set on the Hub; check the name" in refused.stderr
    assert "Traceback" not in refused.stderr


@pytest.mark.slow  # a process that imports everything, 10 s
def test_a_stream_from_the_hub_leaves_nothing_of_it_on_the_disk(run_with_hub, hub, tiny_documents, tmp_path):
    out, home = tmp_path / "out", tmp_path / "home"
    words = ["--dataset_name=someone/tiny-corpus", "--model_name_or_path=someone/tiny-bert", f"--output_dir={out}"]
    flags = ["--streaming", "--stream_validation=20", "--max_steps=2", "--max_seq_length=48", "--use_cpu",
             "--bf16=false", "--save_steps=1", f"--token_cache_dir={tmp_path / 'ids'}"]  # fmt: skip
    done = run_with_hub(ROOT / "run_mlm.py", *words, *flags, f"--token={TOKEN}", HF_HOME=home, TMPDIR=tmp_path)
    assert done.returncode == 0, done.stderr
    corpus = json.loads((out / "run.json").read_text())["corpus"]
    assert (corpus["shards"], corpus["validation_documents"]) == (1, 20)
    mark = json.loads((out / "checkpoint-1" / "stream_0.json").read_text())
    assert mark["num_rows"] == 8 and mark["num_processes"] == 1
    written = [path for path in tmp_path.rglob("*") if path.is_file() and "adaptation" not in path.name]
    assert len(written) > 10 and not (tmp_path / "ids").exists()
    assert not [path for path in written if tiny_documents[150].encode() in path.read_bytes()]
