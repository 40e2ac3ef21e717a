"""``python -m pair_pkg completion bash``: what a shell's Tab key needs to know of all commands and flags.

The script is written once, and again after an update: a Tab then starts no Python, let alone torch.
"""

import argparse
from collections.abc import Iterator, Sequence
from typing import Any, cast

import shtab

from pair_pkg.stages import adapt, finetune
from pair_pkg.stages.commands import COMMANDS, load_command
from pair_pkg.stages.terminal import CommandParser, announce

SHELLS = ("bash", "zsh")


def main(argv: Sequence[str] | None = None) -> str:
    """Print the script of a shell, and return it."""
    options = build_parser().parse_args(argv)
    script = "\n".join(shtab.complete(parser, shell=options.shell) for parser in _programs())
    announce(script)
    return script


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg completion", description="Print a script for a shell's Tab key.")
    parser.add_argument("shell", choices=SHELLS, help="whose: source the script from ~/.bashrc, or eval it in ~/.zshrc")
    return parser


def _programs() -> Iterator[argparse.ArgumentParser]:
    """The parsers of everything that can be started by its own name, told what is a file."""
    commands = argparse.ArgumentParser(prog="pair_pkg")
    each = commands.add_subparsers()
    for name, (_, summary) in COMMANDS.items():
        each.add_parser(name, help=summary, parents=[_completed(load_command(name).build_parser())], add_help=False)
    yield commands
    for stage in (adapt, finetune):
        parser = stage.build_parser()
        parser.add_argument("recipe", nargs="?", help="a YAML or JSON file of flags")
        yield _completed(parser)


def _completed(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Words are completed as files, for most name one; of two spellings of a flag the one of our pages is shown."""
    for action in parser._actions:
        if action.nargs != 0 and action.choices is None and action.type in (None, str):
            cast(Any, action).complete = shtab.FILE  # where shtab looks
        ours = [option for option in action.option_strings if "-" not in option.lstrip("-")]
        action.option_strings = ours or action.option_strings
    return parser
