"""The one border where a user's mistake becomes one readable line and an exit status."""

import errno
import sys
import traceback
from collections.abc import Callable, Sequence

from pair_pkg.interrupts import Interrupted, obey_signals

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_NOT_PUSHED = 69  # EX_UNAVAILABLE of sysexits.h: the model is safe here, the Hub does not hold it
EXIT_DISK_FULL = 74  # EX_IOERR of sysexits.h
EXIT_INTERRUPTED = 75  # EX_TEMPFAIL of sysexits.h: the same command, given again, goes on
# What the compiled writers say in place of an errno: safetensors, and torch's zip writer on data, ends and small files.
FULL_DISK_WORDS = ("No space left on device", "Disk quota exceeded", "PytorchStreamWriter failed", "unexpected pos",
                   "iostream error")  # fmt: skip

LIBRARY_DEBUG = ("underflow_overflow", "tpu_metrics_debug")  # what transformers' own --debug takes


class InputError(ValueError):
    """Input that the user can mend: the message is one line with the place and the cure."""


class TrainingFailure(RuntimeError):
    """Training that cannot go on (a non-finite loss): the message names the step."""


class DiskFull(RuntimeError):
    """The disk took no more, or has no room for what is to come: the message says what stands and what is needed."""


class ExportFailure(RuntimeError):
    """An export that does not say what the model says: the message names the loss and the layers that moved."""


class PushFailure(RuntimeError):
    """A model that the Hub does not hold, or holds otherwise than it was sent; what is on this machine is whole."""


def run_door(main: Callable[[Sequence[str] | None], object], argv: Sequence[str] | None = None) -> int:
    """Run a door's ``main`` and return the exit status of the process.

    Bad input prints one line and returns 2, a failed training or export prints one line and returns 1, a failed push
    69, a full disk 74, a signal or Ctrl-C 75.
    A bare ``--debug`` anywhere in the command line shows the traceback as well. Any other exception
    is a defect of this package and keeps its traceback.
    """
    words, debug = take_debug(list(sys.argv[1:] if argv is None else argv))
    try:
        with obey_signals():
            main(words)
    except (Interrupted, KeyboardInterrupt) as interrupt:
        print(f"interrupted: {one_line(str(interrupt)) or 'by the keyboard'}", file=sys.stderr)
        return EXIT_INTERRUPTED
    except Exception as error:
        status, message = _verdict(error)
        if status is None:
            raise
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(message)}", file=sys.stderr)
        return status
    return 0


def take_debug(words: Sequence[str]) -> tuple[list[str], bool]:
    """The words without a bare ``--debug``, and whether there was one; the library's own takes a value.

    >>> take_debug(["score", "--debug", "--model", "m"]), take_debug(["--debug", "underflow_overflow"])
    ((['score', '--model', 'm'], True), (['--debug', 'underflow_overflow'], False))
    """
    bare = [
        place
        for place, word in enumerate(words)
        if word == "--debug" and not (words[place + 1 : place + 2] and words[place + 1] in LIBRARY_DEBUG)
    ]
    return [word for place, word in enumerate(words) if place not in bare], bool(bare)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error of any writer says that the disk, or the user's part of it, is full."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(word in str(error) for word in FULL_DISK_WORDS)


def _verdict(error: Exception) -> tuple[int | None, str]:
    """The exit status of an error that the user is told of in a line, and that line; None for a defect."""
    if isinstance(error, DiskFull) or is_disk_full(error):
        cure = "" if isinstance(error, DiskFull) else "the disk is full: free some space and give the same command; "
        return EXIT_DISK_FULL, f"{cure}{error}"
    if isinstance(error, InputError):
        return EXIT_BAD_INPUT, str(error)
    if isinstance(error, PushFailure):
        return EXIT_NOT_PUSHED, str(error)
    return (EXIT_FAILED if isinstance(error, TrainingFailure | ExportFailure) else None), str(error)


def one_line(text: str) -> str:
    """Join lines and show control characters as escapes, so that no input can steer a terminal.

    >>> one_line("a\\nb\\x1b[31m")
    'a b\\\\x1b[31m'
    """
    return escape_control(" ".join(text.split()))


def escape_control(text: str) -> str:
    """Show control and format characters, line breaks among them, as escapes; the rest stays as it is.

    >>> escape_control("a\\tb  \\u202e花")
    'a\\\\tb  \\\\u202e花'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
