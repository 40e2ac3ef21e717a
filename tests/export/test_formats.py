"""Every format: built, proven and put in its place; and its README's lines give what the model gives."""

import contextlib
import importlib.util
import io
import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer

from pair_pkg.export.build import build_proof, export_model
from pair_pkg.export.formats import FORMATS, why_not_here
from pair_pkg.export.manifest import load_export
from pair_pkg.export.source import load_finished
from tests.export.conftest import HEADS

PAIR = ("How do I reset it?", "Can it be reset?")  # what every README asks
PLAIN = ("exported", "half", "bf16", "legacy", "sentence-transformers")
MODELS = [
    *(("cross", "bert", head) for head in HEADS),
    ("cross", "roberta", "two logits"),
    ("cross", "xlm-roberta", "one logit"),
    ("cross", "modernbert", "classes"),
    ("bi", "bert", "mean", True),
    ("bi", "bert", "first_last_avg", False),
    ("bi", "roberta", "cls", False),
    ("bi", "modernbert", "max", False),
    ("bi", "xlm-roberta", "mean", False),
]
QUICK_MODELS = [MODELS[0], MODELS[7]]
ids = {"ids": lambda model: " ".join(map(str, model))}


@pytest.fixture
def exported(any_folder, few_rows, tmp_path):
    """``exported(format, model)``: the finished model, and the folder of its export."""

    def export(name, model):
        finished = load_finished(any_folder(*model))
        export_model(finished, name, tmp_path, build_proof(finished, few_rows(finished)), tolerance=30)
        return finished, tmp_path / name

    return export


@pytest.mark.parametrize("name", ["torchscript", "half", "legacy", "sentence-transformers"])
@pytest.mark.parametrize("model", QUICK_MODELS, **ids)
def test_a_format_is_proven_and_loads_by_its_readme(name, model, exported):
    check(name, *exported(name, model))


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("model", [*MODELS[1:7], *MODELS[8:]], **ids)
def test_every_plain_format_serves_every_model(name, model, exported):
    check(name, *exported(name, model))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "model"),
    [
        *(("onnx", MODELS[number]) for number in (0, 3, 4, 6, 8, 10, 11)),
        *(("onnx-int8", model) for model in (MODELS[0], MODELS[7])),
        ("aoti", MODELS[0]),  # compiled bi-encoders run in C++, in test_door
        ("int8", MODELS[0]),
        ("int8", MODELS[7]),
    ],
    ids=str,
)
def test_onnx_and_compiled_packages_are_proven_and_load_by_their_readme(name, model, exported):
    reason = why_not_here(name)
    if reason:
        pytest.skip(reason)
    check(name, *exported(name, model))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "onnx-int8"])
def test_a_model_too_large_for_one_file_gets_two(name, exported, monkeypatch):
    reason = why_not_here(name)
    if reason:
        pytest.skip(reason)
    monkeypatch.setattr("pair_pkg.export.onnx_graph.LARGEST_FILE", 1000)
    _, folder = exported(name, MODELS[0])
    assert sorted(path.name for path in folder.glob("*onnx*")) == ["model.onnx", "model.onnx.data"]
    drift = json.loads((folder / "export.json").read_text())["proof"]["layer_drift"]
    assert len(drift) == 5 and (max(drift.values()) > 1e-3) == (name == "onnx-int8")


def check(name, finished, folder):
    """The folder is whole, loads by our loader and by its README, and gives what the model gives."""
    manifest = json.loads((folder / "export.json").read_text())
    assert manifest["format"] == name and manifest["proof"]["largest_difference"] is not None
    assert {"tokenizer.json", *([FORMATS[name].file] if FORMATS[name].file else [])} <= set(manifest["files"])
    assert not [path for path in folder.parent.iterdir() if path.name.startswith(".")], "a folder in the making is left"
    rows = [PAIR] if finished.architecture == "cross_encoder" else list(PAIR)
    with torch.no_grad():
        encoded = finished.tokenizer(
            *([[PAIR[0]], [PAIR[1]]] if len(rows) == 1 else [rows]), return_tensors="pt", padding=True
        )
        expected = finished.graph(*(encoded[name] for name in finished.input_names)).numpy()
    atol = {"half": 2e-2, "bf16": 0.15, "int8": 0.1, "onnx-int8": 0.3}.get(name, 1e-4)
    scale = finished.scheme.high - finished.scheme.low
    export = load_export(folder)
    np.testing.assert_allclose(export.compute(export.encode(rows)), expected, atol=atol * scale)
    printed = run_readme(folder)
    if name == "legacy" and finished.architecture == "bi_encoder":
        assert "torch.Size([2," in printed
    else:
        np.testing.assert_allclose(json.loads(printed), expected, atol=atol * scale)


def run_readme(folder) -> str:
    """What the code of a README prints, run in the export's folder."""
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)[1]
    printed = io.StringIO()
    here = os.getcwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(folder / "README.md"), "exec"), {})
    finally:
        os.chdir(here)
    return printed.getvalue()


def test_the_old_format_is_no_zip_and_needs_no_code(exported):
    _, folder = exported("legacy", ("bi", "bert", "mean", True))
    for name in ("pytorch_model.pth", "head.pth"):
        assert not zipfile.is_zipfile(folder / name)
        assert all(isinstance(values, torch.Tensor) for values in torch.load(folder / name, weights_only=True).values())


def test_sentence_transformers_gives_the_calibrated_probability(exported, tiny_pairs):
    for head in ("two logits", "one logit"):
        finished, folder = exported("sentence-transformers", ("cross", "bert", head))
        one, other = zip(*tiny_pairs[:8])
        encoded = finished.tokenizer(list(one), list(other), padding=True, return_tensors="pt")
        with torch.no_grad():
            expected = finished.graph(*(encoded[name] for name in finished.input_names)).numpy()
        np.testing.assert_allclose(CrossEncoder(str(folder), device="cpu").predict(tiny_pairs[:8]), expected, atol=1e-5)
        shutil.rmtree(folder)


def test_half_precision_is_stored_so(exported):
    finished, folder = exported("half", ("bi", "bert", "mean", True))
    assert (folder / "model.safetensors").stat().st_size < 0.6 * 4 * sum(
        p.numel() for p in finished.graph.model.parameters()
    )
    library = SentenceTransformer(str(folder), device="cpu").half()
    vectors = library.encode(list(PAIR))
    encoded = finished.tokenizer(list(PAIR), padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = finished.graph(*(encoded[name] for name in finished.input_names)).numpy()
    np.testing.assert_allclose(vectors, expected, atol=5e-3)


def test_int8_tells_its_layers_apart(tiny_cross):
    if importlib.util.find_spec("torchao") is None:
        pytest.skip("torchao is not installed (extra: int8)")
    from pair_pkg.export.gate import run_of
    from pair_pkg.export.int8 import quantize

    quantized = quantize(tiny_cross)
    inputs = [np.full((2, 9), 7), np.ones((2, 9), np.int64), np.zeros((2, 9), np.int64)]
    difference = np.abs(run_of(quantized)(*inputs) - run_of(tiny_cross.graph)(*inputs)).max()
    assert 0 < difference < 0.1
