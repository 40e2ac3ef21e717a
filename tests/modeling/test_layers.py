"""The depth of every weight, frozen layers, and layers that are drawn anew."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from pair_pkg.errors import InputError
from pair_pkg.modeling.layers import encoder_layers, freeze_layers, parameter_depths, reinit_layers
from pair_pkg.modeling.layout import Layout
from pair_pkg.pairs.cross_encoder import bind_cross_encoder
from pair_pkg.pairs.head_norm import add_head_norm

SIZES = dict(vocab_size=60, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
BUILDERS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES)),
    "bert, bare": lambda: BertModel(BertConfig(**SIZES)),
    "bert, masked": lambda: BertForMaskedLM(BertConfig(**SIZES)),
    "bert, normed": lambda: add_head_norm(BertForSequenceClassification(BertConfig(**SIZES))),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, pad_token_id=1)),
    "modernbert": lambda: ModernBertForSequenceClassification(ModernBertConfig(**SIZES, pad_token_id=0)),
    "distilbert": lambda: DistilBertModel(
        DistilBertConfig(vocab_size=60, dim=32, n_layers=3, n_heads=4, hidden_dim=48)
    ),
}


def flat_batch(lengths):
    """Three texts one after the other, as the padding-free forward of a cross-encoder takes them."""
    return {
        "input_ids": torch.arange(sum(lengths)) % 50 + 5,
        "position_ids": torch.cat([torch.arange(length) for length in lengths]),
        "token_type_ids": torch.zeros(sum(lengths), dtype=torch.long),
        "layout": Layout(lengths),
        "wanted": torch.tensor(lengths).cumsum(0) - torch.tensor(lengths),
    }


@pytest.fixture(params=BUILDERS)
def model(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]()


def test_every_parameter_has_one_depth(model):
    depths = parameter_depths(model)
    assert list(depths) == [name for name, _ in model.named_parameters()]
    for name, depth in depths.items():
        numbers = [int(part) for part in name.split(".") if part.isdigit()]
        if numbers:
            assert depth == numbers[0] + 1, name
        elif "word_embeddings" in name or "tok_embeddings" in name or "position_embeddings" in name:
            assert depth == 0, name
        elif any(part in name for part in ("pooler", "classifier", "cls.", "head", "final_norm")):
            assert depth == 4, name
        else:
            assert depth == 0 and "embeddings" in name, name  # their own norm
    assert set(depths.values()) == ({0, 1, 2, 3} if isinstance(model, DistilBertModel) else {0, 1, 2, 3, 4})


def test_a_tied_head_is_part_of_the_embeddings():
    depths = parameter_depths(BUILDERS["bert, masked"]())
    assert depths["bert.embeddings.word_embeddings.weight"] == 0 and depths["cls.predictions.bias"] == 4
    assert "cls.predictions.decoder.weight" not in depths


@pytest.mark.parametrize("num_layers", [0, 2])
def test_frozen_layers_do_not_learn_and_the_rest_does(model, num_layers):
    freeze_layers(model, num_layers)
    depths = parameter_depths(model)
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == (depths[name] > num_layers), name


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_no_backward_pass_goes_below_the_frozen_layers(name, num_layers):
    """What the flat forward computes below is no part of the graph; above it every weight gets its gradient."""
    torch.manual_seed(0)
    model = BUILDERS[name]().train()
    bind_cross_encoder(model)
    freeze_layers(model, num_layers)
    tracked = {}
    for depth, layer in enumerate(encoder_layers(model), 1):
        norm = [module for module in layer.modules() if isinstance(module, torch.nn.LayerNorm)][-1]
        norm.register_forward_hook(
            lambda module, inputs, output, depth=depth: tracked.update({depth: output.requires_grad})
        )
    model(**flat_batch([7, 5, 2])).logits.sum().backward()
    assert tracked == {depth: depth > num_layers for depth in (1, 2, 3)}
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name


def test_more_layers_than_there_are_is_refused(model):
    with pytest.raises(InputError, match=r"--freeze_layers 4: \w+ has 3 layers; give 3 at most"):
        freeze_layers(model, 4)
    with pytest.raises(InputError, match="--reinit_layers 9: .*; give 3 at most"):
        reinit_layers(model, 9, seed=1)


def test_a_model_with_nothing_left_to_learn_is_refused():
    model = BUILDERS["bert, bare"]()
    model.pooler.requires_grad_(False)
    with pytest.raises(InputError, match="nothing is left to learn"):
        freeze_layers(model, 3)


def test_top_layers_are_drawn_anew_from_the_seed(model):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(0.5)
            parameter._is_hf_initialized = True  # as a loaded checkpoint's weights may be marked
    random_state = torch.get_rng_state()
    reinit_layers(model, 2, seed=7)
    assert torch.equal(torch.get_rng_state(), random_state)
    first = {name: parameter.clone() for name, parameter in model.named_parameters()}
    depths = parameter_depths(model)
    for name, parameter in first.items():
        fresh = depths[name] in (2, 3) or "pooler" in name
        assert bool((parameter != 0.5).all()) == fresh, name
        if fresh and parameter.dim() == 2:
            assert 0 < parameter.std() < 0.05 and abs(parameter.mean()) < 0.01, name  # initializer_range 0.02
        elif fresh:
            norm = "norm" in name.lower()
            assert torch.equal(parameter, torch.ones_like(parameter) if norm and "weight" in name else parameter * 0), (
                name
            )
    reinit_layers(model, 2, seed=7)
    assert all(torch.equal(parameter, first[name]) for name, parameter in model.named_parameters())
    reinit_layers(model, 2, seed=8)
    changed = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, first[name])}
    assert changed == {name for name, values in first.items() if values.dim() == 2 and (values != 0.5).all()}


def test_an_unknown_architecture_is_refused():
    model = BUILDERS["bert"]()
    model.config.num_hidden_layers = 5
    with pytest.raises(InputError, match="its layers are not known"):
        encoder_layers(model)
