"""Every command of docs/search.md runs, with small models in the place of runs/bi and runs/pairs."""

import builtins
import json
import re
import shlex
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pair_pkg.__main__ import main
from pair_pkg.records import read_json

PAGE = Path(__file__).parents[2] / "docs/search.md"
LAUNCHER = "torchrun --standalone --nproc_per_node 8"


@pytest.fixture
def place(tmp_path, tiny_bi_encoder, tiny_cross_encoder, tiny_documents, tiny_pairs, monkeypatch):
    """A folder with the files and models that the page names."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(tiny_bi_encoder, "runs/bi")
    shutil.copytree(tiny_cross_encoder, "runs/pairs")
    keyed = pd.DataFrame({"key": [f"k{row}" for row in range(60)], "text": tiny_documents[:60]})
    keyed[:40].to_csv("texts.csv", index=False)
    keyed[40:].to_csv("more.csv", index=False)
    Path("queries.txt").write_text("the old pump\n水泵漏水\n", encoding="utf-8")
    Path("few.txt").write_text("a small valve sticks\n水泵漏水\n", encoding="utf-8")
    labelled = pd.DataFrame(tiny_pairs[:8], columns=["sentence1", "sentence2"]).assign(label=[1, 0] * 4)
    labelled.to_csv("pairs.csv", index=False)
    return tmp_path


def commands():
    """The page's commands; those of several processes as one, since test_shares.py starts the processes."""
    page = PAGE.read_text(encoding="utf-8").replace(LAUNCHER, "python")
    blocks = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def test_the_commands_of_the_page_run_one_after_the_other(place, monkeypatch):
    typed = iter(["the old pump"])

    def prompt(_):
        for line in typed:
            return line
        raise EOFError

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(builtins, "input", prompt)
    results = {}
    for command in commands():
        words = shlex.split(command)
        assert words[:3] == ["python", "-m", "pair_pkg"], command
        results[command] = main(words[3:])
    assert {shlex.split(command)[3] for command in results} == {"embed", "index", "search", "mine", "dedupe", "inspect"}
    assert next(typed, None) is None  # the prompt was asked

    assert np.load("vectors.npy").shape == (40, 128)
    manifest = read_json(place / "index/manifest.json")
    assert (manifest["texts"], manifest["generation"], manifest["index_type"]) == (58, 4, "flat")
    answers = [json.loads(line) for line in Path("answers.jsonl").read_text().splitlines()]
    assert [len(answer["hits"]) for answer in answers] == [10, 10]
    assert set(answers[0]["hits"][0]) == {"id", "text", "cosine", "probability", "same"}
    reranked = next(result for command, result in results.items() if "--rerank " in command)
    probabilities = [hit["probability"] for hit in reranked[0]["hits"]]
    assert probabilities == sorted(probabilities, reverse=True) and len(set(probabilities)) > 1
    assert list(pd.read_csv("clusters.csv")) == [
        "cluster", "id", "is_representative", "cosine", "cluster_size", "text",
    ]  # fmt: skip
    assert {"layers.npz", "layers.png", "few.layers.npz", "few.layers.png"} <= {path.name for path in place.iterdir()}


def test_every_flag_of_the_page_is_a_flag(capsys):
    shown = ""
    for name in ("embed", "index", "search", "mine", "dedupe", "inspect"):
        with pytest.raises(SystemExit):
            main([name, "--help"])
        shown += capsys.readouterr().out
    of_stage_2 = {"--architecture", "--train_file", "--validation_file", "--test_file"}
    named = set(re.findall(r"--\w+", PAGE.read_text(encoding="utf-8").replace(LAUNCHER, ""))) - of_stage_2
    assert not [flag for flag in named if not re.search(rf"{flag}\b", shown)]
