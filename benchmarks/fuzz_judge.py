"""What a reader may do with a made-up file: hand over what it holds, or refuse it in one line that names it."""

import io
import json
import resource
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pair_pkg.errors import InputError

MAX_SECONDS = 1.0  # of a processor, for one file of at most 8 KB
MAX_GROWTH_KB = 512 << 10
MAX_MESSAGE = 4000  # characters of a refusal, beside the path
JSON_EDGES = (
    b"[" * 2000,
    b'{"a":' * 1500,
    b"1" * 5000,
    b'{"text": "\\ud800"}',
    b'{"text": NaN}',
    b'{"text": 1e999}',
    b"[" + b"9" * 400 + b"]",
    b"null",
    b'"a"',
    b"{}",
    b"[]",
    b"[{}]",
    b'{"a": 1, "a": 2}',
)
TEXT_EDGES = (
    b"",
    b"\n",
    b"\xef\xbb\xbf",
    b"\xff\xfea\0",
    b"a\0b",
    b"\r\r\r",
    "a\u2028b\u202e\n".encode(),
    b'"',
    b"\x1f\x8b",
    b"<html>",
    b"version https://git-lfs",
    b"PK\x03\x04",
    b"\xb5\xc4",
    b"caf\xe9\n" * 9,
)


@dataclass(frozen=True)
class Reader:
    """A file's name, what reads it, and ``prepare``: the other files of its folder, and whole contents of this one."""

    file: str
    read: Callable[[Path], object]
    prepare: Callable[[Path], list[bytes]]
    share: float = 1.0  # of the inputs that a reader gets; less for one that is slow by its nature


def judge(reader: Reader, path: Path, content: bytes) -> tuple[str | None, bool]:
    """What is wrong with how a reader takes a file, or None; and whether it was refused."""
    path.write_bytes(content)
    grown, begin = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    fault, refused = None, False
    try:
        reader.read(path)
    except InputError as error:
        fault, refused = _judge_refusal(str(error), path), True
    except (KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # a reader of compiled code may raise anything
        where = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:200]}"
    seconds = time.process_time() - begin
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - grown
    if grown > MAX_GROWTH_KB:
        fault = f"memory grew by {grown >> 10} MB"
    elif seconds > MAX_SECONDS:
        fault = f"took {seconds:.1f} s"
    return fault, refused


def _judge_refusal(message: str, path: Path) -> str | None:
    if len(message) > MAX_MESSAGE:
        return f"a refusal of {len(message)} characters: {message[:100]}"
    named = path.name in message or path.parent.name in message or "--" in message
    return None if named else f"a refusal that names no place: {message[:200]}"


def jsons(*more: object) -> Callable[[Path], list[bytes]]:
    """Whole and odd files of JSON, for ``prepare``."""
    return lambda folder: [*(json.dumps(value, ensure_ascii=False).encode() for value in more), *JSON_EDGES]


def arrays(folder: Path) -> list[bytes]:
    """Whole and odd npy files, for ``prepare``."""

    def write(array: np.ndarray) -> bytes:
        file = io.BytesIO()
        np.save(file, array)
        return file.getvalue()

    head = b"\x93NUMPY\x01\x00"
    shapes = (b"(99999999999999, 999999999999)", b"(-1, 5)", b"(True, 1)", b"(1 << 9, 1)", b"((", b"(0, 4)")
    edges = [b"{'descr': '<f4', 'fortran_order': False, 'shape': %s, }\n" % shape for shape in shapes]
    edges += [b"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n", b"'\n", b"1L\n", b"V\n"]
    packed = [head + len(edge).to_bytes(2, "little") + edge + bytes(64) for edge in edges]
    floats = np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4)
    return [write(floats), write(floats.astype(np.float16).T), write(np.arange(3)), *packed]
