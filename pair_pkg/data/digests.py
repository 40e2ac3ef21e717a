"""A growing set of 64-bit numbers; with a folder its memory is that of the recent ones, the others lie on the disk."""

import mmap
import tempfile
from collections.abc import Iterable
from pathlib import Path

from pair_pkg.data.arrays import append_zeros

MOST_RECENT = 65_536  # numbers that are in memory where there is a folder
FREE = 0  # what a place of the table holds that no number has


class DigestSet:
    """Numbers below 2**64: in a set, and with ``folder`` the older ones in a table of open addressing on the disk.

    The table has 12 to 24 bytes a number, lies in a file without a name, and is gone with the set. The kernel keeps as
    much of it in memory as there is room for. Digests are evenly spread, so a number's lowest bits are its place.
    Raises ``OSError`` where the disk is full.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._recent: set[int] = set()
        self._table = memoryview(b"").cast("Q")  # as many places as a power of two; of three, two are taken at most
        self._num_stored = 0

    def __contains__(self, digest: int) -> bool:
        return digest in self._recent or (self._num_stored > 0 and self._table[self._place(digest)] == digest != FREE)

    def add(self, digest: int) -> None:
        """Put in a number that is not there yet."""
        self._recent.add(digest)
        if self._folder is not None and len(self._recent) > MOST_RECENT:
            stored = self._recent - {FREE}
            self._grow(self._num_stored + len(stored))
            self._store(stored)
            self._recent &= {FREE}

    def _grow(self, num_numbers: int) -> None:
        """Make room for so many."""
        old, size = self._table, max(len(self._table), 1)
        while 3 * num_numbers > 2 * size:
            size *= 2
        if size > len(old):
            with tempfile.TemporaryFile(dir=self._folder) as file:
                append_zeros(file, 8 * size)
                self._table = memoryview(mmap.mmap(file.fileno(), 8 * size)).cast("Q")
            self._num_stored = 0
            self._store(digest for digest in old if digest != FREE)

    def _store(self, digests: Iterable[int]) -> None:
        for digest in digests:
            self._table[self._place(digest)] = digest
            self._num_stored += 1

    def _place(self, digest: int) -> int:
        """Where a number stands in the table, or would."""
        table, last = self._table, len(self._table) - 1
        place = digest & last
        while table[place] not in (digest, FREE):
            place = (place + 1) & last
        return place
