"""The one border where a user's mistake becomes one readable line and an exit status."""

import sys
import traceback
from collections.abc import Callable, Sequence

EXIT_BAD_INPUT = 2
EXIT_FAILED = 1
EXIT_NOT_PUSHED = 69  # EX_UNAVAILABLE of sysexits.h: the model is safe here, the Hub does not hold it
EXIT_INTERRUPTED = 130  # 128 + SIGINT, the shell's convention


class InputError(ValueError):
    """Input that the user can mend: the message is one line with the place and the cure."""


class TrainingFailure(RuntimeError):
    """Training that cannot go on (a non-finite loss): the message names the step."""


class ExportFailure(RuntimeError):
    """An export that does not say what the model says: the message names the loss and the layers that moved."""


class PushFailure(RuntimeError):
    """A model that the Hub does not hold, or holds otherwise than it was sent; what is on this machine is whole."""


def run_door(main: Callable[[Sequence[str] | None], object], argv: Sequence[str] | None = None) -> int:
    """Run a door's ``main`` and return the exit status of the process.

    Bad input prints one line and returns 2, a failed training or export prints one line and returns 1, a failed push
    69.
    ``--debug`` anywhere in the command line shows the traceback as well. Any other exception
    is a defect of this package and keeps its traceback.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    try:
        main([word for word in words if word != "--debug"])
    except (InputError, TrainingFailure, ExportFailure, PushFailure) as error:
        if debug:
            traceback.print_exc()
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        return {InputError: EXIT_BAD_INPUT, PushFailure: EXIT_NOT_PUSHED}.get(type(error), EXIT_FAILED)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 0


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
