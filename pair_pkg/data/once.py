"""What is built once and read by many processes, runs and machines: beside its place, under a lock, and renamed.

The system frees the lock of a process that dies, on most file servers too. Where it does not, the holder's silence
tells: it touches the lock as long as it works.
"""

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from pair_pkg.records import flush

logger = logging.getLogger("pair_pkg")

BEAT_SECONDS = 20.0  # between two touches of the lock
SILENT_SECONDS = 600.0  # after which its holder is taken for dead: file servers stall for a minute, not for ten
LOOK_SECONDS = 5.0  # between two looks at a lock that is not free
ABANDONED_SECONDS = 86_400.0  # since a half-built thing was last written to: nobody works on it any more
BUILDING_SUFFIX = ".building"


def build_once(
    place: Path,
    build: Callable[[Path], object],
    *,
    find_damage: Callable[[Path], str | None] = lambda place: None if place.exists() else "is missing",
    anew: bool = False,
) -> None:
    """Have ``place``, a file or a folder, built by one of all who ask for it; it is whole when this returns.

    ``build`` writes it to the path that it is given. What stands there is taken, unless ``find_damage`` says in words
    what is wrong with it, or it is wanted ``anew`` and nobody has just built it.
    """
    if not anew and find_damage(place) is None:
        return
    with _one_at_a_time(place) as waited:
        damage = find_damage(place)
        if damage and place.exists():
            logger.warning("%s: %s; it is built anew", place, damage)
        if damage or (anew and not waited):
            _remove(place)
            _remove_abandoned(place.parent)
            _build(place, build, find_damage)


def _build(place: Path, build: Callable[[Path], object], find_damage: Callable[[Path], str | None]) -> None:
    folder = Path(tempfile.mkdtemp(dir=place.parent, prefix=f".{place.name}.", suffix=BUILDING_SUFFIX))
    try:
        built = folder / place.name
        build(built)
        for path in (*built.rglob("*"), built):
            flush(path)
        try:
            built.rename(place)
            flush(place.parent)
        except OSError:  # one that a run on another machine has put there meanwhile is as good, and stays
            if find_damage(place):
                raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _one_at_a_time(place: Path) -> Iterator[bool]:
    """Keep other processes from building the same; says whether another was awaited."""
    lock = FileLock(place.with_name(f".{place.name}.lock"))
    waited = False
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("%s: another process builds it; waiting for it", place)
        _await(lock, place)
        waited = True
    try:
        with _heard(Path(lock.lock_file)):
            yield waited
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)  # whoever waits for it sees that it is gone, and makes another
        lock.release()


def _await(lock: FileLock, place: Path) -> None:
    """Take the lock when it is free, or when its holder has been silent for too long by the clock of this machine."""
    path, last, since = Path(lock.lock_file), None, time.monotonic()
    while True:
        with suppress(Timeout):
            lock.acquire(timeout=LOOK_SECONDS)
            return
        with suppress(FileNotFoundError):
            touched = path.stat().st_ino, path.stat().st_mtime_ns
            if touched != last:
                last, since = touched, time.monotonic()
            elif time.monotonic() - since > SILENT_SECONDS:
                logger.warning("%s: the process that builds it gives no sign of life; it is built here", place)
                path.unlink()


@contextmanager
def _heard(path: Path) -> Iterator[None]:
    """Touch a file again and again in this block."""
    done = threading.Event()

    def touch() -> None:
        while not done.wait(BEAT_SECONDS):
            with suppress(OSError):
                os.utime(path)

    beating = threading.Thread(target=touch, daemon=True)
    beating.start()
    try:
        yield
    finally:
        done.set()
        beating.join()


def _remove(place: Path) -> None:
    if place.is_dir():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def _remove_abandoned(folder: Path) -> None:
    """Remove what killed processes have left half-built."""
    for left in folder.glob(f".*{BUILDING_SUFFIX}"):
        with suppress(OSError):  # another one removes it
            newest = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if time.time() - newest > ABANDONED_SECONDS:
                shutil.rmtree(left)
