"""Built once by all who ask: one builds, a dead or silent holder is followed, and nothing half-built is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pair_pkg.data import once
from pair_pkg.data.once import build_once

ROOT = Path(__file__).parents[2]
PROCESS = """
import os, sys, time
from pathlib import Path
from pair_pkg.data import once

once.BEAT_SECONDS, once.SILENT_SECONDS, once.LOOK_SECONDS = map(float, sys.argv[2:5])
place, seconds = Path(sys.argv[1]), float(sys.argv[5])

def build(path):
    with open(place.with_name("log"), "a") as log:
        log.write(f"{os.getpid()}\\n")
    path.mkdir()
    (path / "first").write_text("half")
    time.sleep(seconds)
    (path / "second").write_text("whole")

once.build_once(place, build)
assert (place / "second").read_text() == "whole"
"""


@pytest.fixture
def start(tmp_path):
    """``start(seconds, beat=, silent=)``: a process that wants the thing, and builds it in so many seconds."""
    processes = []

    def run(seconds, beat=0.1, silent=60.0):
        words = [sys.executable, "-c", PROCESS, tmp_path / "thing", beat, silent, 0.2, seconds]
        processes.append(subprocess.Popen(list(map(str, words)), cwd=ROOT, stderr=subprocess.PIPE, text=True))
        return processes[-1]

    yield run
    for process in processes:
        process.kill()
        process.wait()
        process.stderr.close()


def builders(tmp_path):
    log = tmp_path / "log"
    return list(map(int, log.read_text().split())) if log.exists() else []


def wait_for_builder(tmp_path):
    while not builders(tmp_path):
        time.sleep(0.02)


def assert_whole(tmp_path, *processes):
    assert [process.wait(timeout=60) for process in processes] == [0] * len(processes)
    assert sorted(path.name for path in (tmp_path / "thing").iterdir()) == ["first", "second"]


def test_of_several_processes_one_builds(start, tmp_path):
    processes = [start(0.5) for _ in range(4)]
    assert_whole(tmp_path, *processes)
    assert len(builders(tmp_path)) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log", "thing"]


def test_a_killed_builder_is_followed_at_once(start, tmp_path):
    first = start(60)
    wait_for_builder(tmp_path)
    others = [start(0.1), start(0.1)]
    time.sleep(1)
    first.send_signal(signal.SIGKILL)
    begin = time.monotonic()
    assert_whole(tmp_path, *others)
    assert time.monotonic() - begin < 30 and len(builders(tmp_path)) == 2


def test_a_holder_that_only_a_file_server_knows_is_followed_when_it_is_silent(start, tmp_path):
    """A stopped process stands for one on a machine that is gone: its lock is never freed."""
    first = start(60)
    wait_for_builder(tmp_path)
    first.send_signal(signal.SIGSTOP)
    other = start(0.1, silent=1.0)
    assert_whole(tmp_path, other)
    assert builders(tmp_path) == [first.pid, other.pid] and "no sign of life" in other.stderr.read()


def test_a_slow_builder_is_waited_for(start, tmp_path):
    """The control: who is heard is not silent, however long it takes."""
    first = start(4.0)
    wait_for_builder(tmp_path)
    other = start(0.1, silent=1.0)
    assert_whole(tmp_path, first, other)
    assert builders(tmp_path) == [first.pid]


def test_what_killed_processes_left_goes_after_a_day(tmp_path):
    old, new = tmp_path / ".a.xyz.building", tmp_path / ".b.xyz.building"
    for folder in (old, new):
        folder.mkdir()
        (folder / "ids.bin").write_bytes(b"ids")
        os.utime(folder, (0, 0))
    os.utime(old / "ids.bin", (0, 0))
    build_once(tmp_path / "thing", lambda path: path.write_text("whole"))
    assert sorted(path.name for path in tmp_path.iterdir()) == [new.name, "thing"]


def test_a_file_as_well_as_a_folder_and_anew(tmp_path):
    place = tmp_path / "thing.npy"
    for anew, text in ((False, "one"), (True, "two")):
        build_once(place, lambda path, text=text: path.write_text(text), anew=anew)
        assert place.read_text() == text
    build_once(place, lambda path: pytest.fail("built again"))
    with pytest.raises(ZeroDivisionError):
        build_once(place, lambda path: 1 / 0, find_damage=lambda path: "is damaged")
    assert list(tmp_path.iterdir()) == []
    assert once.BEAT_SECONDS * 10 < once.SILENT_SECONDS
