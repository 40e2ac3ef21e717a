import random
import sys

from pair_pkg.data import digests
from pair_pkg.data.digests import DigestSet


def test_every_number_is_found_and_no_other(monkeypatch):
    monkeypatch.setattr(digests, "MOST_RECENT", 10)
    draw = random.Random(1)
    seen, ours = set(), DigestSet()
    for _ in range(3_000):
        number = draw.choice([0, 2**64 - 1, draw.getrandbits(8), draw.getrandbits(64)])
        assert (number in ours) == (number in seen)
        if number not in seen:
            seen.add(number)
            ours.add(number)
    assert len(ours._sorted) + len(ours._recent) == len(seen)


def test_it_is_small():
    ours, plain = DigestSet(), set()
    for number in range(2**63, 2**63 + 300_000):
        ours.add(number)
        plain.add(number)
    size = sys.getsizeof(ours._sorted) + sys.getsizeof(ours._recent) + 32 * len(ours._recent)
    assert size < 0.5 * (sys.getsizeof(plain) + 32 * len(plain))
