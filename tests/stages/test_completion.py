"""The Tab key in a real bash: commands, flags of both doors, choices and files, with no program started."""

import shutil
import subprocess

import pytest

from pair_pkg.stages import completion
from pair_pkg.stages.commands import COMMANDS

BASH = shutil.which("bash")
ASK = """
source "$1"; shift
PATH=  # whatever a Tab starts is not found
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"
"_shtab_${1//[^a-z_]/_}" "$1" "${@: -1}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    path = tmp_path_factory.mktemp("completion") / "script.bash"
    path.write_text(completion.main(["bash"]), encoding="utf-8")
    return path


@pytest.fixture
def tab(script, tmp_path):
    """``tab("pair_pkg", "sc")``: what bash offers for the last of these words, in an almost empty folder."""
    (tmp_path / "corpus.txt").touch()
    (tmp_path / "mlm.yaml").touch()

    def press(*words):
        run = subprocess.run(
            [BASH, "--norc", "-c", ASK, "bash", str(script), *words], cwd=tmp_path, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        assert run.stderr == ""
        return run.stdout.split()

    return press


@pytest.mark.skipif(BASH is None, reason="no bash on the path")
def test_bash_completes_commands_flags_choices_and_files(tab):
    assert set(COMMANDS) <= set(tab("pair_pkg", ""))
    assert tab("pair_pkg", "sc") == ["score"]
    assert tab("pair_pkg", "score", "--sentence1") == ["--sentence1_column"]
    assert tab("pair_pkg", "embed", "--dtype", "") == ["float32", "bfloat16", "float16", "int8"]
    assert tab("run_mlm.py", "--masking", "") == ["token", "whole_word", "span", "ngram"]
    assert tab("run_mlm.py", "--train_file", "co") == ["corpus.txt"]
    assert tab("run_mlm.py", "ml") == ["mlm.yaml"]
    assert tab("run_pair_cls.py", "--k_") == ["--k_folds"]
    assert tab("run_pair_cls.py", "--learning") == ["--learning_rate"]  # the library's, in one spelling


def test_zsh_gets_a_script_for_each_program():
    script = completion.main(["zsh"])
    for program in ("pair_pkg", "run_mlm.py", "run_pair_cls.py"):
        assert f"#compdef {program}" in script
    assert "--decide_by" in script
