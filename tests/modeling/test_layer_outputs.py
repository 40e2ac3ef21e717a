"""Hidden states and attentions of a text, as the stock model gives them, with the user's own words as labels."""

import numpy as np
import pytest
import torch
from transformers import AutoModel

from pair_pkg.modeling.layer_outputs import layers_bytes, load_for_layers, read_layers
from pair_pkg.modeling.loading import load_tokenizer


@pytest.fixture(scope="module")
def loaded(tiny_bert):
    return load_for_layers(tiny_bert), load_tokenizer(tiny_bert)


def test_layers_are_those_of_the_stock_model(loaded, tiny_bert):
    model, tokenizer = loaded
    layers = read_layers(model, tokenizer, "the old pump leaks", "水泵")
    num_tokens = len(layers.labels)
    assert layers.hidden_states.shape == (3, num_tokens, 32) and layers.attentions.shape == (
        2,
        4,
        num_tokens,
        num_tokens,
    )
    np.testing.assert_allclose(layers.attentions.sum(-1), 1, atol=1e-5)
    stock = AutoModel.from_pretrained(tiny_bert)
    with torch.inference_mode():
        expected = stock(**tokenizer("the old pump leaks", "水泵", return_tensors="pt")).last_hidden_state[0]
    np.testing.assert_allclose(layers.hidden_states[-1], expected, atol=1e-5)
    assert layers.hidden_states.nbytes + layers.attentions.nbytes == layers_bytes(model, num_tokens)


def test_labels_are_the_characters_of_the_text(loaded):
    labels = read_layers(*loaded, "The OLD pump", "水泵").labels
    assert [labels[0], labels[-1]] == ["[CLS]", "[SEP]"]
    assert "".join(label for label in labels if not label.startswith("[")) == "TheOLDpump水泵"


def test_a_long_text_is_cut_to_the_positions(loaded):
    assert len(read_layers(*loaded, "the old pump leaks " * 100).labels) == 64
