"""A growing set of 64-bit numbers at about 20 bytes each, where Python's own takes 100."""

from array import array
from bisect import bisect_left

import numpy as np

MOST_RECENT = 65_536  # numbers that are always kept in a set of Python's


class DigestSet:
    """Numbers below 2**64: the recent ones in a set, at most an eighth of the others, which are sorted in an array."""

    def __init__(self) -> None:
        self._recent: set[int] = set()
        self._sorted = array("Q")

    def __contains__(self, digest: int) -> bool:
        if digest in self._recent:
            return True
        place = bisect_left(self._sorted, digest)
        return place < len(self._sorted) and self._sorted[place] == digest

    def add(self, digest: int) -> None:
        """Put in a number that is not there yet."""
        self._recent.add(digest)
        if len(self._recent) > max(MOST_RECENT, len(self._sorted) // 8):
            recent = np.fromiter(self._recent, np.uint64, len(self._recent))
            merged = np.sort(np.concatenate([np.frombuffer(self._sorted, np.uint64), recent]))
            self._recent, self._sorted = set(), array("Q", merged.tobytes())
