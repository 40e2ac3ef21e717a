"""How far weights have moved, and models between two: by hand on a tiny encoder."""

import pytest
import torch
from transformers import AutoModelForMaskedLM

from pair_pkg.modeling.base_weights import BaseWeights


@pytest.fixture
def model(tiny_bert):
    return AutoModelForMaskedLM.from_pretrained(tiny_bert)


def test_movement_by_layer_is_the_share_of_the_length(model):
    base = BaseWeights(model)
    assert set(base.movement(model).values()) == {0.0}
    with torch.no_grad():
        for parameter in model.bert.encoder.layer[1].parameters():
            parameter.mul_(1.5)
    moved = base.movement(model)
    assert list(moved) == ["embeddings", "layer 1", "layer 2", "head"]
    assert moved["layer 2"] == pytest.approx(0.5) and moved["layer 1"] == moved["embeddings"] == moved["head"] == 0


def test_interpolation_is_of_the_encoder_and_leaves_the_head(model):
    base = BaseWeights(model)
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    adapted = BaseWeights(model)
    for alpha in (0.25, 0.0, 1.0):
        base.interpolate(model, adapted, alpha)
        for name, parameter in model.named_parameters():
            shift = alpha if name.startswith("bert.") else 1.0
            torch.testing.assert_close(parameter.detach(), before[name] + shift)
