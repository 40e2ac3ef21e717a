"""The bound bi-encoder: gradients of the library's own training, plain checkpoints, and it learns."""

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer import losses as library
from transformers import AutoModel, BertConfig, BertModel, DistilBertConfig, DistilBertModel, TrainingArguments

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.embedding import SentenceEncoder, encode_texts
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.modeling.sentence_folder import save_sentence_encoder
from pair_pkg.pairs import bi_encoder
from pair_pkg.pairs.bi_encoder import bind_bi_encoder, take_encoder
from pair_pkg.pairs.embedding_loss import cosine_row_metrics, embedding_loss, score_embedded_pairs
from pair_pkg.pairs.head_norm import HeadNorm
from pair_pkg.pairs.text_dataset import PairTexts
from pair_pkg.training.trainer import StageTrainer

BINARY = LabelScheme("binary", ["different", "same"])
SCORES = LabelScheme("scores", [], 0.0, 5.0)
LEFT = ["how to treat a cold", "a cold", "what is the best cure for a very bad cold in winter", "winter", "a cold"]
RIGHT = ["cure for a cold", "what is a cold", "a cure", "how bad is winter", "how to treat a very bad cold at home"]
LABELS = np.array([1, 0, 1, 1, 0])
TOKENIZER = train_tokenizer([*LEFT, *RIGHT] * 3, 120)
SIZES = dict(vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
PLAIN = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=64)


def build_bert(**settings):
    torch.manual_seed(0)
    return BertModel(BertConfig(**SIZES, **PLAIN | settings, initializer_range=0.2, pad_token_id=0)).train()


def build_distilbert():
    torch.manual_seed(0)
    sizes = dict(vocab_size=120, dim=32, n_layers=2, n_heads=4, hidden_dim=48, dropout=0.0, attention_dropout=0.0)
    return DistilBertModel(DistilBertConfig(**sizes, initializer_range=0.2)).train()


def pair_texts(flat=True, scheme=BINARY, labels=LABELS, **settings):
    return PairTexts(Pairs(LEFT, RIGHT, labels, LEFT), scheme, TOKENIZER, 32, flat=flat, **settings)


def batch_of(*rows, **settings):
    return pair_texts(**settings).build_batch([Item(row, FROZEN) for row in rows or range(len(LEFT))])


def gradients_of(model, batch, loss):
    """The loss of a batch, and the gradients of all weights that it has."""
    labels = batch.pop("labels")
    value = embedding_loss(loss)(model(**batch), labels)
    value.backward()
    return value.detach(), {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}


@pytest.mark.parametrize("build", [build_bert, build_distilbert])
@pytest.mark.parametrize("pooling", ["mean", "first_last_avg"])
@pytest.mark.parametrize("loss_class, loss", [(library.CoSENTLoss, "cosent"), (library.ContrastiveLoss, "contrastive")])
def test_one_forward_of_distinct_texts_is_the_librarys_step(build, pooling, loss_class, loss, tmp_path):
    save_sentence_encoder(SentenceEncoder(build(), TOKENIZER, pooling, 32), tmp_path)
    theirs = SentenceTransformer(str(tmp_path), device="cpu").train()
    features = [theirs.preprocess(list(column)) for column in (LEFT, RIGHT)]
    expected_value = loss_class(theirs)(features, torch.from_numpy(LABELS))
    expected_value.backward()
    model = build()
    flat = bind_bi_encoder(model, pooling)
    assert flat == (build is build_bert)
    value, gradients = gradients_of(model, batch_of(flat=flat), loss)
    torch.testing.assert_close(value, expected_value.detach(), atol=1e-5, rtol=1e-5)
    for name, weight in theirs[0].auto_model.named_parameters():
        if weight.grad is not None:
            torch.testing.assert_close(gradients[name], weight.grad, atol=1e-5, rtol=1e-5, msg=name)
    assert gradients["embeddings.word_embeddings.weight"].abs().max() > 1e-3


@pytest.mark.parametrize("build", [build_bert, build_distilbert])
def test_chunks_that_are_computed_twice_give_the_same_gradients(build):
    value, gradients = {}, {}
    for chunk_tokens in (None, 9):
        model = build()
        flat = bind_bi_encoder(model, "mean", chunk_tokens=chunk_tokens)
        batch = batch_of(flat=flat, with_groups=True)
        value[chunk_tokens], gradients[chunk_tokens] = gradients_of(model, batch, "cached_multiple_negatives_ranking")
    torch.testing.assert_close(value[9], value[None], atol=1e-5, rtol=1e-5)
    for name, gradient in gradients[None].items():
        torch.testing.assert_close(gradients[9][name], gradient, atol=1e-5, rtol=1e-5, msg=name)


def test_a_chunk_that_is_computed_again_draws_the_same_dropout(monkeypatch):
    def gradients():
        model = build_bert(hidden_dropout_prob=0.3)
        bind_bi_encoder(model, "mean", chunk_tokens=9, attention_dropout=0.3)
        torch.manual_seed(5)
        return gradients_of(model, batch_of(with_groups=True), "cached_multiple_negatives_ranking")[1]

    twice = gradients()
    monkeypatch.setattr(bi_encoder, "checkpoint", lambda function, part, use_reentrant: function(part))
    for name, gradient in gradients().items():
        torch.testing.assert_close(twice[name], gradient, atol=1e-6, rtol=1e-6, msg=name)


@pytest.mark.parametrize("scheme, expected", [(BINARY, [1.0, 0.0]), (SCORES, [5.0, 0.0])])
def test_a_score_is_the_cosine_in_the_labels_range(scheme, expected):
    model = build_bert().eval()
    bind_bi_encoder(model, "mean")
    pairs = Pairs(["a cold", "a cold"], ["a cold", "winter"], LABELS[:2], ["p:1", "p:2"])
    if scheme is SCORES:
        pairs = Pairs(pairs.sentence1, pairs.sentence2, np.float32([5, 0]), pairs.places)
    rows = PairTexts(pairs, scheme, TOKENIZER, 32, flat=True, with_rows=True)
    columns = score_embedded_pairs(model, rows.build_batch([Item(1, FROZEN), Item(0, FROZEN)]), scheme=scheme)
    vectors = encode_texts(SentenceEncoder(build_bert(), TOKENIZER, "mean", 32), ["a cold", "winter"])
    cosine = float(vectors[0] @ vectors[1])
    assert columns["row"].tolist() == [1, 0]
    assert columns["score"].tolist() == pytest.approx(
        [cosine * scheme.high if scheme is SCORES else cosine, expected[0]]
    )
    assert columns["label"].tolist() == pytest.approx([0.0, 5.0] if scheme is SCORES else [0, 1])


def test_a_filler_reaches_every_weight_with_nothing():
    model = build_bert()
    bind_bi_encoder(model, "mean")
    batch = pair_texts().build_batch([Item(0, 0, is_filler=True)])
    _, gradients = gradients_of(model, batch, "online_contrastive")
    wanted = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert set(gradients) == wanted and not any(name.startswith("pooler") for name in wanted)
    assert all(not gradient.any() for gradient in gradients.values())


def toy_pairs(seed, count=96):
    """Pairs that mean the same where both name one thing, hidden among words that say nothing."""
    draw = np.random.default_rng(seed)
    things, rest = ["cold", "cure", "winter", "home"], ["a", "for", "how", "bad", "is", "treat", "what", "best"]
    labels = draw.integers(0, 2, count)
    first = draw.integers(0, 4, count)
    second = np.where(labels == 1, first, (first + draw.integers(1, 4, count)) % 4)
    left, right = (
        [" ".join(draw.permutation([things[thing], *draw.choice(rest, 3)])) for thing in column]
        for column in (first, second)
    )
    return Pairs(left, right, labels, left)


def toy_trainer(model, flat, folder, loss="online_contrastive", **settings):
    arguments = TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
        **settings,
    )
    return StageTrainer(
        model=model,
        args=arguments,
        train_dataset=PairTexts(toy_pairs(0), BINARY, TOKENIZER, 24, flat=flat),
        eval_dataset=PairTexts(toy_pairs(1), BINARY, TOKENIZER, 24, flat=flat, with_rows=True),
        compute_loss_func=embedding_loss(loss),
        score_batch=lambda model, batch: score_embedded_pairs(model, batch, scheme=BINARY),
        row_metrics=lambda columns: cosine_row_metrics(columns, scheme=BINARY),
    )


@pytest.mark.parametrize("loss", ["online_contrastive", "cosent"])
def test_training_improves_average_precision_on_a_separable_problem(loss, tmp_path):
    model = build_bert()
    trainer = toy_trainer(model, bind_bi_encoder(model, "mean"), tmp_path, loss, max_steps=120)
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_average_precision"] < 0.8
    assert after["eval_average_precision"] > 0.95


@pytest.mark.parametrize("with_norm", [False, True])
def test_a_trained_model_is_saved_as_sentence_transformers_reads_it(with_norm, tmp_path):
    model = build_bert()
    flat = bind_bi_encoder(model, "mean", head=HeadNorm(32) if with_norm else None)
    trainer = toy_trainer(model, flat, tmp_path, max_steps=8)
    trainer.train()
    loader = trainer.get_eval_dataloader()
    scores = trainer.score_dataset(loader)["score"]
    encoder = take_encoder(model, TOKENIZER, "mean", 24)
    save_sentence_encoder(encoder, tmp_path / "saved")
    loaded = SentenceTransformer(str(tmp_path / "saved"), device="cpu")
    assert [type(module).__name__ for module in loaded] == [
        "Transformer", "Pooling", *["Dense"] * with_norm, "Normalize"
    ]  # fmt: skip
    pairs = toy_pairs(1)
    vectors = [loaded.encode(column) for column in (pairs.sentence1, pairs.sentence2)]
    np.testing.assert_allclose((vectors[0] * vectors[1]).sum(1), scores, atol=1e-5)
    np.testing.assert_allclose(vectors[0], encode_texts(encoder, pairs.sentence1), atol=1e-5)
    np.testing.assert_allclose(trainer.score_dataset(loader)["score"], scores, atol=1e-5)  # it goes on scoring
    plain, info = AutoModel.from_pretrained(tmp_path / "saved", output_loading_info=True)
    assert type(plain) is BertModel and not info["missing_keys"] and not info["unexpected_keys"]


def test_a_head_norm_survives_a_checkpoint(tmp_path):
    trainers = []
    for _ in range(2):
        model = build_bert()
        flat = bind_bi_encoder(model, "mean", head=HeadNorm(32))
        trainers.append(toy_trainer(model, flat, tmp_path, max_steps=4))
    trained, again = trainers
    trained.train()
    trained.save_model(str(tmp_path / "checkpoint-4"))
    again._load_from_checkpoint(str(tmp_path / "checkpoint-4"))
    weights = again.model.state_dict()
    assert weights["sentence_head.running_mean"].any()
    for name, values in trained.model.state_dict().items():
        torch.testing.assert_close(weights[name], values, msg=name)
