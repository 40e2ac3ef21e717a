"""SIGTERM and SIGINT: work is stopped at once, or, where it says so, once it has put what is done on the disk."""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
IMPATIENT = 3  # a Ctrl-C may come twice by itself: from the terminal, and from the launcher that got it too
PR_SET_PDEATHSIG = 1  # prctl(2)
LAUNCHER_VARIABLES = ("TORCHELASTIC_RUN_ID", "ACCELERATE_MIXED_PRECISION")  # set by torchrun, by accelerate launch


class Interrupted(BaseException):
    """The work was told to stop: the message says what stands. No ``except Exception`` takes it for a failure."""


_received: list[int] = []
_deferrals = 0
_raised = False


@contextmanager
def obey_signals() -> Iterator[None]:
    """SIGTERM and SIGINT raise ``Interrupted`` in this block, or wait for the end of a ``deferred`` one.

    A process that a launcher started gets SIGTERM when the launcher dies, and is no orphan.
    """
    global _raised
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _received.clear()
    _raised = False
    _follow_launcher()
    before = {number: signal.signal(number, _receive) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _received.clear()  # obeyed; whatever runs next in this process is not meant


@contextmanager
def deferred() -> Iterator[None]:
    """A signal is only noted in this block: ask ``was_signalled``. At the block's end a noted one is obeyed."""
    global _deferrals
    _deferrals += 1
    try:
        yield
    finally:
        _deferrals -= 1
    if _received and not _deferrals:
        _obey()


def was_signalled() -> bool:
    """Whether a signal is waiting to be obeyed."""
    return bool(_received)


def signal_name() -> str:
    """The name of the signal that came first; another process may have got it."""
    return signal.Signals(_received[0]).name if _received else "a signal to another process"


def ignore_signals(*_: object) -> None:
    """For a helper process, which ends when the one that it works for ends: a signal to the group is not for it."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def _receive(number: int, frame: FrameType | None) -> None:
    _received.append(number)
    if _received.count(signal.SIGINT) >= IMPATIENT:
        _obey()
    elif _deferrals and len(_received) == 1:
        # not through the logger: a handler may come in the middle of its own write
        os.write(2, f"{signal_name()}: stops when what is done is saved\n".encode())
    elif not _deferrals and not _raised:
        _obey()


def _obey() -> None:
    global _raised
    _raised = True
    raise Interrupted(f"{signal_name()}: stopped; the same command goes on from what is saved")


def _follow_launcher() -> None:
    if sys.platform == "linux" and any(name in os.environ for name in LAUNCHER_VARIABLES):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
