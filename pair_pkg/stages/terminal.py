"""What a person sees: lines on the standard output, log lines on the standard error."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, NoReturn

from huggingface_hub.utils import disable_progress_bars
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from pair_pkg.errors import InputError, escape_control, one_line
from pair_pkg.training.flag_help import FlagHelp

logger = logging.getLogger("pair_pkg")

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")
LOG_SECONDS = 30  # between two lines about the progress of a long work, where there is no terminal


class CommandParser(argparse.ArgumentParser):
    """A parser whose complaint is one line and an exit status, as everywhere, and with what all commands take."""

    def __init__(self, **settings: Any):
        super().__init__(formatter_class=FlagHelp, **settings)
        everywhere = self.add_argument_group("everywhere")
        everywhere.add_argument(
            "--log_level",
            choices=LOG_LEVELS,
            action=_SetLogLevel,
            default=argparse.SUPPRESS,
            help="the least important lines to show on the standard error (default: info)",
        )
        everywhere.add_argument(  # taken by errors.run_door, before any command
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show the traceback of an error too (default: its one line)",
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {one_line(message)}; --help lists all flags")


class _Plain(logging.Formatter):
    """Lines of the log, in which a label or a file's name cannot steer a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return _without_controls(super().format(record))


def _without_controls(lines: str) -> str:
    return "\n".join(map(escape_control, lines.split("\n")))


class _SetLogLevel(argparse.Action):
    """Sets the level at once: it is no setting of a command."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        logger.setLevel(values.upper())


def announce(*lines: str) -> None:
    """Print lines at once, also into a pipe; on a terminal, without what would steer it."""
    for line in lines:
        print(_without_controls(line) if sys.stdout.isatty() else line, flush=True)


@contextmanager
def progress(total: int, what: str, unit: str = "texts") -> Iterator[Callable[[int], object]]:
    """Show how far a work is, its rate and its expected end; the work calls what it is given with each new count.

    A bar where the standard error is a terminal, else a log line every half minute.
    """
    if sys.stderr.isatty():
        with tqdm(total=total, desc=what, unit=f" {unit}", dynamic_ncols=True) as bar:
            yield bar.update
        return
    done, begin, logged = 0, time.monotonic(), time.monotonic()

    def advance(count: int) -> None:
        nonlocal done, logged
        done += count
        now = time.monotonic()
        if now - logged >= LOG_SECONDS and done < total:
            logged = now
            logger.info("%s", progress_line(what, unit, done, total, now - begin, datetime.now()))

    yield advance


def progress_line(what: str, unit: str, done: int, total: int, seconds: float, now: datetime) -> str:
    """How far a work is, in words.

    >>> progress_line("embedding", "texts", 3000, 9000, 10.0, datetime(2026, 1, 1, 12, 0))
    'embedding: 3,000 of 9,000 texts, 300 texts/s, expected end 12:00:20'
    """
    rate = done / seconds
    end = now + timedelta(seconds=(total - done) / rate)
    return f"{what}: {done:,} of {total:,} {unit}, {rate:,.0f} {unit}/s, expected end {end:%H:%M:%S}"


def set_up_logging(level: int = logging.INFO) -> None:
    """One line a message on the standard error, from this package only; libraries keep their own levels.

    The libraries' progress bars are silenced where the standard error is no terminal.
    """
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
        disable_progress_bars()
    logger = logging.getLogger("pair_pkg")
    logger.setLevel(level)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(_Plain("%(message)s"))
        logger.addHandler(handler)
    logger.propagate = False
