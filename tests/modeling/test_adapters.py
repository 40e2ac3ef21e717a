"""Low-rank adapters: equal to peft's own model, learning where they should, and gone at the end."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from pair_pkg.modeling.adapters import Adapters
from pair_pkg.modeling.layers import parameter_depths
from pair_pkg.modeling.layout import Layout
from pair_pkg.pairs.cross_encoder import bind_cross_encoder

SIZES = dict(
    vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
    initializer_range=0.2,
)  # fmt: skip
PLAIN = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
BUILDERS = {
    "bert": lambda: BertForSequenceClassification(BertConfig(**SIZES, **PLAIN, pad_token_id=0)),
    "roberta": lambda: RobertaForSequenceClassification(RobertaConfig(**SIZES, **PLAIN, pad_token_id=1)),
    "modernbert": lambda: ModernBertForSequenceClassification(
        ModernBertConfig(**SIZES, pad_token_id=0, local_attention=8, classifier_pooling="cls")
    ),
}
TARGETS = {"bert": ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"],
           "modernbert": ["Wqkv", "attn.Wo", "mlp.Wi", "mlp.Wo"]}  # fmt: skip
LENGTHS = [9, 7, 4]


def build(name):
    torch.manual_seed(0)
    return BUILDERS[name]().train()


def disturb(model):
    """Give the adapters weights that matter: they begin as the identity."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)


def batches():
    """The same three texts, padding-free and padded."""
    generator = torch.Generator().manual_seed(1)
    texts = [torch.randint(5, 60, (length,), generator=generator) for length in LENGTHS]
    lengths = torch.tensor(LENGTHS)
    flat = {
        "input_ids": torch.cat(texts),
        "position_ids": torch.cat([torch.arange(length) for length in LENGTHS]),
        "token_type_ids": torch.zeros(sum(LENGTHS), dtype=torch.long),
        "layout": Layout(LENGTHS),
        "wanted": lengths.cumsum(0) - lengths,
    }
    real = torch.arange(max(LENGTHS)) < lengths.unsqueeze(1)
    ids = torch.zeros(real.shape, dtype=torch.long).masked_scatter(real, flat["input_ids"])
    return flat, ids, real.long()


@pytest.mark.parametrize("name", BUILDERS)
def test_the_flat_forward_is_that_of_peft_s_own_model_on_a_padded_batch(name):
    flat, ids, mask = batches()
    ours = build(name)
    Adapters(ours, rank=4, alpha=8, dropout=0.0)
    bind_cross_encoder(ours)
    disturb(ours)

    theirs = build(name)
    targets = TARGETS["modernbert" if name == "modernbert" else "bert"]
    exclude = {} if name == "modernbert" else {"exclude_modules": ["pooler.dense", "classifier.dense"]}
    peft_model = get_peft_model(theirs, LoraConfig(r=4, lora_alpha=8, target_modules=targets, **exclude))
    disturb(peft_model)
    names = [key.removeprefix("base_model.model.") for key, _ in peft_model.named_parameters() if "lora_" in key]
    assert names == [key for key, _ in ours.named_parameters() if "lora_" in key]

    logits = ours(**flat).logits
    expected = peft_model(
        input_ids=ids.where(mask.bool(), torch.tensor(theirs.config.pad_token_id)), attention_mask=mask
    ).logits
    torch.testing.assert_close(logits, expected, atol=1e-5, rtol=0)
    logits.square().sum().backward()
    expected.square().sum().backward()
    gradients = {key: parameter.grad for key, parameter in theirs.named_parameters() if "lora_" in key}
    for key, parameter in ours.named_parameters():
        if "lora_" in key:
            scale = gradients[key].abs().max().clamp(min=1)
            torch.testing.assert_close(parameter.grad / scale, gradients[key] / scale, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize("name", BUILDERS)
def test_adapters_begin_as_the_identity_and_only_they_and_the_head_learn(name):
    flat, *_ = batches()
    model = build(name)
    bind_cross_encoder(model)
    before = model(**flat).logits
    depths = parameter_depths(model)
    Adapters(model, rank=4, alpha=8, dropout=0.0)
    torch.testing.assert_close(model(**flat).logits, before, atol=1e-6, rtol=0)
    learning = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert learning == {key for key, _ in model.named_parameters() if "lora_" in key} | {
        key for key, depth in depths.items() if depth == 3
    }


@pytest.mark.parametrize("name", BUILDERS)
def test_merging_keeps_the_outputs_and_gives_a_plain_model(name, tmp_path):
    flat, *_ = batches()
    model = build(name)
    plain_names = list(model.state_dict())
    bind_cross_encoder(model)
    adapters = Adapters(model, rank=4, alpha=16, dropout=0.5)
    disturb(model)
    model.eval()  # or the adapters' dropout draws
    before = {key: values.clone() for key, values in model.state_dict().items()}
    logits = model(**flat).logits
    merged = adapters.merged_state_dict()
    assert all(torch.equal(values, before[key]) for key, values in model.state_dict().items())  # nothing was touched
    assert sorted(merged) == sorted(plain_names)
    model.save_pretrained(tmp_path, state_dict=dict(merged))  # it empties what it is given
    adapters.merge()
    assert list(model.state_dict()) == plain_names and not hasattr(model, "peft_config")
    assert all(torch.equal(values, merged[key]) for key, values in model.state_dict().items())
    torch.testing.assert_close(model(**flat).logits, logits, atol=1e-5, rtol=0)
    loaded = type(model).from_pretrained(tmp_path)
    assert all(torch.equal(values, merged[key]) for key, values in loaded.state_dict().items())


def test_the_delta_is_alpha_over_rank_times_b_a():
    model = BertModel(BertConfig(**SIZES))
    wanted = model.encoder.layer[1].attention.self.query.weight.detach().clone()
    adapters = Adapters(model, rank=2, alpha=6, dropout=0.0)
    disturb(model)
    layer = model.encoder.layer[1].attention.self.query
    delta = 6 / 2 * layer.lora_B["default"].weight @ layer.lora_A["default"].weight
    merged = adapters.merged_state_dict()["encoder.layer.1.attention.self.query.weight"]
    torch.testing.assert_close(merged, wanted + delta.detach(), atol=1e-6, rtol=0)


def test_a_frozen_pooler_stays_frozen_and_tied_embeddings_stay_tied(tmp_path):
    model = BertForMaskedLM(BertConfig(**SIZES))
    model.bert.pooler = BertModel(BertConfig(**SIZES)).pooler.requires_grad_(False)
    adapters = Adapters(model, rank=2, alpha=4, dropout=0.0)
    disturb(model)
    assert not any(parameter.requires_grad for parameter in model.bert.pooler.parameters())
    assert model.cls.predictions.bias.requires_grad and not model.cls.predictions.decoder.weight.requires_grad
    model.save_pretrained(tmp_path / "before", state_dict=adapters.merged_state_dict())
    adapters.merge()
    assert model.cls.predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight
    model.save_pretrained(tmp_path / "after")
    assert (tmp_path / "before" / "model.safetensors").read_bytes() == (
        tmp_path / "after" / "model.safetensors"
    ).read_bytes()


def test_the_draws_come_from_torch_s_random_state():
    first, second, third = build("bert"), build("bert"), build("bert")
    for model, seed in ((first, 3), (second, 3), (third, 4)):
        torch.manual_seed(seed)
        Adapters(model, rank=2, alpha=4, dropout=0.0)
    drawn = [
        model.bert.encoder.layer[0].attention.self.query.lora_A["default"].weight for model in (first, second, third)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_a_model_with_adapters_can_be_copied():
    """What averages its weights keeps a copy."""
    model = build("bert")
    bind_cross_encoder(model)
    Adapters(model, rank=2, alpha=4, dropout=0.0)
    flat, *_ = batches()
    copied = copy.deepcopy(model)
    disturb(model)
    assert not torch.equal(copied(**flat).logits, model(**flat).logits)
