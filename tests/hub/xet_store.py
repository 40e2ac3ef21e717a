"""The storage behind the Xet path, as huggingface.co/docs/xet describes its protocol: chunks are compressed and kept
in xorbs, and a shard says of which chunks a file is made. The client that speaks to it is the real hf_xet.

Every file is put together from its chunks by other code than the client's, and its sha256 recomputed. The keyed hashes
by which chunks and xorbs are named are taken as they come.
"""

import hashlib
import json
import re
import struct
from dataclasses import dataclass

import pyarrow

HEADER = ENTRY = 48  # bytes
WITH_VERIFICATION, WITH_METADATA = 1 << 31, 1 << 30
STORED, LZ4, GROUPED_LZ4 = range(3)


@dataclass(frozen=True)
class Term:
    """A run of chunks of one xorb, ``start`` to before ``end``, and their bytes when unpacked."""

    xorb: str
    length: int
    start: int
    end: int


class XetStore:
    """Xorbs by hash, files by their Xet hash, and the Xet hash of a sha256; answers below ``/cas``."""

    token = "xet-" + "loopback" * 3

    def __init__(self, url):
        self.url = url
        self.xorbs: dict[str, bytes] = {}
        self.files: dict[str, list[Term]] = {}
        self.hashes: dict[str, str] = {}
        self.contents: dict[str, bytes] = {}  # by sha256, as they were when they came

    def answer(self, method, path, headers, body):
        """(status, headers, body) of a request; what an older storage does not know is 404, as there."""
        name = path.rsplit("/", 1)[1]
        if path.startswith("/cas/bytes/"):
            return self._bytes(self.xorbs[name], headers["Range"])  # signed addresses: no token is sent there
        if headers.get("Authorization") != f"Bearer {self.token}":
            return 401, {}, b"{}"
        if method == "POST" and path.startswith("/cas/v1/xorbs/default/"):
            self.xorbs[name] = body
            return reply({"was_inserted": True})
        if method == "POST" and path == "/cas/v2/shards":
            return self._shard(body)
        if path.startswith("/cas/v1/reconstructions/") and name in self.files:
            return self._plan(self.files[name], headers.get("Range"))
        return 404, {}, b"{}"

    def _shard(self, body):
        for xet_hash, sha256, terms in read_shard(body):
            if {term.xorb for term in terms} - set(self.xorbs):
                return 400, {}, b"a xorb is absent"
            content = self._assembled(terms)
            if hashlib.sha256(content).hexdigest() != sha256:
                return 400, {}, b"the sha256 is another"
            self.files[xet_hash], self.hashes[sha256], self.contents[sha256] = terms, xet_hash, content
        return 200, {"Content-Type": "application/x-ndjson"}, b'{"type": "result"}\n'

    def _assembled(self, terms):
        parts = []
        for term in terms:
            xorb = self.xorbs[term.xorb]
            parts += [unpack(xorb[start:end]) for start, end in chunks_of(xorb)[term.start : term.end]]
        return b"".join(parts)

    def _plan(self, terms, wanted):
        total = sum(term.length for term in terms)
        if wanted and int(re.match(r"bytes=(\d+)", wanted)[1]) >= total:
            return 416, {}, b""  # a client that asks for the next part of a file finds its end so
        places = {}
        for term in terms:
            chunks = chunks_of(self.xorbs[term.xorb])[term.start : term.end]
            span = {"start": chunks[0][0], "end": chunks[-1][1] - 1}
            place = {"url": f"{self.url}/cas/bytes/{term.xorb}", "url_range": span}
            places.setdefault(term.xorb, []).append({"range": {"start": term.start, "end": term.end}, **place})
        shown = [
            {"hash": term.xorb, "unpacked_length": term.length, "range": {"start": term.start, "end": term.end}}
            for term in terms
        ]
        return reply({"offset_into_first_range": 0, "terms": shown, "fetch_info": places})

    def _bytes(self, xorb, wanted):
        start, end = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", wanted).groups())
        return 206, {"Content-Range": f"bytes {start}-{end}/{len(xorb)}"}, xorb[start : end + 1]


def read_shard(body):
    """(Xet hash, sha256, terms) of every file that a shard tells of."""
    place = HEADER
    while (start := body[place : place + 32]) != b"\xff" * 32:
        flags, count = struct.unpack_from("<II", body, place + 32)
        place += ENTRY
        entries = [body[place + ENTRY * number :][:ENTRY] for number in range(count)]
        terms = [Term(hexadecimal(entry[:32]), *struct.unpack_from("<III", entry, 36)) for entry in entries]
        place += ENTRY * count * (2 if flags & WITH_VERIFICATION else 1)
        assert flags & WITH_METADATA, "a file without its sha256"
        yield hexadecimal(start), hexadecimal(body[place : place + 32]), terms
        place += ENTRY


def hexadecimal(raw):
    """A hash as the protocol writes it: four little-endian numbers of 64 bits."""
    return "".join(f"{part:016x}" for part in struct.unpack("<4Q", raw))


def chunks_of(xorb):
    """(start, end) of each chunk with its header."""
    places, place = [], 0
    while place < len(xorb):
        end = place + 8 + int.from_bytes(xorb[place + 1 : place + 4], "little")
        places.append((place, end))
        place = end
    return places


def unpack(chunk):
    """The bytes of one chunk: kept as they were, LZ4, or LZ4 of every fourth byte together."""
    kind, length = chunk[4], int.from_bytes(chunk[5:8], "little")
    if kind == STORED:
        return chunk[8:]
    content = pyarrow.decompress(chunk[8:], length, codec="lz4", asbytes=True)
    if kind == LZ4:
        return content
    assert kind == GROUPED_LZ4, kind
    grouped = bytearray(length)
    place = 0
    for first in range(4):
        count = len(range(first, length, 4))
        grouped[first::4] = content[place : place + count]
        place += count
    return bytes(grouped)


def reply(value, status=200):
    """A JSON answer."""
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()
