"""Chunks tokenized in other processes: the same tokens in the same order, whatever happens to a process."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from pair_pkg.data import word_processes
from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.tokens import load_or_build_store
from pair_pkg.data.word_processes import WordProcess, tokenize_chunks
from pair_pkg.data.words import WordTokenizer


@pytest.fixture
def state(tiny_tokenizer):
    return json.loads(tiny_tokenizer.backend_tokenizer.to_str())


@pytest.fixture
def started(monkeypatch):
    """The processes that were started: from the second chunk on, two of them."""
    processes = []

    class Watched(WordProcess):
        def __init__(self, *settings):
            super().__init__(*settings)
            processes.append(self._process)

    monkeypatch.setattr(word_processes, "WordProcess", Watched)
    monkeypatch.setattr(word_processes, "CHARACTERS_ALONE", 1)
    monkeypatch.setattr(word_processes, "num_cores", lambda: 3)
    return processes


def in_one_process(state, chunks, chinese=None):
    tokenizer = WordTokenizer(state, chinese)
    return [tokenizer.tokenize(chunk) for chunk in chunks]


def assert_same(found, expected):
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        for one, other in zip(ours, theirs):
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)


def test_processes_give_the_same_tokens_in_the_same_order(state, tiny_documents, started):
    chunks = [tiny_documents[start : start + 9] for start in range(0, 200, 9)]
    chinese = ChineseWords(["旧水泵"])  # goes along
    expected = in_one_process(state, chunks, chinese)
    assert_same(list(tokenize_chunks(iter(chunks), state, chinese)), expected)
    assert len(started) == 2 and all(process.returncode is not None for process in started)


def test_a_process_that_ends_is_replaced_by_this_one(state, tiny_documents, started, caplog):
    chunks = [tiny_documents[start : start + 5] for start in range(0, 200, 5)]

    def read():
        for number, chunk in enumerate(chunks):
            if number == 6:
                started[0].kill()
            yield chunk

    assert_same(list(tokenize_chunks(read(), state)), in_one_process(state, chunks))
    assert caplog.messages == ["a process that tokenizes ended (status -9); its share is done here"]


def test_an_error_of_the_reader_ends_the_processes_and_leaves_no_store(tmp_path, tiny_tokenizer, started, monkeypatch):
    monkeypatch.setattr("pair_pkg.data.tokens.CHUNK_CHARACTERS", 20)

    def texts():
        yield from ["the old pump leaks at full load"] * 3
        assert len(started) == 2
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        load_or_build_store(tmp_path, "corpus", tiny_tokenizer, texts, dict, quiet=True)
    assert list(tmp_path.iterdir()) == []
    assert all(process.returncode is not None for process in started)


def test_few_characters_two_cores_or_a_tokenizer_of_whole_texts_start_none(state, started, monkeypatch):
    chunks = [["the pump"], ["a valve"], ["hums"]]
    expected = in_one_process(state, chunks)
    with monkeypatch.context() as patch:
        patch.setattr(word_processes, "num_cores", lambda: 2)
        assert_same(list(tokenize_chunks(chunks, state)), expected)
    with monkeypatch.context() as patch:
        patch.setattr(word_processes, "CHARACTERS_ALONE", 100)
        assert_same(list(tokenize_chunks(chunks, state)), expected)
    whole = {
        **state,
        "pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "always", "split": True},
    }
    assert not WordTokenizer(whole).cuts_texts
    assert_same(list(tokenize_chunks(chunks, whole)), in_one_process(whole, chunks))
    assert not started


ORPHAN = """
import json, os, signal, sys
from pair_pkg.data.word_processes import WordProcess

process = WordProcess(json.load(open(sys.argv[1])), None).__enter__()
process.tokenize(["the pump"])
print(process._process.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(not os.path.isdir("/proc"), reason="needs /proc, which Linux has")
def test_a_process_ends_with_the_one_that_it_works_for_also_when_that_is_killed(tiny_tokenizer, tmp_path):
    tiny_tokenizer.backend_tokenizer.save(str(tmp_path / "state.json"))
    words = [sys.executable, "-c", ORPHAN, str(tmp_path / "state.json")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert killed.returncode == -9 and killed.stderr == ""
    deadline = time.monotonic() + 30
    while _runs(int(killed.stdout)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _runs(int(killed.stdout))


def _runs(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False
