"""Every command of the README and of the pages runs, in the order of its page, on toy files in the places they name.

bash reads the blocks; what it would start of Python is started here with toy sizes behind the page's own words. Blocks
of Python are executed, recipes among the blocks are written down, with toy sizes, under the name of their first line.

Not run but parsed, each by the parser of the program itself: ``pip install`` and ``make``, which build environments
from the network (``make demo`` is the pipeline, which runs here, and ``make test`` is this suite); ``hf auth login``,
which asks for a token; ``python -m benchmarks``, whose figures need hours (tests/benchmarks runs their parts);
``python -m pytest``, which would run this suite in itself; ``pre-commit install``; ``accelerate launch``
without ``--use_cpu``, which wants GPUs. ``push`` runs as its dry run: tests/hub pushes to a stand-in for the Hub.
"""

import configparser
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import launch_command_parser
from torch.distributed.run import get_args_parser

from benchmarks.__main__ import build_parser
from pair_pkg import __main__ as commands
from pair_pkg.stages import adapt, finetune

ROOT = Path(__file__).parents[2]
ELSEWHERE = {  # pages whose own tests run their commands
    "docs/export.md": "tests/export/test_door.py",
    "docs/python.md": "tests/docs/test_api_examples.py",
    "docs/search.md": "tests/stages/test_search_page.py",
    "docs/serve.md": "tests/stages/test_serve_page.py",
}
SLOW = {f"docs/{name}.md" for name in ("adaptation", "decision", "distribution", "fine-tuning", "results")}
PAGES = ["README.md", "CONTRIBUTING.md", *sorted(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^```(bash|python|yaml)\n(.*?)^```", re.DOTALL | re.MULTILINE)
MLM_WORDS = [
    "--max_steps=2", "--per_device_train_batch_size=4", "--max_seq_length=64", "--logging_steps=1", "--use_cpu",
    "--bf16=false", "--max_eval_samples=8", "--token_cache_dir=tokens",
]  # fmt: skip
PAIR_WORDS = ["--max_steps=2", "--per_device_train_batch_size=4", "--max_seq_length=64", "--use_cpu", "--bf16=false"]
STAGES = {"run_mlm.py": (adapt, MLM_WORDS), "run_pair_cls.py": (finetune, PAIR_WORDS)}
TOY_WORDS = {"distill": [*PAIR_WORDS, "--num_pairs=100", "--max_sentences=400"], "push": ["--dry_run"]}


def blocks_of(page):
    return BLOCK.findall((ROOT / page).read_text(encoding="utf-8"))


def as_parameters(pages):
    return [pytest.param(page, marks=pytest.mark.slow if page in SLOW else ()) for page in pages]


@pytest.mark.parametrize("page", as_parameters(page for page in PAGES if page not in ELSEWHERE))
def test_the_commands_of_a_page_run(page, sandbox, shell, toy_recipe):
    ran = []

    def run(words):
        ran.append(" ".join(words))
        start(words, sandbox)

    for language, text in blocks_of(page):
        if language == "bash":
            shell(text, run)
        elif language == "python":
            sandbox("runs/pairs")
            exec(compile(text, page, "exec"), {"__name__": "page"})
        else:
            name = re.match(r"# (\S+\.yaml)\n", text).group(1)
            Path(name).write_text(toy_recipe(text), encoding="utf-8")
            for word in re.findall(r"[\w./-]+", text):
                sandbox(word)
    expected = [line for _, text in blocks_of(page) for line in text.splitlines() if re.match(r"python -m|make ", line)]
    assert len(ran) >= len(expected)


@pytest.mark.parametrize(("page", "test"), ELSEWHERE.items())
def test_the_other_pages_are_run_by_their_own_tests(page, test):
    assert page.removeprefix("docs/") in (ROOT / test).read_text(encoding="utf-8")


def start(words, sandbox):
    """Run, or parse, one command."""
    program, *rest = words
    for word in rest:
        if not word.startswith("-"):
            provide_unless_written(rest, word, sandbox)
    if program == "python":
        start_python(rest)
    else:
        {"pip": check_pip, "make": check_make, "torchrun": launch_torchrun, "accelerate": launch_accelerate,
         "hf": check_hf, "pre-commit": check_hooks}[program](rest)  # fmt: skip


def provide_unless_written(words, word, sandbox):
    before = words[words.index(word) - 1]
    if before not in ("--output_dir", "--output"):
        sandbox(word)


def start_python(words):
    if words[0] in STAGES:
        stage, toys = STAGES[words[0]]
        if "--streaming" in words:
            toys = [*toys, "--stream_validation=10"]
        stage.main([*words[1:], *toys])
    elif words[:2] == ["-m", "pair_pkg"]:
        commands.main([*words[2:], *TOY_WORDS.get(words[2], [])])
    elif words[:2] == ["-m", "benchmarks"]:
        build_parser().parse_args(words[2:])
    elif words[:2] == ["-m", "pytest"]:
        assert all((ROOT / word).exists() for word in words[2:] if "/" in word)
    else:
        raise AssertionError(f"unknown: python {' '.join(words)}")


def check_pip(words):
    """The words are pip's, and the extras are ours; in another process, for pip keeps setuptools out."""
    parse = (
        "import sys; from pip._internal.commands import create_command as c; c(sys.argv[1]).parse_args(sys.argv[2:])"
    )
    subprocess.run([sys.executable, "-c", parse, *words], check=True, capture_output=True)
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg")
    for name in re.findall(r"\[(.*?)\]", " ".join(words)):
        assert set(name.split(",")) <= set(extras["options.extras_require"])


def check_make(words):
    subprocess.run(["/usr/bin/make", "--dry-run", *words], cwd=ROOT, check=True, capture_output=True)


def check_hf(words):
    subprocess.run([Path(sys.executable).with_name("hf"), *words, "--help"], check=True, capture_output=True)


def check_hooks(words):
    assert words == ["install"] and (ROOT / ".pre-commit-config.yaml").is_file()


def launch_torchrun(words):
    """All processes really run, where they are of one machine; the words of one of several are parsed."""
    options = get_args_parser().parse_args(words)
    if options.nnodes == "1:1":
        launch("torch.distributed.run", words, options)
    else:
        parse_ours(options)


def launch_accelerate(words):
    """Two processes of a CPU run; what is for GPUs is parsed: accelerate's words by its parser, ours by ours."""
    assert words[0] == "launch"
    options = launch_command_parser().parse_args(words[1:])
    assert load_config_from_file(options.config_file).num_processes == 2
    if "--use_cpu" in options.training_script_args:
        launch("accelerate.commands.launch", words[1:], options)
    else:
        parse_ours(options)


def parse_ours(options):
    script, words = options.training_script, options.training_script_args
    if options.module:
        assert script == "pair_pkg"
        commands.load_command(words[0]).build_parser().parse_args(words[1:])
    else:
        STAGES[script][0].parse(words)


def launch(module, words, options):
    """A launch in a process of its own, with toy words behind those of a stage."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    toys = [] if options.module else STAGES[options.training_script][1]
    done = subprocess.run(
        [sys.executable, "-m", module, *words, *toys], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
