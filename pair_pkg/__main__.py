"""``python -m pair_pkg COMMAND``: the commands that are not one of the two stages."""

import sys
from collections.abc import Sequence

from pair_pkg import __version__
from pair_pkg.errors import InputError, run_door
from pair_pkg.stages.commands import COMMANDS, load_command

USAGE = "\n".join(
    [
        f"pair_pkg {__version__}: usage: python -m pair_pkg COMMAND ... (--help after a command shows its flags)",
        *(f"  {name:<12}{summary}" for name, (_, summary) in COMMANDS.items()),
        "the two stages by themselves: python run_mlm.py --help, python run_pair_cls.py --help",
    ]
)


def main(argv: Sequence[str] | None = None) -> object:
    """Run the command that the first word names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return None
    if words[0] not in COMMANDS:
        raise InputError(f"{words[0]}: no such command; take one of {', '.join(COMMANDS)}")
    return load_command(words[0]).main(words[1:])


def command() -> int:
    """The console command ``pair_pkg``."""
    return run_door(main)


if __name__ == "__main__":
    raise SystemExit(command())
