"""The exported graph says what the project's own scoring says, and no shape of its example stays in it."""

import functools

import numpy as np
import pytest
import torch

from pair_pkg.data.batches import Item
from pair_pkg.data.pairs import Pairs
from pair_pkg.export import program, torchscript
from pair_pkg.export.gate import module_norms, run_of, score_rows
from pair_pkg.export.source import load_finished
from pair_pkg.modeling.embedding import encode_texts
from pair_pkg.modeling.sentence_folder import load_sentence_encoder
from pair_pkg.pairs.cross_encoder import bind_cross_encoder
from pair_pkg.pairs.dataset import PairRows
from tests.export.conftest import CLASSIFIERS, HEADS, LENGTH

CROSS = [("cross", architecture, head) for architecture in CLASSIFIERS for head in HEADS]
BI = [
    ("bi", "bert", "mean", True),
    ("bi", "bert", "cls", False),
    ("bi", "roberta", "max", False),
    ("bi", "xlm-roberta", "mean", False),
    ("bi", "bert", "first_last_avg", False),
    ("bi", "modernbert", "first_last_avg", True),
    ("bi", "modernbert", "mean", False),
]
MODELS = pytest.mark.parametrize("model", CROSS + BI, ids=lambda model: " ".join(map(str, model)))
SHAPES = [(1, LENGTH), (3, 17), (1, 1), (7, 5), (2, 2)]


@pytest.mark.parametrize("model", CROSS, ids=lambda model: " ".join(model))
def test_a_cross_encoder_gives_the_calibrated_probability_of_the_padding_free_forward(model, any_folder, tiny_pairs):
    finished = load_finished(any_folder(*model))
    ours = load_finished(any_folder(*model)).graph.model
    flat = bind_cross_encoder(ours)
    one, other = (list(texts) for texts in zip(*tiny_pairs[:9]))
    pairs = Pairs(one, other, None, [""] * 9)
    rows = PairRows(pairs, finished.scheme, finished.tokenizer, LENGTH, flat=flat, with_rows=True)
    batch = rows.build_batch([Item(row, 0) for row in range(9)])
    order = batch.pop("rows").numpy()
    with torch.no_grad():
        logits = ours(**batch).logits.double().numpy()
    if finished.decision is None:
        expected = 5 * logits[:, 0]  # scores are learned in [0, 1], and the labels' range is 0 to 5
    elif finished.scheme.kind == "classes":
        expected = finished.decision.probability(logits)
    else:
        margin = logits[:, 0] if logits.shape[1] == 1 else logits[:, 1] - logits[:, 0]
        expected = finished.decision.probability(margin)
    encoded = finished.tokenizer(one, other, padding=True, return_tensors="pt")
    with torch.no_grad():
        values = finished.graph(*(encoded[name] for name in finished.input_names)).numpy()
    np.testing.assert_allclose(values[order], expected, rtol=1e-4, atol=1e-5)
    assert np.ptp(values) > 0.01, "a constant output would prove nothing"


@pytest.mark.parametrize("model", BI, ids=lambda model: " ".join(map(str, model)))
def test_a_bi_encoder_gives_the_vectors_of_encode_texts(model, any_folder, tiny_documents, few_rows):
    finished = load_finished(any_folder(*model))
    texts = [text[:40] for text in tiny_documents[:9]]
    expected = encode_texts(load_sentence_encoder(any_folder(*model)), texts)
    encoded = finished.tokenizer(texts, padding=True, truncation=True, max_length=LENGTH, return_tensors="pt")
    with torch.no_grad():
        vectors = finished.graph(*(encoded[name] for name in finished.input_names)).numpy()
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


@MODELS
def test_a_trace_of_one_row_of_ones_holds_for_every_shape(model, any_folder, tmp_path):
    finished = load_finished(any_folder(*model))
    torchscript.trace(finished, tmp_path / "model.pt")
    traced = torchscript.load_traced(tmp_path / "model.pt")
    for shape in SHAPES:
        inputs = random_inputs(finished, *shape)
        with torch.no_grad():
            assert torch.allclose(traced(*inputs), finished.graph(*inputs), atol=1e-5, rtol=1e-4), shape
    inputs = random_inputs(finished, 3, 17)
    expected = module_norms(finished.graph, inputs)
    norms = torchscript.traced_norms(traced, inputs)
    assert len(norms) == len(expected) >= 4
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(norms, expected.values()))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(model, marks=[] if model in (CROSS[0], CROSS[4], CROSS[14], BI[4]) else pytest.mark.slow)
        for model in CROSS + BI
    ],
    ids=lambda model: " ".join(map(str, model)),
)
def test_an_exported_program_holds_for_every_shape_up_to_the_longest(model, any_folder):
    finished = load_finished(any_folder(*model))
    module = program.capture(finished.graph, finished).module()
    for shape in SHAPES:
        inputs = random_inputs(finished, *shape)
        with torch.no_grad():
            assert torch.allclose(module(*inputs), finished.graph(*inputs), atol=1e-5, rtol=1e-4), shape
    inputs = random_inputs(finished, 3, 17)
    expected = module_norms(finished.graph, inputs)
    norms = program.program_norms(module, inputs)
    assert len(norms) == len(expected)
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(norms, expected.values()))


def test_padding_does_not_change_a_row(tiny_cross, few_rows):
    rows = few_rows(tiny_cross)
    together = score_rows(tiny_cross, rows, run_of(tiny_cross.graph)).outputs
    alone = [run_of(tiny_cross.graph)(*rows.collate(np.array([row])))[0] for row in range(len(rows.encoded))]
    np.testing.assert_allclose(together, alone, atol=1e-6)


@functools.cache
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def random_inputs(finished, batch: int, length: int) -> tuple[torch.Tensor, ...]:
    """Rows of random ids, each of another length, padded on the right."""
    lengths = torch.randint(1, length + 1, (batch,), generator=generator())
    lengths[0] = length
    mask = (torch.arange(length) < lengths[:, None]).long()
    ids = torch.randint(5, 60, (batch, length), generator=generator()) * mask
    ids += finished.tokenizer.pad_token_id * (1 - mask)
    types = (torch.arange(length) > length // 2).long().expand(batch, length) * mask
    return (ids, mask, types)[: len(finished.input_names)]
