"""The flat forward with its sparse head against the stock model: one loss, one set of gradients."""

import logging

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import (
    AlbertConfig,
    AlbertForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
    XLMRobertaConfig,
    XLMRobertaForMaskedLM,
)

from pair_pkg.data.batches import Item
from pair_pkg.data.rows import cut_windows, rows_line_by_line, rows_packed
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss
from pair_pkg.mlm.masking import Masking
from pair_pkg.modeling import encoder

PAD = 1
SMALL = dict(
    vocab_size=99, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48,
    max_position_embeddings=66, pad_token_id=PAD,
)  # fmt: skip
DRY = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
FLAT = {
    "bert": lambda **dropout: BertForMaskedLM(BertConfig(**SMALL, **dropout)),
    "roberta": lambda **dropout: RobertaForMaskedLM(RobertaConfig(**SMALL, **dropout)),
    "xlm-roberta": lambda **dropout: XLMRobertaForMaskedLM(XLMRobertaConfig(**SMALL, **dropout)),
    "modernbert": lambda **_: ModernBertForMaskedLM(
        ModernBertConfig(**SMALL, local_attention=8, global_attn_every_n_layers=2)
    ),
}
STOCK = {
    "distilbert": lambda: DistilBertForMaskedLM(
        DistilBertConfig(
            vocab_size=99, dim=32, n_layers=2, n_heads=4, hidden_dim=48, max_position_embeddings=66,
            pad_token_id=PAD, dropout=0.0, attention_dropout=0.0,
        )
    ),
    "electra": lambda: ElectraForMaskedLM(ElectraConfig(**SMALL, **DRY)),
    "albert": lambda: AlbertForMaskedLM(AlbertConfig(**SMALL, **DRY, embedding_size=16)),
    "deberta-v2": lambda: DebertaV2ForMaskedLM(
        DebertaV2Config(**SMALL, **DRY, relative_attention=True, pos_att_type=["c2p", "p2c"])
    ),
}  # fmt: skip


def build(builder, **settings):
    torch.manual_seed(0)
    return builder(**settings).train()


@pytest.fixture(params=[True, False], ids=["packed", "line_by_line"])
def batches(request):
    """Flat and padded batches of the same rows under the same masks."""
    sizes = [50, 9, 3, 70, 21, 1, 33, 4]
    ids = np.random.default_rng(0).integers(5, 99, sum(sizes))
    store = TokenStore(ids, np.ones(len(ids), bool), np.cumsum([0, *sizes]), {})
    starts, lengths = cut_windows(store.offsets, np.arange(len(sizes)), 60)
    rows = rows_packed(starts, lengths, 2, 62) if request.param else rows_line_by_line(starts, lengths)
    masking = Masking(1, 4, np.arange(5, 99))
    items = [Item(row, 0) for row in range(len(rows))]
    kinds = (MaskedRows(store, rows, masking, ([0], [2]), PAD, flat=flat) for flat in (True, False))
    return tuple(dataset.build_batch(items) for dataset in kinds)


def dense_loss(model, flat):
    """The stock forward of each document alone: the mean over all predicted tokens."""
    lengths = flat["layout"].lengths
    wanted = torch.full_like(flat["input_ids"], -100)
    wanted[flat["predicted"]] = flat["labels"]
    losses = [
        F.cross_entropy(type(model).forward(model, input_ids=ids.unsqueeze(0)).logits[0], labels, reduction="sum")
        for ids, labels in zip(flat["input_ids"].split(lengths), wanted.split(lengths))
    ]
    return sum(losses) / len(flat["labels"])


def our_loss(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return masked_lm_loss(model(**inputs), batch["labels"])


def loss_and_gradients(model, loss):
    model.zero_grad()
    loss.backward()
    return loss.item(), {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_equal_loss_and_gradients(model, dense, ours):
    loss, gradients = loss_and_gradients(model, dense)
    our_value, our_gradients = loss_and_gradients(model, ours)
    assert our_value == pytest.approx(loss, abs=1e-5)
    assert set(our_gradients) == set(gradients) == {name for name, _ in model.named_parameters()}
    for name, gradient in gradients.items():
        assert gradient.abs().max() > 0 or "key.bias" in name, name  # a key's bias moves no softmax
        torch.testing.assert_close(our_gradients[name], gradient, atol=1e-5, rtol=1e-5, msg=name)


@pytest.mark.parametrize("name", FLAT)
def test_flat_equals_the_stock_forward_of_each_document(name, batches):
    flat, _ = batches
    model = build(FLAT[name], **DRY)
    assert bind_sparse_forward(model)
    assert_equal_loss_and_gradients(model, dense_loss(model, flat), our_loss(model, flat))


@pytest.mark.parametrize("name", FLAT)
def test_dead_rows_change_nothing(name, batches, monkeypatch):
    """They are added in bfloat16; here in float32, where equality can be told."""
    monkeypatch.setattr(encoder, "dead_rows", lambda count, device, dtype: 3 + count % 4)
    flat, _ = batches
    model = build(FLAT[name], **DRY)
    assert bind_sparse_forward(model)
    inputs = {key: value for key, value in flat.items() if key != "labels"}
    assert len(model(**inputs).logits) > len(flat["labels"])
    assert_equal_loss_and_gradients(model, dense_loss(model, flat), our_loss(model, flat))


@pytest.mark.parametrize("name", FLAT)
def test_bfloat16_is_float32_but_for_its_rounding(name, batches):
    flat, _ = batches
    model = build(FLAT[name], **DRY)
    bind_sparse_forward(model)
    exact, gradients = loss_and_gradients(model, our_loss(model, flat))
    with torch.autocast("cpu", torch.bfloat16):
        loss = our_loss(model, flat)
    rounded, rounded_gradients = loss_and_gradients(model, loss)
    assert rounded == pytest.approx(exact, rel=5e-3)
    for key, gradient in gradients.items():
        distance = (rounded_gradients[key] - gradient).norm()
        assert distance < 0.05 * gradient.norm() + 1e-4, key


@pytest.mark.parametrize("name", STOCK)
def test_the_fallback_equals_the_stock_forward_and_says_so_once(name, batches, caplog):
    flat, padded = batches
    model = build(STOCK[name])
    with caplog.at_level(logging.INFO):
        assert not bind_sparse_forward(model)
    (record,) = [record for record in caplog.records if record.name.startswith("pair_pkg")]
    assert "the stock forward is used" in record.getMessage() and "\n" not in record.getMessage()
    assert_equal_loss_and_gradients(model, dense_loss(model, flat), our_loss(model, padded))


def test_the_callers_reason_is_heeded_and_said(batches, caplog):
    flat, padded = batches
    model = build(FLAT["bert"], **DRY)
    assert not bind_sparse_forward(model, why_stock="weights are sharded")
    assert "weights are sharded" in caplog.text
    assert_equal_loss_and_gradients(model, dense_loss(model, flat), our_loss(model, padded))


@pytest.mark.parametrize("name", FLAT)
def test_a_batch_that_predicts_nothing_reaches_every_weight(name, batches):
    """A filler of one process must give DDP a gradient, of zero, for all that it waits for."""
    flat, _ = batches
    model = build(FLAT[name], **DRY)
    bind_sparse_forward(model)
    nothing = {**flat, "predicted": flat["predicted"][:0], "labels": flat["labels"][:0]}
    inputs = {key: value for key, value in nothing.items() if key != "labels"}
    loss, gradients = loss_and_gradients(model, masked_lm_loss(model(**inputs), nothing["labels"], 5))
    assert loss == 0 and set(gradients) == {key for key, _ in model.named_parameters()}
    assert all((gradient == 0).all() for gradient in gradients.values())


@pytest.mark.parametrize("name", FLAT)
@pytest.mark.parametrize("dropouts", [{"hidden_dropout_prob": 0.1}, {"attention_dropout": 0.1}], ids=str)
def test_dropout_is_on_in_training_and_off_in_evaluation(name, dropouts, batches):
    flat, _ = batches
    hidden = dropouts.get("hidden_dropout_prob", 0.0)
    if name == "modernbert" and hidden:
        model = build(lambda: ModernBertForMaskedLM(ModernBertConfig(**SMALL, mlp_dropout=0.1, embedding_dropout=0.1)))
    else:
        model = build(FLAT[name], hidden_dropout_prob=hidden, attention_probs_dropout_prob=0.0)
    bind_sparse_forward(model, dropouts.get("attention_dropout", 0.0))
    first, second = our_loss(model, flat).item(), our_loss(model, flat).item()
    model.eval()
    quiet = our_loss(model, flat).item()
    assert first != second and first != quiet
    assert quiet == our_loss(model, flat).item() == pytest.approx(dense_loss(model, flat).item(), abs=1e-5)


def test_dropout_draws_come_back_with_torchs_random_state(batches):
    flat, _ = batches
    model = build(FLAT["bert"], hidden_dropout_prob=0.1)
    bind_sparse_forward(model, 0.1)
    state = torch.get_rng_state()
    first = our_loss(model, flat)
    torch.set_rng_state(state)
    assert torch.equal(our_loss(model, flat), first)


def test_the_class_stays_stock(tmp_path, batches):
    flat, _ = batches
    model = build(FLAT["bert"], **DRY)
    bind_sparse_forward(model)
    model.save_pretrained(tmp_path)
    again, info = BertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert torch.equal(dense_loss(again.eval(), flat), dense_loss(model.eval(), flat))
