"""A stand-in for the Hub's protocol on this machine, not the Hub itself: it takes commits by LFS and by Xet, recomputes
every sha256, refuses commits that name absent objects, checks the token, injects faults and keeps every request."""

import base64
import hashlib
import json
import re
import socket
import sys
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

from tests.hub.xet_store import XetStore, reply

TOKEN = "hf_" + "loopbackWriter" * 3
LARGE = ".safetensors"  # what is stored as an object, by LFS or Xet


class Cut(Exception):
    """The connection ends here; with an answer, in the middle of its body."""

    def __init__(self, answer=None):
        self.answer = answer


class StandIn:
    """Repositories by name: ``{"private": bool, "commits": [{file: bytes}], "messages": [...]}``, objects by oid.

    A fault is (pattern of "METHOD path", what), each used once: ``what`` is a status, or a function of the way to the
    answer that gives another answer or raises ``Cut``.
    """

    token = TOKEN

    def __init__(self, url):
        self.url, self.xet = url, XetStore(url)
        self.repositories, self.objects, self.requests = {}, {}, []
        self.faults = []
        self.spoil: dict[str, bytes] = {}  # file -> what is given back in its place
        self.kept: dict[str, bytes] = {}  # oid -> what its storage has made of it

    def answer(self, method, path, headers, body):
        self.requests.append((method, path, headers.get("Authorization"), body))
        fault = next((fault for fault in self.faults if re.search(fault[0], f"{method} {path}")), None)
        if fault is None:
            return self._route(method, path, headers, body)
        self.faults.remove(fault)
        if isinstance(fault[1], int):
            return fault[1], {"X-Error-Message": "injected"}, b"{}"
        return fault[1](lambda: self._route(method, path, headers, body))

    def _route(self, method, path, headers, body):
        parts = [unquote(part) for part in urlsplit(path).path.strip("/").split("/")]
        if parts[0] == "cas":
            return self.xet.answer(method, path, headers, body)
        if parts[0] == "objects":  # what the LFS batch and a redirection pointed to: no token is sent there
            return self._object(method, parts[1], body)
        if headers.get("Authorization") != f"Bearer {TOKEN}":
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
            return self._verify(json.loads(body)) if parts[-1] == "verify" else self._batch(path, json.loads(body))
        return self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]))

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
            return reply({"files": [self._mode(file["path"], files) for file in json.loads(body)["files"]]})
        if rest[:1] == ["commit"]:
            return self._commit(name, repository, [json.loads(line) for line in body.decode().splitlines()])
        if rest and rest[0].startswith("xet-"):
            address, token, expiry = f"{self.url}/cas", self.xet.token, int(time.time()) + 3600
            status, headers, content = reply({"casUrl": address, "accessToken": token, "exp": expiry})
            headers |= {"X-Xet-Cas-Url": address, "X-Xet-Access-Token": token, "X-Xet-Token-Expiration": expiry}
            return status, headers, content
        if rest[:1] == ["tree"]:
            entry = lambda file: {"path": file, "size": len(files[file]), "oid": oid_of(file, files[file])}  # noqa: E731
            return reply([{"type": "file", **entry(file)} for file in files])
        info = {"_id": "1", "id": name, "private": repository["private"], "sha": sha_of(repository), "tags": []}
        return reply({**info, "siblings": [{"rfilename": file} for file in files]})

    def _mode(self, file, files):
        mode = "lfs" if file.endswith(LARGE) else "regular"
        oid = oid_of(file, files[file]) if file in files else None
        return {"path": file, "uploadMode": mode, "shouldIgnore": False, "oid": oid}

    def _commit(self, name, repository, lines):
        files = dict(repository["commits"][-1])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                content = self._content(value["oid"])
                if content is None:
                    return 422, {}, b'{"error": "absent object"}'
                if len(content) != value["size"]:
                    return 422, {}, b'{"error": "another size"}'
                files[value["path"]] = content
        repository["messages"].append(message)
        repository["commits"].append(files)
        sha = sha_of(repository)
        return reply({"success": True, "commitOid": sha, "commitUrl": f"{self.url}/{name}/commit/{sha}"})

    def _batch(self, path, wanted):
        objects = []
        for item in wanted["objects"]:
            actions = {"upload": {"href": f"{self.url}/objects/{item['oid']}"}}
            actions["verify"] = {"href": f"{self.url}{path.removesuffix('/batch')}/verify"}
            objects.append(item if item["oid"] in self.objects else {**item, "actions": actions})
        return reply({"transfer": "basic", "objects": objects})

    def _verify(self, wanted):
        kept = self.objects.get(wanted["oid"])
        return (200, {}, b"") if kept is not None and len(kept) == wanted["size"] else (404, {}, b"")

    def _object(self, method, oid, body):
        if method == "GET":
            return 200, {}, self.kept.get(oid, self._content(oid))
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {}, b"the sha256 is another"
        self.objects[oid] = body
        return 200, {}, b""

    def _content(self, oid):
        return self.objects.get(oid, self.xet.contents.get(oid))

    def _file(self, name, revision, file):
        repository = self.repositories.get(name)
        if repository is None:
            return 404, {"X-Error-Code": "RepoNotFound"}, b""
        number = len(repository["commits"]) if revision == "main" else int(revision, 16)
        if number > len(repository["commits"]):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b""
        files = repository["commits"][number - 1]
        commit = {"X-Repo-Commit": f"{number:040x}"}
        if file not in files:
            return 404, {"X-Error-Code": "EntryNotFound", **commit}, b""
        oid = oid_of(file, files[file])
        content = self.spoil.get(file, files[file])
        if not file.endswith(LARGE) or file in self.spoil:
            return 200, {"ETag": f'"{oid}"', **commit}, content
        linked = {"X-Linked-Etag": f'"{oid}"', "X-Linked-Size": len(content)}
        if oid in self.xet.hashes:
            token = f"{self.url}/api/models/{name}/xet-read-token/{number:040x}"
            linked |= {"X-Xet-Hash": self.xet.hashes[oid], "Link": f'<{token}>; rel="xet-auth"'}
        elsewhere = self.url.replace("127.0.0.1", "localhost")  # another host, to which no token may go
        return 302, {**linked, **commit, "Location": f"{elsewhere}/objects/{oid}"}, b""


def oid_of(file, content):
    """What the Hub names a file's content by: the sha256 of an object, git's own hash of the rest."""
    if file.endswith(LARGE):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha_of(repository):
    return f"{len(repository['commits']):040x}"


@contextmanager
def serve():
    """The stand-in behind a port of this machine, its address as ``url``."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):  # noqa: N802 - the library's name
            try:
                self._send(*hub.answer(self.command, self.path, self.headers, self._body()))
            except Cut as cut:
                if cut.answer is not None:
                    self._send(*cut.answer, share=2)
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)

        def _send(self, status, headers, content, share=1):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(content)}.items():
                self.send_header(name, str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content[: len(content) // share])

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

    class Server(ThreadingHTTPServer):
        def handle_error(self, request, client_address):
            if not isinstance(sys.exc_info()[1], ConnectionError):  # a client that did not wait for its answer
                super().handle_error(request, client_address)

    server = Server(("127.0.0.1", 0), Handler)
    hub = StandIn(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
