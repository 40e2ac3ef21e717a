"""The gate: what is not the model fails, names the layer, and is not left behind."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from pair_pkg.errors import ExportFailure, InputError
from pair_pkg.export import build, program, torchscript
from pair_pkg.export.build import build_proof, check_target, export_model
from pair_pkg.export.formats import FORMATS
from pair_pkg.export.gate import Scored, compare, run_of, score_rows
from pair_pkg.export.rows import build_proof_rows, standalone_tokenizer
from pair_pkg.export.source import load_finished
from tests.export.conftest import LENGTH


def damaged(finished, name, change):
    """The finished model, with one weight changed."""
    graph = copy.deepcopy(finished.graph)
    with torch.no_grad():
        change(graph.get_parameter(name))
    return dataclasses.replace(finished, graph=graph)


@pytest.fixture
def uncompiled(monkeypatch):
    """A compiler that leaves a graph as it is, in place of the one that takes half a minute."""
    graphs = {}
    monkeypatch.setattr(program, "capture", lambda graph, finished: graph)
    monkeypatch.setattr(program, "compile_program", lambda graph, path: path.touch() or graphs.update({path: graph}))
    monkeypatch.setattr(program, "load_package", lambda path: graphs[path])


LAYER = "model.bert.encoder.layer.1.intermediate.dense.weight"


@pytest.mark.parametrize("name", ["torchscript", "exported", "aoti", "half", "legacy"])
def test_a_damaged_weight_fails_and_its_layer_is_named(name, tiny_cross, few_rows, tmp_path, monkeypatch, request):
    if name == "aoti":
        request.getfixturevalue("uncompiled")
    wanted = FORMATS[name]
    broken = dataclasses.replace(
        wanted,
        build=lambda finished, folder: wanted.build(damaged(finished, LAYER, lambda values: values.mul_(-3)), folder),
    )
    monkeypatch.setitem(FORMATS, name, broken)
    with pytest.raises(ExportFailure) as failure:
        export_model(tiny_cross, name, tmp_path, build_proof(tiny_cross, few_rows(tiny_cross)), tolerance=0.5)
    assert name in str(failure.value) and "nothing was left behind" in str(failure.value)
    moved = str(failure.value).split("moved most: ")[1]
    assert moved.startswith("model.bert.encoder.layer.1.output.LayerNorm")  # where the damaged layer first shows
    assert not list(tmp_path.iterdir())


def test_a_constant_of_the_example_fails(tiny_cross, few_rows, tmp_path, monkeypatch):
    """What a careless trace keeps: the mask of its example."""

    class Careless(torch.nn.Module):
        def __init__(self, graph):
            super().__init__()
            self.graph = graph
            self.model = graph.model

        def forward(self, ids, mask, types):
            return self.graph(ids, torch.ones_like(ids), types)

    def trace(finished, folder):
        torchscript.trace(dataclasses.replace(finished, graph=Careless(finished.graph)), folder / "model.pt")

    monkeypatch.setitem(FORMATS, "torchscript", dataclasses.replace(FORMATS["torchscript"], build=trace))
    with pytest.raises(ExportFailure, match="outputs differ"):
        export_model(tiny_cross, "torchscript", tmp_path, build_proof(tiny_cross, few_rows(tiny_cross)), 0.5)


def test_verdicts_and_the_metric_are_counted(tiny_cross, tiny_pairs):
    labels = np.arange(40) % 2
    rows = build_proof_rows(tiny_cross, tiny_pairs[:40], labels, "binary", num_pairs=40)
    exact = score_rows(tiny_cross, rows, run_of(tiny_cross.graph))
    assert compare(tiny_cross, rows, exact, exact).failures(exact=True, tolerance=0) == []
    right = np.where(labels == 1, 0.9, 0.1)
    truth = Scored(exact.outputs, np.append(right, [0.9] * 3), np.append(labels, [1] * 3), 1.0)
    wrong = dataclasses.replace(truth, predictions=truth.predictions.copy(), decided=truth.decided.copy())
    wrong.predictions[0], wrong.decided[0] = 0.9, 1
    compared = compare(tiny_cross, rows, truth, wrong)
    assert (compared.metric, compared.changed_verdicts) == ("accuracy", 1)
    assert compared.loss == pytest.approx(100 / 40)
    assert compared.failures(exact=False, tolerance=2.4) and not compared.failures(exact=False, tolerance=2.6)
    assert "1 of 43 verdicts changed" in compared.failures(exact=True, tolerance=0)


def test_nan_fails_whatever_the_tolerance(tiny_cross, few_rows):
    rows = few_rows(tiny_cross)
    exact = score_rows(tiny_cross, rows, run_of(tiny_cross.graph))
    outputs = exact.outputs.copy()
    outputs[7] = np.nan
    compared = compare(tiny_cross, rows, exact, dataclasses.replace(exact, outputs=outputs))
    assert compared.failures(exact=False, tolerance=100) == ["row 7 gives NaN or infinity"]


def test_what_the_compiler_moved_is_said(tiny_cross, few_rows, tmp_path, monkeypatch, uncompiled):
    monkeypatch.setattr(program, "load_package", lambda path: lambda *inputs: tiny_cross.graph(*inputs) + 0.1)
    with pytest.raises(ExportFailure, match="outputs differ .*; its layers are float32's before they are compiled, so"):
        export_model(tiny_cross, "aoti", tmp_path, build_proof(tiny_cross, few_rows(tiny_cross)), 0.5)


def test_constant_outputs_without_labels_prove_nothing(bi_folder, few_rows):
    finished = dataclasses.replace(load_finished(bi_folder()), decision=None)
    rows = few_rows(finished)
    exact = score_rows(finished, rows, run_of(finished.graph))
    same = dataclasses.replace(exact, predictions=np.full_like(exact.predictions, 0.3))
    for compared in (compare(finished, rows, exact, same), compare(finished, rows, same, same)):
        assert compared.metric_export is None and compared.loss is None
        assert compared.failures(exact=False, tolerance=100) == [
            "rank correlation is undefined, as all predictions of one side are equal"
        ]
        assert compared.failures(exact=True, tolerance=0) == []  # the outputs themselves are compared
    undefined = dataclasses.replace(compared, metric_export=float("nan"))
    assert undefined.failures(exact=False, tolerance=100)


def test_the_proof_holds_the_extremes_and_a_thousand_pairs(tiny_cross, tiny_bi, tiny_pairs):
    for finished in (tiny_cross, tiny_bi):
        rows = build_proof_rows(finished, tiny_pairs[:5])
        lengths = [len(ids) for ids, _ in rows.encoded]
        assert len(rows.pairs) >= 1000
        assert max(lengths) == LENGTH and min(lengths) <= (5 if finished is tiny_cross else 3)
        assert sorted(np.unique(np.concatenate(rows.batches))) == list(range(len(rows.encoded)))
        assert {len(batch) for batch in rows.batches} >= {1, 3, 7, 32}
        assert len(set(map(str, rows.encoded))) > 900


def test_the_standalone_tokenizer_makes_the_ids_of_training(tiny_cross, tiny_pairs):
    standalone = standalone_tokenizer(tiny_cross.tokenizer, 12)
    for encoding, (one, other) in zip(standalone.encode_batch(tiny_pairs[:30]), tiny_pairs[:30]):
        expected = tiny_cross.tokenizer(one, other, truncation="longest_first", max_length=12)
        real = sum(encoding.attention_mask)
        assert encoding.ids[:real] == expected["input_ids"]
        assert encoding.type_ids[:real] == expected["token_type_ids"]


def test_an_interrupted_export_leaves_nothing(tiny_cross, few_rows, tmp_path, monkeypatch):
    proof = build_proof(tiny_cross, few_rows(tiny_cross))
    monkeypatch.setattr(build, "measure_latency", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        export_model(tiny_cross, "torchscript", tmp_path, proof, 0.5)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_use_is_refused(tmp_path):
    (tmp_path / "onnx").mkdir()
    check_target(tmp_path, "onnx")
    (tmp_path / "onnx" / "file").touch()
    with pytest.raises(InputError, match="is not empty; remove it"):
        check_target(tmp_path, "onnx")
