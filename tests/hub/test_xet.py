"""A push by the Xet path, the library's default: the real hf_xet to the stand-in's storage and back."""

import hashlib

import hf_xet
import numpy as np
import pytest

from pair_pkg.stages import push
from tests.hub.xet_store import GROUPED_LZ4, LZ4, STORED, chunks_of

pytestmark = pytest.mark.usefixtures("no_waiting")
NAME = "someone/pump-pairs"


def requests_of(hub, pattern):
    return [request for request in hub.requests if pattern in request[1]]


def test_a_model_goes_by_xet_and_comes_back_the_same(with_xet, model_dir):
    hub = with_xet
    push.main([str(model_dir), NAME])
    files = hub.repositories[NAME]["commits"][-1]
    assert files["model.safetensors"] == (model_dir / "model.safetensors").read_bytes()
    assert len(hub.xet.xorbs) == len(hub.xet.files) == 1 and hub.objects == {}  # nothing by LFS
    for part in ("/v1/xorbs/", "/v2/shards", "/v1/reconstructions/", "/cas/bytes/"):
        assert requests_of(hub, part)
    # the Hub's token buys one for the storage, and never goes there itself
    assert {request[2] for request in requests_of(hub, "xet-write-token")} == {f"Bearer {hub.token}"}
    assert {request[2] for request in requests_of(hub, "/cas/v")} == {f"Bearer {hub.xet.token}"}
    assert {request[2] for request in requests_of(hub, "/cas/bytes/")} == {None}


def test_a_second_push_of_the_same_sends_and_commits_nothing(with_xet, model_dir):
    first = push.main([str(model_dir), NAME])
    with_xet.requests.clear()
    assert push.main([str(model_dir), NAME])["commit"] == first["commit"]
    assert not requests_of(with_xet, "/commit/") and not requests_of(with_xet, "/v1/xorbs/")


def send(hub, content, sha256):
    """Have hf_xet bring a file to the storage, as the library does."""
    hub.repositories[NAME] = {"private": True, "commits": [{}], "messages": []}
    address = f"{hub.url}/api/models/{NAME}/xet-write-token/main"
    headers = {"authorization": f"Bearer {hub.token}"}
    session = hf_xet.XetSession()
    with session.new_upload_commit(token_refresh_url=address, token_refresh_headers=headers) as commit:
        commit.start_upload_bytes(content, sha256=sha256, name="weights")


def test_the_storage_puts_every_kind_of_chunk_together(with_xet):
    rng = np.random.default_rng(3)
    floats = rng.normal(size=100_000).astype(np.float32).tobytes()
    for content in (rng.bytes(300_000), b"abcdefg" * 40_000, floats):
        send(with_xet, content, hf_xet.COMPUTE_SHA256)
        assert with_xet.xet.contents[hashlib.sha256(content).hexdigest()] == content
    kinds = {xorb[start + 4] for xorb in with_xet.xet.xorbs.values() for start, _ in chunks_of(xorb)}
    assert kinds == {STORED, LZ4, GROUPED_LZ4}


def test_the_storage_refuses_what_is_not_what_it_is_said_to_be(with_xet):
    with pytest.raises((OSError, RuntimeError)):
        send(with_xet, b"weights" * 100, "0" * 64)
    assert with_xet.xet.contents == {}
