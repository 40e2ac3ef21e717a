"""The padding-free forward equals the stock forward of each segment alone, values and gradients."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from pair_pkg.modeling.encoder import encode, why_not_flat
from pair_pkg.modeling.layout import Layout, group_boundaries

SMALL = dict(vocab_size=99, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48)
BUILDERS = {
    "bert": lambda: BertModel(BertConfig(**SMALL, **NO_DROPOUT), add_pooling_layer=False),
    "roberta": lambda: RobertaModel(RobertaConfig(**SMALL, pad_token_id=1, **NO_DROPOUT), False),
    "xlm-roberta": lambda: XLMRobertaModel(XLMRobertaConfig(**SMALL, pad_token_id=1, **NO_DROPOUT), False),
    "modernbert": lambda: ModernBertModel(
        ModernBertConfig(**SMALL, pad_token_id=0, local_attention=8, global_attn_every_n_layers=2)
    ),
    "modernbert, last layer local": lambda: ModernBertModel(
        ModernBertConfig(**SMALL, pad_token_id=0, local_attention=8, global_attn_every_n_layers=3)
    ),
}
NO_DROPOUT = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
LENGTHS = [40, 40, 37, 9, 9, 2]


@pytest.fixture(params=BUILDERS)
def model(request):
    torch.manual_seed(0)
    return BUILDERS[request.param]().train()


def flat_batch(lengths, seed=1):
    generator = torch.Generator().manual_seed(seed)
    input_ids = torch.randint(5, 99, (sum(lengths),), generator=generator)
    return input_ids, torch.cat([torch.arange(length) for length in lengths])


def stock_hidden(model, input_ids, lengths):
    return torch.cat([model(part.unsqueeze(0)).last_hidden_state[0] for part in input_ids.split(lengths)])


@pytest.mark.parametrize("plain", [True, False])
def test_hidden_states_and_gradients_equal_the_stock_forward(model, plain, monkeypatch):
    monkeypatch.setattr("pair_pkg.modeling.attention._plain_products_serve", lambda *_: plain)
    input_ids, position_ids = flat_batch(LENGTHS)
    weights = torch.randn(sum(LENGTHS), 32, generator=torch.Generator().manual_seed(2)) / sum(LENGTHS)  # a mean loss
    (stock_hidden(model, input_ids, LENGTHS) * weights).sum().backward()
    expected = {
        name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None
    }
    stock = stock_hidden(model, input_ids, LENGTHS)
    model.zero_grad()
    ours = encode(model, input_ids, position_ids, Layout(LENGTHS))
    (ours * weights).sum().backward()
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)
    for name, gradient in expected.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_wanted_rows_equal_the_same_rows_of_the_whole(model):
    input_ids, position_ids = flat_batch(LENGTHS)
    wanted = torch.tensor([0, 3, 39, 80, 100, 117, 135, 136])
    whole = encode(model, input_ids, position_ids, Layout(LENGTHS))
    rows = encode(model, input_ids, position_ids, Layout(LENGTHS), wanted=wanted)
    torch.testing.assert_close(rows, whole[wanted], atol=1e-5, rtol=1e-5)


def test_a_segment_does_not_see_its_neighbours(model):
    input_ids, position_ids = flat_batch(LENGTHS)
    changed = input_ids.clone()
    changed[40:80] = 7  # the second segment
    before = encode(model, input_ids, position_ids, Layout(LENGTHS))
    after = encode(model, changed, position_ids, Layout(LENGTHS))
    assert torch.equal(before[:40], after[:40]) and torch.equal(before[117:], after[117:])
    assert not torch.allclose(before[40:80], after[40:80])


def test_token_types_reach_bert():
    torch.manual_seed(0)
    model = BUILDERS["bert"]().eval()
    input_ids, position_ids = flat_batch([8, 8])
    types = torch.tensor([0] * 4 + [1] * 4 + [0] * 8)
    ours = encode(model, input_ids, position_ids, Layout([8, 8]), token_type_ids=types)
    stock = model(input_ids.view(2, 8), token_type_ids=types.view(2, 8)).last_hidden_state.view(16, -1)
    torch.testing.assert_close(ours, stock, atol=1e-5, rtol=1e-5)


def test_groups_close_before_their_padding_costs_more_than_a_call():
    assert group_boundaries([128] * 40, 10_000) == [40]
    assert group_boundaries([512, 500, 20], 10_000) == [1, 2, 3]
    assert group_boundaries([512, 511, 20], 10_000) == [2, 3]
    assert group_boundaries([511, 512, 20], 10_000) == [2, 3]
    assert group_boundaries([512, 500, 20], 1_000_000) == [3]
    assert group_boundaries([], 10_000) == []


def test_a_class_without_a_flat_forward_says_why():
    assert "decoder" in why_not_flat(BertModel(BertConfig(**SMALL, is_decoder=True)))
    assert why_not_flat(torch.nn.Linear(1, 1)) == "Linear has no padding-free forward here"
    assert why_not_flat(BUILDERS["modernbert"]()) is None
