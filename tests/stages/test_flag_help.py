"""``--help`` of every command: each flag of ours is explained, with its default and, for a quantity, its unit."""

import argparse
import re

import pytest

from pair_pkg.__main__ import main
from pair_pkg.stages import adapt, finetune
from pair_pkg.stages.commands import COMMANDS, load_command
from pair_pkg.training.arguments import LIBRARY_GROUP, StageParser

BUILDERS = {
    "run_mlm.py": adapt.build_parser,
    "run_pair_cls.py": finetune.build_parser,
    **{name: lambda name=name: load_command(name).build_parser() for name in COMMANDS},
}
# What a number may be a number of. A seed, a weight or a scale has no unit, and says so by its word.
UNITS = re.compile(
    r"\b(tokens?|characters?|words?|terms|entries|rows|texts?|pairs|documents|passages|neighbours|negatives|layers|rank|"
    r"dimensions|outputs|models|checkpoints|evaluations|steps|seconds|runs|port|percent|share|points|times|score|seeds?|"
    r"probability|precision|cosine|dropout|weight|scale|rate|length|less)\b"
    r"|\(0\).*\(1\)|\(1 - p\)\^gamma|half of their|^kept for old"
)


def own_flags(parser):
    """The flags of a parser that are not the library's alone, those of ``--help`` and ``--no_...`` aside."""
    groups = (group for group in parser._action_groups if group.title != LIBRARY_GROUP)
    actions = (action for group in groups for action in group._group_actions)
    return [action for action in actions if action.dest != "help" and action.help != argparse.SUPPRESS]


@pytest.mark.parametrize("name", BUILDERS)
def test_each_flag_of_ours_has_a_text_a_default_and_a_unit(name):
    parser = BUILDERS[name]()
    formatter = parser.formatter_class(parser.prog)
    flags = own_flags(parser)
    assert len(flags) >= 2
    for action in flags:
        shown = action.option_strings[0] if action.option_strings else action.dest
        assert action.help and len(action.help) > 5, shown
        if action.option_strings and action.nargs != 0 and not action.required:
            assert re.search("default|unset|left out", formatter._get_help_string(action)), shown
        if action.type in (int, float):
            assert UNITS.search(action.help), f"{shown}: {action.help}"


@pytest.mark.parametrize("name", ["run_mlm.py", "run_pair_cls.py", "distill"])
def test_ours_stand_above_the_librarys(name):
    parser = BUILDERS[name]()
    assert isinstance(parser, StageParser)
    titles = [group.title for group in parser._action_groups if group._group_actions]
    assert titles[-1] == LIBRARY_GROUP and titles[-2].startswith("Training: what this project adds")
    by_flag = {action.dest: group.title for group in parser._action_groups for action in group._group_actions}
    for ours in ("overwrite_output_dir", "allow_changed", "bf16", "log_level", "report_to", "eval_strategy"):
        assert by_flag[ours] == titles[-2], ours
    for librarys in ("weight_decay", "max_grad_norm", "run_name", "hub_model_id"):
        assert by_flag[librarys] == LIBRARY_GROUP, librarys
    text = parser.format_help()
    assert text.index("--allow_changed") < text.index(LIBRARY_GROUP.split(":")[1][:20]) < text.index("--weight_decay")


def test_a_default_is_shown_once(capsys):
    for name in ("mine", "search"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert not re.search(r"\(default: [^)]*\)[^-]*\(default", text)
        assert "--log_level" in text and "--debug" in text
    assert "that ranks the nearest texts anew (default: unset)" in text
