"""The pages hold together: links lead somewhere, every page is found from the README, every flag named is a flag."""

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from benchmarks.__main__ import build_parser
from pair_pkg import __main__ as commands
from pair_pkg.stages import adapt, finetune
from pair_pkg.training.legacy_flags import OLD_NAMES

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "README.zh-CN.md", ROOT / "CONTRIBUTING.md", ROOT / "data/README.md",
         *sorted((ROOT / "docs").glob("*.md"))]  # fmt: skip
OF_OTHERS = {  # programs that are named here, without a parser to ask
    "--build",  # cmake
    "--debug",  # taken off before any parser: errors.run_door
    "--out",  # data/generate.py
    "--repo",  # --repo-type of hf
}
NEVER = {"--task_name", "--do_lower_case", "--dataset_name"}  # docs/classic-flags.md says that stage 2 lacks them


def text_of(path):
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_are_there(path):
    for target in re.findall(r"\]\((?!https?:)([^)#\s]+)", text_of(path)):
        assert (path.parent / target).exists(), target


@pytest.mark.parametrize("readme", ["README.md", "README.zh-CN.md"])
def test_every_page_is_found_from_the_readme(readme):
    of_the_site = {"docs/index.md", "docs/api.md"}  # which ``make docs`` builds
    linked = set(re.findall(r"\]\((docs/[^)#]+\.md)\)", text_of(ROOT / readme)))
    assert {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")} - of_the_site <= linked


@pytest.fixture(scope="module")
def flags():
    """Every flag of every parser: of the doors by their ``--help``."""
    parsers = [launch_command_parser(), get_args_parser(), build_parser()]
    parsers += list(parsers[-1]._subparsers._group_actions[0].choices.values())
    options = [option for parser in parsers for action in parser._actions for option in action.option_strings]
    doors = [adapt.parse, finetune.parse]
    doors += [lambda words, name=name: commands.main([name, *words]) for name in commands.COMMANDS]
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr(
            "argparse.ArgumentParser._print_message", lambda self, message, file=None: printed.append(message)
        )
        for door in doors:
            with pytest.raises(SystemExit):
                door(["--help"])
    named = re.findall(r"--(\w[\w-]*)", " ".join([*options, *printed]))
    return {f"--{name.replace('-', '_')}" for name in named}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_flag_of_a_page_is_a_flag(path, flags):
    denied = {f"--no_{flag[2:]}" for flag in flags}
    known = flags | denied | OF_OTHERS | NEVER | {f"--{name}" for name in OLD_NAMES}
    named = set(re.findall(r"(?<![\w-])--[a-z]\w+", text_of(path)))
    unknown = sorted(named - known)
    assert unknown == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_line_is_one(path):
    """What stands in backquotes in running text: its command is there (its flags are looked up above)."""
    for line in re.findall(r"`(python [^`]+)`", text_of(path)):
        words = line.split()
        if words[1:3] == ["-m", "pair_pkg"]:
            assert words[3] in {*commands.COMMANDS, "COMMAND", "..."}, line
        elif words[1:3] == ["-m", "benchmarks"]:
            name = [word for word in words[3:4] if word != "..."]
            assert not name or name[0] in build_parser()._subparsers._group_actions[0].choices, line
        elif words[1] != "-m":
            assert (ROOT / words[1]).is_file(), line


def test_the_figure_is_an_image_that_tells_itself_and_needs_nothing_from_outside():
    text = text_of(ROOT / "docs/images/way.svg")
    root = ElementTree.fromstring(text)
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert {"title", "desc", "style"} <= names and not names & {"script", "image", "foreignObject", "use"}
    assert "prefers-color-scheme: dark" in text and not re.search(r"url\((?!#)|@import|href=", text)
