import os
import random
import tracemalloc
from pathlib import Path

import pytest

from pair_pkg.data import digests
from pair_pkg.data.digests import DigestSet


@pytest.mark.parametrize("is_on_disk", [False, True])
def test_every_number_is_found_and_no_other(monkeypatch, tmp_path, is_on_disk):
    monkeypatch.setattr(digests, "MOST_RECENT", 10)
    draw = random.Random(1)
    seen, ours = set(), DigestSet(tmp_path if is_on_disk else None)
    for _ in range(3_000):
        number = draw.choice([0, 2**64 - 1, draw.getrandbits(8), draw.getrandbits(64)])
        assert (number in ours) == (number in seen)
        if number not in seen:
            seen.add(number)
            ours.add(number)
    assert ours._num_stored + len(ours._recent) == len(seen) > 100 * digests.MOST_RECENT


def test_its_memory_is_that_of_the_recent_ones(monkeypatch, tmp_path):
    monkeypatch.setattr(digests, "MOST_RECENT", 1_000)
    ours = DigestSet(tmp_path)
    tracemalloc.start()
    for number in range(2**63, 2**63 + 20_000):
        ours.add(number)
    assert tracemalloc.get_traced_memory()[1] < 300_000  # 20,000 in a set of Python's take 1.6 MB
    tracemalloc.stop()
    assert 2**63 in ours and 2**63 + 20_000 not in ours
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
def test_a_full_disk_is_an_error_and_no_end_of_the_process(monkeypatch):
    monkeypatch.setattr(digests, "MOST_RECENT", 10)
    with open("/dev/full", "r+b", buffering=0) as full:
        monkeypatch.setattr(digests.tempfile, "TemporaryFile", lambda dir: full)
        ours = DigestSet(Path())
        with pytest.raises(OSError, match="No space left"):
            for number in range(11):
                ours.add(number)
