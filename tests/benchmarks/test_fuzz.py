"""A small draw of changed files for every reader; ``python -m benchmarks fuzz`` gives them a million, by coverage."""

import importlib.util
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.fuzz import CONTROLS, READERS
from benchmarks.fuzz_judge import Reader, judge
from pair_pkg.errors import InputError

ROOT = Path(__file__).parents[2]
PIECES = [
    b"",
    b'"',
    b"[",
    b"{",
    b"}",
    b",",
    b"\n",
    b"\r",
    b"\0",
    b"\xff",
    b"null",
    b"NaN",
    b"-1",
    b"1e999",
    b"9" * 5000,
    b"[" * 2000,
    b"\\ud800",
    "\u2028\u202e".encode(),
    b"../",
    b"&a",
    b"PK\x03\x04",
]
FEW = settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))


@st.composite
def changed(draw, wholes):
    """A whole file with one to four parts of it taken out, each with a piece in its place."""
    content = draw(st.sampled_from(wholes))
    for _ in range(draw(st.integers(1, 4))):
        begin, length = draw(st.integers(0, len(content))), draw(st.integers(0, 12))
        piece = draw(st.sampled_from(PIECES) | st.binary(max_size=8))
        content = content[:begin] + piece + content[begin + length :]
    return content


def find_faults(reader: Reader, folder: Path) -> dict[str, bytes]:
    wholes, found = reader.prepare(folder), {}
    path = folder / reader.file

    @FEW
    @given(changed(wholes))
    def look(content):
        fault, _ = judge(reader, path, content)
        if fault:
            found[fault] = content

    for whole in wholes:
        fault, _ = judge(reader, path, whole)
        if fault:
            found[fault] = whole
    look()
    return found


@pytest.mark.parametrize("name", READERS)
@pytest.mark.filterwarnings("ignore")
def test_a_reader_gives_a_result_or_a_refusal_of_one_line(name, tmp_path, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pair_pkg"), "level", logging.CRITICAL)
    assert find_faults(READERS[name], tmp_path) == {}


@pytest.mark.parametrize("name", ["an exception", "a hang"])
def test_a_reader_that_was_broken_on_purpose_is_found(name, tmp_path):
    """The control. The other two, of memory and of a process that dies, are run by the command."""
    assert find_faults(CONTROLS[name], tmp_path)


@pytest.mark.parametrize("message", ["something is bad; mend it", "a.txt: " + "x" * 5000])
def test_a_refusal_without_a_place_or_without_end_is_found(tmp_path, message):
    def refuse(path):
        raise InputError(message)

    fault, refused = judge(Reader("a.txt", refuse, list), tmp_path / "a.txt", b"")
    assert refused and fault


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed")
def test_the_command_finds_every_control_and_nothing_else(tmp_path):
    words = ["fuzz", "--count=2000", "--readers", "decision.json", "labels"]
    environment = [sys.executable, "-m", "benchmarks", *words, f"--findings={tmp_path / 'findings'}"]
    done = subprocess.run(environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout.splitlines()[-1])
    assert document["findings"] == 0 and document["inputs"] >= 2000 and document["controls found"] == "4 of 4"
    assert {path.name for path in (tmp_path / "findings").iterdir()} == {
        f"control_{n.replace(' ', '_')}" for n in CONTROLS
    }
