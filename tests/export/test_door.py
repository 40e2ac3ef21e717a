"""``python -m pair_pkg export`` from a model's folder to exports that other programs run, and its refusals."""

import csv
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pair_pkg.errors import EXIT_BAD_INPUT, run_door
from pair_pkg.export import formats, program
from pair_pkg.export.manifest import load_export
from pair_pkg.export.source import load_finished
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.records import file_sha256
from pair_pkg.stages.exporting import main, proof_rows

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pairs_path(tmp_path_factory, tiny_pairs) -> Path:
    path = tmp_path_factory.mktemp("pairs") / "pairs.csv"
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["sentence1", "sentence2", "label"])
        writer.writerows([*pair, ("no", "yes")[row % 2]] for row, pair in enumerate(tiny_pairs[:30]))
    return path


@pytest.fixture(scope="module")
def traced(cross_folder, pairs_path, tmp_path_factory):
    """The folder of a TorchScript export that the door made."""
    output = tmp_path_factory.mktemp("exports")
    main(["--model", cross_folder(), "--to", "torchscript", "--validation", str(pairs_path), "--output", str(output)])
    return output / "torchscript"


def refusal(capfd, *words) -> str:
    capfd.readouterr()
    assert run_door(main, [str(word) for word in words]) == EXIT_BAD_INPUT
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    return lines[0]


def test_an_export_gives_the_scorers_probabilities(traced, cross_folder, pairs_path, tiny_pairs, tmp_path):
    scorer = load_scorer(cross_folder())
    expected = scorer.predict(*zip(*tiny_pairs[:30])).probabilities
    export = load_export(traced)
    np.testing.assert_allclose(export.compute(export.encode(tiny_pairs[:30])), expected, atol=1e-5)
    proof = export.manifest["proof"]
    assert proof["metric"] == "accuracy" and proof["labelled_pairs"] == 30 and proof["pairs"] >= 1000
    assert export.manifest["decision"]["threshold"] == scorer.decision.threshold
    assert export.manifest["speed"]["milliseconds"].keys() == {"1", "32"}


def test_the_door_prints_a_table_and_warns_of_half_precision_that_gains_nothing(
    bi_folder, pairs_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("pair_pkg.stages.exporting.GAIN", 1e9)
    words = [
        "--model",
        bi_folder(),
        "--to",
        "half",
        "torchscript",
        "half",
        "--output",
        str(tmp_path),
        "--tolerance",
        "5",
    ]
    measured = main([*words, "--validation", str(pairs_path)])
    assert list(measured) == ["half", "torchscript"] and (tmp_path / "half" / "README.md").is_file()
    printed = capsys.readouterr()
    assert re.search(r"^torchscript +\d", printed.out, re.MULTILINE)
    assert "float16 gains no speed on this machine" in printed.err


def test_ids_are_written_with_what_came_of_them(traced, pairs_path, tmp_path):
    assert main(["--load", str(traced), "--ids", str(pairs_path), "--output", str(tmp_path / "rows.tsv")]) == {
        "rows": 30
    }
    header, *lines = (tmp_path / "rows.tsv").read_text().splitlines()
    assert header.startswith("# pad_token_id=")
    ids, types, values = (list(map(float, part.split())) for part in lines[0].split("\t"))
    assert len(ids) == len(types) and len(values) == 1 and len(lines) == 30


def test_a_changed_byte_is_refused(traced, tmp_path, capfd):
    folder = tmp_path / "copy"
    shutil.copytree(traced, folder)
    content = bytearray((folder / "model.pt").read_bytes())
    content[len(content) // 2] ^= 1
    (folder / "model.pt").write_bytes(content)
    assert "model.pt: is not the file that was exported (sha256 differs); copy it again" in refusal(
        capfd, "--load", folder
    )
    (folder / "model.pt").unlink()
    assert "model.pt: is missing" in refusal(capfd, "--load", folder)
    assert "holds no export.json" in refusal(capfd, "--load", tmp_path)


DAMAGES = {
    "no object": lambda manifest: [],
    "no format": lambda manifest: without(manifest, "format"),
    "a format that is a list": lambda manifest: {**manifest, "format": ["torchscript"]},
    "an unknown format": lambda manifest: {**manifest, "format": "tflite"},
    "an unknown architecture": lambda manifest: {**manifest, "architecture": "decoder"},
    "a length that is no number": lambda manifest: {**manifest, "max_seq_length": "40"},
    "a length of 0": lambda manifest: {**manifest, "max_seq_length": 0},
    "no labels": lambda manifest: {**manifest, "labels": None},
    "labels without names": lambda manifest: {**manifest, "labels": without(manifest["labels"], "names")},
    "a padding without its id": lambda manifest: {**manifest, "padding": without(manifest["padding"], "token_id")},
    "inputs that are a number": lambda manifest: {**manifest, "inputs": 3},
    "no files": lambda manifest: {**manifest, "files": {}},
    "files in a list": lambda manifest: {**manifest, "files": list(manifest["files"])},
    "files without the graph": lambda manifest: {**manifest, "files": without(manifest["files"], "model.pt")},
    "files without the tokenizer": lambda manifest: {**manifest, "files": without(manifest["files"], "tokenizer.json")},
    "a file that is a sha256 only": lambda manifest: with_file(manifest, "model.pt", "0" * 64),
    "a file without bytes": lambda manifest: with_file(manifest, "model.pt", {"sha256": "0" * 64}),
    "bytes that are words": lambda manifest: with_file(manifest, "model.pt", {"bytes": "9", "sha256": "0" * 64}),
}


def without(values, name):
    return {key: value for key, value in values.items() if key != name}


def with_file(manifest, name, entry):
    return {**manifest, "files": {**manifest["files"], name: entry}}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_manifest_is_refused(damage, traced, tmp_path, capfd):
    manifest = json.loads((traced / "export.json").read_text())
    (tmp_path / "export.json").write_text(json.dumps(damage(manifest)))
    for name in manifest["files"]:
        (tmp_path / name).symlink_to(traced / name)
    line = refusal(capfd, "--load", tmp_path)
    assert line == f"error: {tmp_path}/export.json: describes no export of this version; export the model again"


def test_a_tokenizer_that_is_none_and_a_runtime_that_is_not_there_are_refused(traced, tmp_path, capfd, monkeypatch):
    manifest = json.loads((traced / "export.json").read_text())
    (tmp_path / "model.pt").symlink_to(traced / "model.pt")
    (tmp_path / "tokenizer.json").write_text("{}")
    entry = {"bytes": 2, "sha256": file_sha256(tmp_path / "tokenizer.json")}
    (tmp_path / "export.json").write_text(json.dumps(with_file(manifest, "tokenizer.json", entry)))
    assert "tokenizer.json: holds no tokenizer (" in refusal(capfd, "--load", tmp_path)
    shutil.copy(traced / "tokenizer.json", tmp_path)
    (tmp_path / "model.onnx").symlink_to(traced / "model.pt")
    files = {"tokenizer.json": manifest["files"]["tokenizer.json"], "model.onnx": manifest["files"]["model.pt"]}
    (tmp_path / "export.json").write_text(json.dumps({**manifest, "format": "onnx", "files": files}))
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert "needs onnx, onnxscript, onnxruntime; install with:" in refusal(capfd, "--load", tmp_path)


def test_texts_beyond_the_length_are_counted(traced, bi_folder, tmp_path, capsys):
    """By the proof, of the pairs that are given, and by ``--ids``."""
    rows = ["sentence1,sentence2,label", "a pump,a filter,no", f"{'the pump ' * 60},a pump,yes", "a pump,a valve,no"]
    (tmp_path / "pairs.csv").write_text("\n".join(rows) + "\n")
    main(["--load", str(traced), "--ids", str(tmp_path / "pairs.csv"), "--output", str(tmp_path / "rows.tsv")])
    assert "1 of 3 pairs are longer than the model's 40 tokens; their ends are not read" in capsys.readouterr().err
    proof_rows(load_finished(bi_folder()), str(tmp_path / "pairs.csv"))
    assert "1 of 4 texts are longer than the model's 40 tokens" in capsys.readouterr().err


def test_bad_words_are_refused(traced, cross_folder, tiny_bert, pairs_path, tmp_path, capfd, monkeypatch):
    model = cross_folder()
    assert "--to tflite: no such format; take one of torchscript" in refusal(capfd, "--model", model, "--to", "tflite")
    assert "is not empty" in refusal(capfd, "--model", model, "--to", "torchscript", "--output", traced.parent)
    words = ("--to", "torchscript", "--output", tmp_path / "out")
    assert "holds no fine-tuned model" in refusal(capfd, "--model", tiny_bert, *words)
    assert "no such folder" in refusal(capfd, "--model", tmp_path / "none", *words)
    assert "give --model DIR" in refusal(capfd, "--to", "torchscript")
    assert "--tolerance" in refusal(capfd, "--model", model, *words, "--tolerance", "-1")
    assert "no such file" in refusal(capfd, "--model", model, *words, "--validation", tmp_path / "none.csv")
    monkeypatch.setattr(formats.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'pair-pkg[onnx]'" in refusal(capfd, "--model", model, "--to", "onnx")
    monkeypatch.undo()
    monkeypatch.setattr(program.shutil, "which", lambda name: None)
    assert "needs a C++ compiler" in refusal(capfd, "--model", model, "--to", "aoti")
    assert not (tmp_path / "out").exists()


def test_a_model_without_a_decision_is_told(cross_folder, pairs_path, tmp_path, capsys):
    folder = tmp_path / "model"
    shutil.copytree(cross_folder(), folder, ignore=shutil.ignore_patterns("decision.json"))
    main(["--model", str(folder), "--to", "torchscript", "--validation", str(pairs_path)])
    assert "holds no decision.json; temperature 1 and threshold 0.5 are taken" in capsys.readouterr().err
    decision = json.loads((folder / "export" / "torchscript" / "export.json").read_text())["decision"]
    assert (decision["temperature"], decision["threshold"]) == (1.0, 0.5)


@pytest.fixture(scope="module")
def score_program(tmp_path_factory):
    """The program of examples/cpp, built."""
    if not shutil.which("cmake") or program.why_no_compiler():
        pytest.skip("no cmake, or no C++ compiler")
    build = tmp_path_factory.mktemp("build")
    run("cmake", "-S", ROOT / "examples/cpp", "-B", build, f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}")
    run("cmake", "--build", build)
    return build / "score"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross", "bi"])
def test_cpp_prints_the_same(kind, score_program, any_folder, pairs_path, tmp_path):
    """With the traced graph, and with the compiled package; the uncompiled program is refused."""
    words = ["--to", "torchscript", "aoti", "exported", "--output", str(tmp_path), "--validation", str(pairs_path)]
    main(["--model", any_folder(kind), *words])
    rows = tmp_path / "rows.tsv"
    for model in (tmp_path / "torchscript/model.pt", tmp_path / "aoti/model_aoti.pt2"):
        main(["--load", str(model.parent), "--ids", str(pairs_path), "--output", str(rows)])
        printed = run(score_program, model, rows)
        expected = [line.split("\t")[2].split() for line in rows.read_text().splitlines()[1:]]
        values = np.array([line.split() for line in printed.splitlines()], dtype=float)
        np.testing.assert_allclose(values, np.array(expected, dtype=float), atol=1e-4)
    refused = subprocess.run([score_program, tmp_path / "exported/model.pt2", rows], capture_output=True, text=True)
    assert refused.returncode == 2 and "model.pt2: is no package compiled for this machine" in refused.stderr
    rows.write_text(
        rows.read_text().replace("\t", "\t7 ", 2)
    )  # another token type, or value: another output is expected
    assert subprocess.run([score_program, model, rows], capture_output=True).returncode != 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["cross", "bi"])
def test_onnx_runtime_alone_gives_the_same(kind, any_folder, pairs_path, tiny_pairs, tmp_path):
    if formats.why_not_here("onnx"):
        pytest.skip("the extra onnx is not installed")
    main(["--model", any_folder(kind), "--to", "onnx", "--output", str(tmp_path), "--validation", str(pairs_path)])
    without_torch = (
        "import sys, runpy; sys.modules['torch'] = None; del sys.argv[0]; "
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    program_path = ROOT / "examples/onnx_runtime.py"
    printed = run(sys.executable, "-c", without_torch, program_path, tmp_path / "onnx", pairs_path)
    values = np.array([line.split() for line in printed.splitlines()], dtype=float)
    expected = load_scorer(any_folder(kind)).predict(*zip(*tiny_pairs[:30])).probabilities
    np.testing.assert_allclose(values[:, -1], expected, atol=1e-4)


@pytest.mark.slow
def test_the_commands_of_the_page_run(bi_folder, cross_folder, pairs_path, tmp_path):
    """Every command of docs/export.md, with small models in the places of its runs."""
    page = (ROOT / "docs/export.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = [line for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for line in block.splitlines()]
    assert len([line for line in commands if line.startswith("python -m pair_pkg export")]) >= 3
    shutil.copytree(cross_folder(), tmp_path / "runs/pairs")
    shutil.copytree(bi_folder(), tmp_path / "runs/medquad_mqp_bi_encoder/base/seed-1")
    shutil.copy(pairs_path, tmp_path / "pairs.csv")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    missing = not shutil.which("cmake") or importlib.util.find_spec("onnxruntime") is None
    for command in commands:
        if command.startswith("pip ") or (missing and "onnx" in command + "cpp"):
            continue
        paths = f"export PYTHONPATH={ROOT} PATH={Path(sys.executable).parent}:$PATH"
        done = subprocess.run(["bash", "-c", f"{paths}; {command}"], capture_output=True, text=True, cwd=tmp_path)
        refused = "onnx-int8" in command and "error: onnx-int8: agreement fell by" in done.stderr  # as the page tells
        assert done.returncode == (1 if refused else 0), done.stdout + done.stderr


def run(*words, cwd=None) -> str:
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
