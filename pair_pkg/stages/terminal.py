"""What a person sees: lines on the standard output, log lines on the standard error."""

import argparse
import logging
import sys
from typing import NoReturn

from transformers.utils import logging as transformers_logging

from pair_pkg.errors import InputError, one_line


class CommandParser(argparse.ArgumentParser):
    """A parser whose complaint is one line and an exit status, as everywhere."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {one_line(message)}; --help lists all flags")


def announce(*lines: str) -> None:
    """Print lines at once, also into a pipe."""
    for line in lines:
        print(line, flush=True)


def set_up_logging(level: int = logging.INFO) -> None:
    """One line a message on the standard error, from this package only; libraries keep their own levels.

    The library's progress bars are silenced where the standard error is no terminal.
    """
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    logger = logging.getLogger("pair_pkg")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)
    logger.propagate = False
