"""How ``--help`` words a flag: its explanation, and what holds where it is not given."""

import argparse
import re

TELLS_DEFAULT = re.compile(r"\b(unset|left out|default)\b")


class FlagHelp(argparse.RawDescriptionHelpFormatter):
    """Adds the default to every flag that takes a value and does not explain its default by itself."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        takes_value = bool(action.option_strings) and action.nargs != 0 and not action.required
        if not takes_value or TELLS_DEFAULT.search(text) or action.default is argparse.SUPPRESS:
            return text
        return f"{text} (default: {'unset' if action.default in (None, '') else '%(default)s'})"
