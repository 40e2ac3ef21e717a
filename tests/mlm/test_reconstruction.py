"""Windows that are written again from one vector: what is drawn, what is predicted, and the decoders' arithmetic."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import DenoisingAutoEncoderLoss
from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
from transformers import AutoModelForMaskedLM, AutoTokenizer, RobertaConfig, RobertaForMaskedLM

from pair_pkg.data.batches import Item
from pair_pkg.data.rows import cut_windows, rows_packed
from pair_pkg.data.tokens import special_affixes, tokenize_in_memory
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.decoders import attach_decoder
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.reconstruction import RETROMAE, TSDAE, Reconstruction
from pair_pkg.mlm.segments import RowTokens

SEED, WIDTH = 3, 48


@pytest.fixture(scope="module")
def store(tiny_documents, tiny_tokenizer):
    return tokenize_in_memory(tiny_documents, tiny_tokenizer)


def rows_of(store):
    windows = cut_windows(store.offsets, np.arange(store.num_documents), WIDTH - 2)
    return rows_packed(*windows, 2, WIDTH)


def masked_rows(store, tokenizer, objective=None, share=1.0, probability=0.15):
    masking = Masking(SEED, tokenizer.mask_token_id, np.arange(5, len(tokenizer)), probability)
    how = objective and Reconstruction(objective, share, SEED)
    affixes = special_affixes(tokenizer)
    return MaskedRows(store, rows_of(store), masking, affixes, tokenizer.pad_token_id, flat=True, reconstruction=how)


def bound(folder, objective=None, pooling="mean"):
    model = AutoModelForMaskedLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bind_sparse_forward(model)
    if objective:
        attach_decoder(model, Reconstruction(objective, 1.0, SEED), pooling, tokenizer.pad_token_id)
    return model.eval()


def segments_of(batch):
    ids = batch["input_ids"].split(batch["layout"].lengths)
    targets = batch["targets"]
    return [ids[number] for number in targets.segments.tolist()], targets.ids.split(targets.layout.lengths)


def items(*rows, epoch=0):
    return [Item(row, epoch) for row in rows]


def loss_of(model, batch):
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    return masked_lm_loss(model(**inputs), batch["labels"])


def test_tsdae_sees_four_tenths_and_predicts_the_whole_text(store, tiny_tokenizer):
    rows = masked_rows(store, tiny_tokenizer, TSDAE)
    batch = rows.build_batch(items(*range(len(rows))))
    seen, texts = segments_of(batch)
    assert len(texts) == len(rows.rows.starts) and len(batch["predicted"]) == 0
    for part, whole in zip(seen, texts):
        rest = iter(whole.tolist())
        assert all(token in rest for token in part.tolist())  # what is left, in its order
        assert len(part) > 2
    kept, there = (sum(len(part) - 2 for part in parts) for parts in (seen, texts))
    assert kept / there == pytest.approx(0.4, abs=0.02)
    assert batch["labels"].tolist() == [token for whole in texts for token in whole.tolist()[1:]]


def test_whole_words_are_deleted(store, tiny_tokenizer):
    tokens = RowTokens.read(store, rows_of(store), np.arange(20))
    deleted = Reconstruction(TSDAE, 1.0, SEED).deleted(tokens, np.ones(len(tokens.lengths), bool), epoch=0)
    word = np.cumsum(tokens.word_starts)
    parted = [number for number in np.unique(word) if len(set(deleted[word == number])) == 2]
    cut = set(word[tokens.begins])  # the one word that is kept of a window may be parted
    assert 0.5 < deleted.mean() < 0.7 and set(parted) <= cut


def test_retromae_predicts_each_token_once_more_and_looks_at_half_of_the_others(store, tiny_tokenizer):
    rows = masked_rows(store, tiny_tokenizer, RETROMAE)
    plain = masked_rows(store, tiny_tokenizer).build_batch(items(*range(len(rows))))
    batch = rows.build_batch(items(*range(len(rows))))
    assert torch.equal(batch["input_ids"], plain["input_ids"])  # masked as ever
    assert torch.equal(batch["predicted"], plain["predicted"])
    _, texts = segments_of(batch)
    again = batch["labels"][len(plain["labels"]) :]
    assert again.tolist() == [token for whole in texts for token in whole.tolist()[1:-1]]
    targets = batch["targets"]
    own = torch.cat([torch.arange(length) for length in targets.layout.lengths])[targets.places]
    length = torch.cat([torch.full((length,), length) for length in targets.layout.lengths])[targets.places]
    assert not targets.visible[torch.arange(len(own)), own].any()
    assert not (targets.visible & (torch.arange(targets.visible.shape[1]) >= length[:, None])).any()
    assert targets.visible.sum() / (length - 1).sum() == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize("objective", [TSDAE, RETROMAE])
def test_a_share_of_the_rows_others_in_each_epoch(store, tiny_tokenizer, objective):
    rows = masked_rows(store, tiny_tokenizer, objective, share=0.4)
    taken = [
        {row for row in range(len(rows)) if rows.build_batch(items(row, epoch=epoch))["targets"].layout.lengths}
        for epoch in range(4)
    ]
    assert sum(map(len, taken)) / (4 * len(rows)) == pytest.approx(0.4, abs=0.1)
    assert len(set(map(frozenset, taken))) == 4
    other = min(set(range(len(rows))) - taken[0])
    plain = masked_rows(store, tiny_tokenizer).build_batch(items(other))
    batch = rows.build_batch(items(other))
    assert all(torch.equal(batch[name], plain[name]) for name in ("input_ids", "predicted", "labels"))


@pytest.mark.parametrize("objective", [TSDAE, RETROMAE])
def test_no_batch_changes_a_draw_or_the_sum_of_losses(store, tiny_tokenizer, tiny_bert, objective):
    """Eight rows at once, or one by one: the same predictions, sum and gradients."""
    rows = masked_rows(store, tiny_tokenizer, objective, share=0.7)
    results = []
    for parts in ([range(8)], [[row] for row in range(8)]):
        model = bound(tiny_bert, objective)
        batches = [rows.build_batch(items(*part, epoch=1)) for part in parts]
        number = sum(len(batch["labels"]) for batch in batches)
        total = sum(loss_of(model, batch) * len(batch["labels"]) for batch in batches if len(batch["labels"])) / number
        total.backward()
        gradients = {name: value.grad for name, value in model.named_parameters() if value.grad is not None}
        results.append((number, total.item(), gradients))
    (one, loss, gradients), (other, same, others) = results
    assert one == other and loss == pytest.approx(same, abs=1e-6)
    assert any(name.startswith("reconstruction.") for name in gradients)
    for name, value in gradients.items():
        torch.testing.assert_close(others[name], value, atol=1e-6, rtol=1e-4)


def test_tsdae_is_the_loss_of_sentence_transformers(store, tiny_tokenizer, tiny_bert):
    """The library's own loss on the same damaged and whole texts, its decoder given the same drawn weights."""
    model = bound(tiny_bert, TSDAE)
    batch = masked_rows(store, tiny_tokenizer, TSDAE).build_batch(items(0, 1))
    encoder = SentenceTransformer(modules=[Transformer(tiny_bert), Pooling(32, "mean")], device="cpu").eval()
    theirs = DenoisingAutoEncoderLoss(encoder, tie_encoder_decoder=True).eval()
    decoder = theirs.decoder.bert.state_dict()
    ours = model.reconstruction.decoder.state_dict()
    drawn = {name: value for name, value in ours.items() if "crossattention" in name}
    assert drawn and all(torch.equal(decoder[name], ours[name]) for name in ours if name not in drawn)
    theirs.decoder.bert.load_state_dict(decoder | drawn)
    padded = [
        {"input_ids": ids, "attention_mask": ids.ne(tiny_tokenizer.pad_token_id).long()}
        for ids in (
            torch.nn.utils.rnn.pad_sequence(list(parts), batch_first=True, padding_value=tiny_tokenizer.pad_token_id)
            for parts in segments_of(batch)
        )
    ]
    expected = theirs(padded, None)
    assert loss_of(model, batch).item() == pytest.approx(expected.item(), abs=1e-5)


def test_retromae_is_what_its_formulas_say(store, tiny_tokenizer, tiny_bert):
    """Enhanced decoding (Xiao et al., 2022, equations 4 to 7), a token at a time."""
    model = bound(tiny_bert, RETROMAE, pooling="cls")
    batch = masked_rows(store, tiny_tokenizer, RETROMAE, probability=0.3).build_batch(items(0, 1))
    targets, layer = batch["targets"], model.reconstruction.layer
    own = layer.attention.self
    heads = lambda rows: rows.view(len(rows), own.num_attention_heads, -1).transpose(0, 1)  # noqa: E731
    read = lambda words: model.bert.embeddings(inputs_embeds=words[None])[0]  # noqa: E731
    hidden = [
        model.bert(input_ids=ids[None]).last_hidden_state[0]
        for ids in batch["input_ids"].split(batch["layout"].lengths)
    ]
    expected, number = [], 0
    for segment, ids in zip(targets.segments.tolist(), targets.ids.split(targets.layout.lengths)):
        vector = hidden[segment][0]
        words = model.bert.embeddings.word_embeddings(ids)
        queries = read(vector.expand_as(words))
        context = torch.cat([vector[None], read(words)[1:]])
        for place in range(1, len(ids) - 1):
            seen = [0, *torch.arange(len(ids))[targets.visible[number][: len(ids)]].tolist()]
            seen = context[sorted(set(seen))]
            attended = F.scaled_dot_product_attention(
                heads(own.query(queries[place][None])), heads(own.key(seen)), heads(own.value(seen))
            )
            row = layer.attention.output(attended.transpose(0, 1).flatten(1), queries[place][None])
            expected.append(layer.output(layer.intermediate(row), row)[0])
            number += 1
    logits = model.cls(torch.stack(expected))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    given = model(**inputs).logits[len(batch["predicted"]) :]
    torch.testing.assert_close(given, logits, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("objective", [TSDAE, RETROMAE])
def test_a_batch_with_nothing_to_write_reaches_every_weight(store, tiny_tokenizer, tiny_bert, objective):
    """As DDP's reducer wants; its decoder has no gradient but zeros."""
    model = bound(tiny_bert, objective)
    rows = masked_rows(store, tiny_tokenizer, objective, share=1e-9)
    loss_of(model, rows.build_batch(items(0, 1))).backward()
    gradients = [parameter.grad for name, parameter in model.named_parameters() if name.startswith("reconstruction.")]
    assert gradients and all(gradient is not None and not gradient.any() for gradient in gradients)


@pytest.mark.parametrize("objective", [TSDAE, RETROMAE])
def test_a_roberta_learns_to_write(store, tiny_tokenizer, objective):
    """Its class has as many positions as a window has, counted from padding_idx + 1: one too many would fail."""
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=WIDTH + tiny_tokenizer.pad_token_id + 1,
        pad_token_id=tiny_tokenizer.pad_token_id,
        hidden_dropout_prob=0.0,
    )
    torch.manual_seed(5)
    model = RobertaForMaskedLM(config).train()
    bind_sparse_forward(model)
    attach_decoder(model, Reconstruction(objective, 1.0, SEED), "mean", tiny_tokenizer.pad_token_id)
    batch = masked_rows(store, tiny_tokenizer, objective).build_batch(items(0, 1, 2))
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    losses = []
    for _ in range(25):
        loss = loss_of(model, batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]
