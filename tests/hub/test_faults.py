"""36 faults on each path to the Hub: a push ends whole and compared, or in one line and a status that says otherwise.

The control shows what the library's own call makes of the same faults.
"""

import json
import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from pair_pkg.errors import EXIT_BAD_INPUT, EXIT_NOT_PUSHED, run_door
from pair_pkg.hub import upload
from pair_pkg.hub.staging import stage_model
from pair_pkg.records import file_sha256
from pair_pkg.stages import push
from tests.hub.stand_in import Cut

NAME = "someone/pump-pairs"
OPEN, LIST = "repos/create", "GET .*/tree/"
PREUPLOAD, COMMIT = "/preupload/", "/commit/"
BATCH, PUT, VERIFY = "/objects/batch", "PUT /objects/", "/objects/verify"
WRITE_TOKEN, XORB, SHARD = "/xet-write-token/", "POST /cas/v1/xorbs/", "POST /cas/v2/shards"
HEAD, FETCH = "HEAD .*/resolve/.*/config.json", "GET .*/resolve/.*/config.json"
EVER = 10_000  # times
TIME_LIMIT, SLOW = 0.8, 1.2  # seconds


@dataclass
class Fault:
    name: str
    where: str  # pattern of "METHOD path"
    what: int | Callable  # a status, or a function of the stand-in and the way to the right answer
    told: str = ""  # in the one line of the error; a push that arrives says none
    status: int = 0
    times: int = 1


def closed(hub, go_on):
    raise Cut


def closed_afterwards(hub, go_on):
    go_on()
    raise Cut


def halved(hub, go_on):
    raise Cut(go_on())


def slow(hub, go_on):
    threading.Event().wait(SLOW)
    return go_on()


def slow_afterwards(hub, go_on):
    answer = go_on()
    threading.Event().wait(SLOW)
    return answer


def gateway_gave_up(hub, go_on):
    go_on()
    return 504, {}, b"<html>gateway timeout</html>"


def vanished(hub, go_on):
    hub.repositories.pop(NAME, None)
    return go_on()


def not_the_hub(hub, go_on):
    return 200, {"Content-Type": "text/html"}, b"<html>please log in to the network</html>"


def empty(hub, go_on):
    go_on()
    return 200, {"Content-Type": "application/json"}, b"{}"


def never_taken(hub, go_on):
    answer = {"success": True, "commitOid": "f" * 40, "commitUrl": f"{hub.url}/{NAME}/commit/{'f' * 40}"}
    return 200, {"Content-Type": "application/json"}, json.dumps(answer).encode()


def asks_to_wait(hub, go_on):
    return 429, {"Retry-After": "7"}, b"{}"


def other_bytes(hub, go_on):
    status, headers, content = go_on()
    return status, headers, bytes([content[0] ^ 1]) + content[1:]


def other_size(hub, go_on):
    status, headers, content = go_on()
    return status, {**headers, "X-Linked-Size": len(content) + 1}, content


def errors_by_object(hub, go_on):
    objects = [{**item, "error": {"code": 422, "message": "not allowed"}} for item in json.loads(go_on()[2])["objects"]]
    return 200, {"Content-Type": "application/json"}, json.dumps({"objects": objects}).encode()


def lost(hub, go_on):
    hub.objects.clear()
    return go_on()


def kept_otherwise(hub, go_on):
    answer = go_on()
    hub.kept = {oid: bytes(len(content)) for oid, content in hub.objects.items()}
    return answer


def damaged_chunks(hub, go_on):
    answer = go_on()
    for name, xorb in hub.xet.xorbs.items():
        hub.xet.xorbs[name] = xorb[:-1] + bytes([xorb[-1] ^ 1])
    return answer


def error_frame(hub, go_on):
    return 200, {"Content-Type": "application/x-ndjson"}, b'{"type": "error", "message": "no", "retryable": false}\n'


BAD, LOST = EXIT_BAD_INPUT, EXIT_NOT_PUSHED
SHARED = [
    Fault("401 at opening", OPEN, 401, "hf auth login", BAD, EVER),
    Fault("403 at the commit", COMMIT, 403, "may not write", BAD),
    Fault("404, the repository vanished before the commit", COMMIT, vanished, "check the name", BAD),
    Fault("409, another commit at once", COMMIT, 409),
    Fault("412, another commit came first", COMMIT, 412),
    Fault("413, too large", COMMIT, 413, "larger than the Hub takes", LOST),
    Fault("416 at fetching back", FETCH, 416),
    Fault("422, not what the Hub reads", COMMIT, 422, "the Hub refuses it", LOST),
    Fault("429 with a time to wait", PREUPLOAD, asks_to_wait),
    Fault("500 at opening", OPEN, 500),
    Fault("503 that stays", COMMIT, 503, "gave up after 5 attempts", LOST, EVER),
    Fault("504 though the commit was taken", COMMIT, gateway_gave_up),
    Fault("closed at opening", OPEN, closed),
    Fault("closed at listing", LIST, closed),
    Fault("closed at every question for the way", PREUPLOAD, closed, "gave up", LOST, EVER),
    Fault("closed before the commit is taken", COMMIT, closed),
    Fault("closed after the commit was taken", COMMIT, closed_afterwards),
    Fault("an answer cut in half", PREUPLOAD, halved),
    Fault("a network's own page in place of the Hub", PREUPLOAD, not_the_hub, "gave up", LOST, EVER),
    Fault("a commit's answer without its name", COMMIT, empty),
    Fault("a commit answered and never taken", COMMIT, never_taken, "back: gave up", LOST),
    Fault("a file fetched back cut in half", FETCH, halved),
    Fault("a file always fetched back cut in half", FETCH, halved, "back: gave up", LOST, EVER),
    Fault("a file comes back with another byte", FETCH, other_bytes, "came back otherwise", LOST),
    Fault("a file comes back of another size", HEAD, other_size, "back: gave up", LOST, EVER),
    Fault("a file is not there afterwards", HEAD, 404, "back: gave up", LOST, EVER),
    Fault("401 at fetching back", HEAD, 401, "is not proven", LOST, EVER),
    Fault("slower than the time limit", PREUPLOAD, slow),
    Fault("the commit taken, its answer too slow", COMMIT, slow_afterwards),
    Fault("slower than the time limit, always", OPEN, slow, "gave up", LOST, EVER),
]
LFS = [
    Fault("502 at the batch", BATCH, 502),
    Fault("closed at the object", PUT, closed),
    Fault("403 at the object, its address too old", PUT, 403),
    Fault("an object refused by the batch", BATCH, errors_by_object, "not allowed", LOST, EVER),
    Fault("an object lost before it is verified", VERIFY, lost, "gave up", LOST, EVER),
    Fault("an object kept otherwise", PUT, kept_otherwise, "came back otherwise", LOST),
]
XET = [
    Fault("502 at the token for writing", WRITE_TOKEN, 502),
    Fault("403 at the token for writing", WRITE_TOKEN, 403, "HF_HUB_DISABLE_XET", LOST, EVER),
    Fault("closed at a xorb", XORB, closed),
    Fault("403 at every xorb", XORB, 403, "HF_HUB_DISABLE_XET", LOST, EVER),
    Fault("a shard refused in its answer", SHARD, error_frame, "HF_HUB_DISABLE_XET", LOST, EVER),
    Fault("chunks kept otherwise", SHARD, damaged_chunks, "model.safetensors", LOST),
]


pytestmark = pytest.mark.usefixtures("no_waiting")


def inject(hub, fault):
    what = fault.what if isinstance(fault.what, int) else lambda go_on: fault.what(hub, go_on)
    hub.faults = [(fault.where, what)] * fault.times


def push_under(hub, fault, model_dir, capsys, monkeypatch):
    """Push with the fault, and hold what is true of every end."""
    inject(hub, fault)
    if fault.what in (slow, slow_afterwards):
        monkeypatch.setattr(upload, "TIME_LIMIT", TIME_LIMIT)
    before = {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()}
    assert run_door(push.main, [str(model_dir), NAME]) == fault.status
    assert len(hub.faults) < fault.times  # it did happen
    printed = capsys.readouterr()
    told = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert {path: path.read_bytes() for path in model_dir.rglob("*") if path.is_file()} == before
    assert hub.token not in printed.out + printed.err and "Traceback" not in printed.err
    if fault.status:
        assert len(told) == 1 and fault.told in told[0] and "pushed" not in printed.out
        return
    assert not told and "each fetched back and the same" in printed.out
    files = hub.repositories[NAME]["commits"][-1]
    assert set(files) == set(staged(model_dir, hub)) and hub.repositories[NAME]["private"]
    assert files["model.safetensors"] == (model_dir / "model.safetensors").read_bytes()


def staged(model_dir, hub):
    with tempfile.TemporaryDirectory() as folder:
        return stage_model(model_dir, Path(folder), "", (hub.token,))


def test_there_are_36_faults_on_each_path():
    for faults in (SHARED + LFS, SHARED + XET):
        assert len({fault.name for fault in faults}) == len(faults) == 36


@pytest.mark.parametrize("fault", SHARED + LFS, ids=lambda fault: fault.name)
def test_a_fault_by_lfs(hub, model_dir, fault, capsys, monkeypatch):
    push_under(hub, fault, model_dir, capsys, monkeypatch)


@pytest.mark.parametrize("fault", XET, ids=lambda fault: fault.name)
def test_a_fault_by_xet(with_xet, model_dir, fault, capsys, monkeypatch):
    push_under(with_xet, fault, model_dir, capsys, monkeypatch)


@pytest.mark.slow  # the same table once more
@pytest.mark.parametrize("fault", SHARED, ids=lambda fault: fault.name)
def test_a_shared_fault_by_xet(with_xet, model_dir, fault, capsys, monkeypatch):
    push_under(with_xet, fault, model_dir, capsys, monkeypatch)


@pytest.mark.slow  # 33 uploads
def test_control_the_librarys_own_call_claims_models_that_nobody_can_fetch(hub, model_dir):
    ends = {"arrived": set(), "raised": set(), "claimed": set()}
    waited_for_ever = [fault for fault in SHARED if fault.what in (slow, slow_afterwards)]
    for fault in SHARED + LFS:
        if fault not in waited_for_ever:
            hub.repositories, hub.objects, hub.kept = {}, {}, {}
            ends[plain_call(hub, fault, model_dir)].add(fault.name)
    assert ends["claimed"] == {
        "a commit answered and never taken",
        "a file always fetched back cut in half",
        "a file comes back with another byte",
        "a file comes back of another size",
        "a file is not there afterwards",
        "401 at fetching back",
        "an object kept otherwise",
    }
    gave_up_too_early = {fault.name for fault in SHARED + LFS if not fault.status} & ends["raised"]
    assert gave_up_too_early == {
        "409, another commit at once",
        "412, another commit came first",
        "500 at opening",
        "504 though the commit was taken",
        "closed at opening",
        "closed before the commit is taken",
        "closed after the commit was taken",
        "a commit's answer without its name",
        "403 at the object, its address too old",
    }


def plain_call(hub, fault, model_dir):
    """What becomes of the library's own call under a fault: arrived, raised, or claimed and not to be fetched."""
    inject(hub, fault)
    api = HfApi(token=hub.token)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as back:
        names = stage_model(model_dir, Path(folder), "# a card\n")
        try:
            api.create_repo(NAME, private=True, exist_ok=True)
            sha = api.upload_folder(repo_id=NAME, folder_path=folder).oid
        except Exception:
            return "raised"
        if not fault.status:
            hub.faults = []  # it has passed by the time that somebody fetches the model
        try:
            fetched = [Path(api.hf_hub_download(NAME, name, revision=sha, local_dir=back)) for name in names]
        except Exception:
            return "claimed"
        same = all(file_sha256(Path(folder, name)) == file_sha256(path) for name, path in zip(names, fetched))
        return "arrived" if same else "claimed"
