"""A stand-in for the Hub's protocol on this machine, not the Hub itself: it takes commits, recomputes every sha256,
refuses commits that name absent objects, checks the token, injects faults and keeps every request."""

import base64
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import close_session, constants

TOKEN = "hf_" + "loopbackWriter" * 3


class StandIn:
    """Repositories by name: ``{"private": bool, "commits": [{file: bytes}], "messages": [...]}``, objects by oid."""

    token = TOKEN

    def __init__(self):
        self.repositories, self.objects, self.requests = {}, {}, []
        self.faults: list[tuple[str, int]] = []  # (pattern of "METHOD path", status), each used once
        self.spoil: dict[str, bytes] = {}  # file -> what is given back in its place

    def answer(self, method, path, authorization, body):
        self.requests.append((method, path, authorization, body))
        for fault in self.faults:
            if re.search(fault[0], f"{method} {path}"):
                self.faults.remove(fault)
                return fault[1], {"X-Error-Message": "injected"}, b"{}"
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[0] == "objects":  # what the LFS batch pointed to: no token is sent there
            return self._object(method, parts[1], body)
        if authorization != f"Bearer {TOKEN}":
            return 401, {}, b'{"error": "Invalid credentials"}'
        if parts[:2] == ["api", "whoami-v2"]:
            return reply({"name": "someone", "type": "user", "auth": {}})
        if parts[:3] == ["api", "repos", "create"]:
            return self._create(json.loads(body))
        if parts[:2] == ["api", "validate-yaml"]:
            return reply({"errors": [], "warnings": []})
        if parts[:2] == ["api", "models"]:
            return self._api("/".join(parts[2:4]), parts[4:], body)
        if parts[1].endswith(".git"):
            return self._batch(json.loads(body))
        return self._file("/".join(parts[:2]), "/".join(parts[4:]))

    def _create(self, wanted):
        owner = wanted.get("organization") or "someone"
        name = f"{owner}/{wanted['name']}"
        private = wanted.get("visibility") == "private" or wanted.get("private") is True
        status = 409 if name in self.repositories else 200
        self.repositories.setdefault(name, {"private": private, "commits": [{}], "messages": []})
        return reply({"url": f"{self.url}/{name}", "name": name, "id": "1"}, status)

    def _api(self, name, rest, body):
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b"{}"
        files = repository["commits"][-1]
        if rest[:1] == ["preupload"]:
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(body)["files"]
            ]
            return reply({"files": modes})
        if rest[:1] == ["commit"]:
            return self._commit(name, repository, [json.loads(line) for line in body.decode().splitlines()])
        info = {"_id": "1", "id": name, "private": repository["private"], "sha": sha_of(repository), "tags": []}
        return reply({**info, "siblings": [{"rfilename": file} for file in files]})

    def _commit(self, name, repository, lines):
        files = dict(repository["commits"][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                repository["messages"].append(value["summary"])
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 422, {}, b'{"error": "absent object"}'
                files[value["path"]] = self.objects[value["oid"]]
        repository["commits"].append(files)
        sha = sha_of(repository)
        return reply({"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{name}/commit/{sha}"})

    def _batch(self, wanted):
        objects = []
        for item in wanted["objects"]:
            address = {"href": f"{self.url}/objects/{item['oid']}"}
            objects.append(item if item["oid"] in self.objects else {**item, "actions": {"upload": address}})
        return reply({"transfer": "basic", "objects": objects})

    def _object(self, method, oid, body):
        assert method == "PUT"
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {}, b"the sha256 is another"
        self.objects[oid] = body
        return 200, {}, b""

    def _file(self, name, file):
        files = self.repositories[name]["commits"][-1]
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound"}, b""
        content = self.spoil.get(file, files[file])
        sha = sha_of(self.repositories[name])
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": sha}, content


def sha_of(repository):
    return f"{len(repository['commits']):040x}"


def reply(value, status=200):
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """The stand-in; huggingface_hub in this process speaks to it, with its token and without Xet."""
    hub = StandIn()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: N802 - the library's name
            body = self._body()
            status, headers, content = hub.answer(self.command, self.path, self.headers.get("Authorization"), body)
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(content)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def _body(self):
            if self.headers.get("Transfer-Encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))

        do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, hub.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
    close_session()  # the next request makes a client that knows the line above
    yield hub
    close_session()
    server.shutdown()
    server.server_close()
