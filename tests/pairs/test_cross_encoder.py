"""The bound cross-encoder equals the stock classifier, and its losses and scores are those done by hand."""

import math

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    CamembertConfig,
    CamembertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    TrainingArguments,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import InputError
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.loss import pair_loss, pair_losses, pair_row_metrics, pair_scores, pair_targets, score_pairs
from pair_pkg.training.trainer import StageTrainer

BINARY = LabelScheme("binary", ["different", "same"])
CLASSES = LabelScheme("classes", ["no", "maybe", "yes"])
SCORES = LabelScheme("scores", [], 0.0, 5.0)
LEFT = ["how to treat a cold", "a cold", "what is the best cure for a very bad cold in winter", "winter", "cure a cold"]
RIGHT = ["cure for a cold", "what is a cold", "a cure", "how bad is winter", "how to treat a very bad cold at home"]
TOKENIZER = train_tokenizer([*LEFT, *RIGHT] * 3, 120)

SIZES = dict(
    vocab_size=120, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, pad_token_id=0
)
PLAIN = dict(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, max_position_embeddings=64)
CLASSIFIERS = {
    "bert": (BertForSequenceClassification, BertConfig, PLAIN),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, PLAIN),
    "xlm-roberta": (XLMRobertaForSequenceClassification, XLMRobertaConfig, PLAIN),
    "camembert": (CamembertForSequenceClassification, CamembertConfig, PLAIN),
    "modernbert": (ModernBertForSequenceClassification, ModernBertConfig, {"classifier_pooling": "cls"}),
}


def build(name, **settings):
    model_class, config_class, plain = CLASSIFIERS[name]
    torch.manual_seed(0)
    wide = {"initializer_range": 0.2}  # logits and gradients beside which 1e-5 is small
    return model_class(config_class(**SIZES, **wide, **plain | settings)).train()


def pairs_of(labels):
    return Pairs(LEFT, RIGHT, labels, [f"pairs:{row}" for row in range(len(LEFT))])


def batch_of(scheme, labels, flat, is_filler=False, with_rows=False):
    rows = PairRows(pairs_of(labels), scheme, TOKENIZER, 32, flat=flat, with_rows=with_rows)
    return rows.build_batch([Item(row, FROZEN, is_filler) for row in range(len(LEFT))])


def logits_and_gradients(model, batch, kind="classes"):
    model.zero_grad()
    labels = batch.pop("labels")
    outputs = model(**batch)
    pair_loss(kind)(outputs, labels).backward()
    return outputs.logits.detach(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_flat_batches_give_the_stock_logits_and_gradients(name):
    labels = np.array([0, 1, 2, 1, 0])
    model, stock = build(name, num_labels=3), build(name, num_labels=3)
    assert bind_cross_encoder(model)
    padded = batch_of(CLASSES, labels, flat=False)
    del padded["wanted"]
    expected_logits, expected = logits_and_gradients(stock, padded)
    logits, gradients = logits_and_gradients(model, batch_of(CLASSES, labels, flat=True))
    torch.testing.assert_close(logits, expected_logits, atol=1e-5, rtol=1e-5)
    assert expected["classifier.weight" if "classifier.weight" in expected else "classifier.out_proj.weight"].any()
    for parameter, gradient in expected.items():
        if gradient is not None:
            torch.testing.assert_close(gradients[parameter], gradient, atol=1e-5, rtol=1e-5, msg=parameter)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_checkpoint_is_a_plain_one(name, tmp_path):
    model = build(name, num_labels=2)
    bind_cross_encoder(model)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(again) is type(model) and not info["missing_keys"] and not info["unexpected_keys"]


@pytest.mark.parametrize(
    "build_stock, reason",
    [
        (lambda: build("modernbert", classifier_pooling="mean"), "its head pools all tokens (mean)"),
        (
            lambda: DistilBertForSequenceClassification(
                DistilBertConfig(vocab_size=120, dim=32, n_layers=1, n_heads=4, hidden_dim=48, dropout=0.0)
            ),
            "DistilBertModel has no padding-free forward here",
        ),
    ],
    ids=["mean pooling", "another architecture"],
)
def test_other_heads_take_the_stock_forward_and_say_so_once(build_stock, reason, caplog):
    model = build_stock().eval()
    padded = batch_of(BINARY, np.array([0, 1, 0, 1, 1]), flat=False)
    inputs = {name: padded[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    expected = model(**inputs).logits
    assert not bind_cross_encoder(model)
    assert [record.getMessage() for record in caplog.records] == [
        f"the stock forward is used, on padded batches: {reason}"
    ]
    assert torch.equal(model(**inputs, wanted=padded["wanted"]).logits, expected)


@pytest.mark.parametrize("why_stock", [None, "the caller's reason"])
def test_a_filler_contributes_no_loss_no_count_and_no_gradient(why_stock):
    model = build("bert", num_labels=2)
    flat = bind_cross_encoder(model, why_stock=why_stock)
    batch = batch_of(BINARY, np.array([0, 1, 0, 1, 1]), flat=flat, is_filler=True)
    labels = batch.pop("labels")
    loss = pair_loss("binary")(model(**batch), labels, num_items_in_batch=torch.tensor(7))
    loss.backward()
    assert loss.item() == 0 and labels.ne(-100).sum() == 0
    # every weight has a gradient, as DDP wants, and it is zero
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in model.parameters())


def test_attention_dropout_is_the_one_given():
    labels = np.array([0, 1, 0, 1, 1])
    outcomes = []
    for probability in (0.0, 0.5):
        model = build("bert", num_labels=2)
        bind_cross_encoder(model, attention_dropout=probability)
        outcomes.append(logits_and_gradients(model, batch_of(BINARY, labels, flat=True), "binary")[0])
    assert not torch.allclose(*outcomes)


def test_losses_by_hand():
    two = pair_losses("binary", torch.tensor([[0.0, math.log(3)], [0.0, math.log(3)]]), torch.tensor([1, 0]))
    one = pair_losses("binary", torch.tensor([[math.log(3)], [math.log(3)]]), torch.tensor([1, 0]))
    by_hand = torch.tensor([-math.log(0.75), -math.log(0.25)])
    torch.testing.assert_close(two, by_hand)
    torch.testing.assert_close(one, by_hand)
    squared = pair_losses("scores", torch.tensor([[0.5], [1.5]]), torch.tensor([0.25, 1.0]))
    torch.testing.assert_close(squared, torch.tensor([0.0625, 0.25]))
    three = pair_losses("classes", torch.zeros(1, 3), torch.tensor([2]))
    torch.testing.assert_close(three, torch.tensor([math.log(3)]))


def test_the_loss_is_a_sum_over_the_items_of_the_whole_step():
    outputs, labels = SequenceClassifierOutput(logits=torch.tensor([[0.5], [1.5]])), torch.tensor([0.0, 1.0])
    assert pair_loss("scores")(outputs, labels).item() == pytest.approx(0.25)
    assert pair_loss("scores")(outputs, labels, num_items_in_batch=torch.tensor(8)).item() == pytest.approx(0.0625)


def test_scores_by_hand():
    log3 = math.log(3)
    assert pair_scores(BINARY, torch.tensor([[1.0, 1 + log3], [5.0, 5.0]])).tolist() == pytest.approx([log3, 0.0])
    assert pair_scores(BINARY, torch.tensor([[log3], [0.0]])).tolist() == pytest.approx([log3, 0.0])
    assert pair_scores(CLASSES, torch.tensor([[1.0, 2.0, 0.5]])).tolist() == [[1.0, 2.0, 0.5]]
    shifted = LabelScheme("scores", [], -1.0, 1.0)
    assert pair_scores(shifted, torch.tensor([[0.0], [0.75], [1.25]])).tolist() == pytest.approx([-1.0, 0.5, 1.5])


def test_targets_and_scores_are_inverse():
    labels = np.array([0.0, 1.3, 5.0], dtype=np.float32)
    logits = torch.from_numpy(pair_targets(SCORES, labels)).unsqueeze(1)
    assert pair_scores(SCORES, logits).numpy() == pytest.approx(labels, abs=1e-6)


@pytest.mark.parametrize(
    "scheme, labels, num_labels",
    [
        (BINARY, np.array([0, 1, 0, 1, 1]), 1),
        (BINARY, np.array([0, 1, 0, 1, 1]), 2),
        (CLASSES, np.array([0, 1, 2, 1, 0]), 3),
        (SCORES, np.array([0.0, 5.0, 2.5, 1.0, 4.0], dtype=np.float32), 1),
    ],
    ids=["one logit", "two logits", "classes", "scores"],
)
def test_columns_and_metrics_of_an_evaluation(scheme, labels, num_labels):
    model = build("bert", num_labels=num_labels).eval()
    bind_cross_encoder(model)
    batch = batch_of(scheme, labels, flat=True, with_rows=True)
    columns = {name: values.detach().numpy() for name, values in score_pairs(model, batch, scheme=scheme).items()}
    assert columns["label"] == pytest.approx(labels[columns["row"]])
    logits = model(**{name: batch[name] for name in batch.keys() - {"labels", "rows"}}).logits
    metrics = pair_row_metrics(columns, scheme=scheme)
    assert metrics["loss"] == pytest.approx(pair_losses(scheme.kind, logits, batch["labels"]).mean().item())
    if scheme.kind == "classes":
        decided = logits.argmax(1)
        assert columns["score_2"] == pytest.approx(logits[:, 2].detach().numpy())
    elif scheme.kind == "binary":
        decided = (logits[:, 0] > 0) if num_labels == 1 else logits.argmax(1)
    else:
        wrong = 5 * logits[:, 0].detach().numpy() - labels[columns["row"]]
        assert metrics["mean_squared_error"] == pytest.approx((wrong**2).mean(), rel=1e-5)
        return
    assert metrics["correct"] == (decided.int() == batch["labels"]).sum().item()


def test_unlabelled_pairs_are_scored_without_loss():
    model = build("bert", num_labels=2).eval()
    bind_cross_encoder(model)
    assert score_pairs(model, batch_of(BINARY, None, flat=True, with_rows=True), scheme=BINARY).keys() == {
        "row",
        "score",
    }


@pytest.mark.parametrize(
    "scheme, num_labels, problem, names",
    [
        (BINARY, None, "single_label_classification", ["different", "same"]),
        (BINARY, 1, "multi_label_classification", ["same"]),
        (CLASSES, None, "single_label_classification", ["no", "maybe", "yes"]),
        (SCORES, None, "regression", ["score"]),
    ],
)
def test_the_configuration_says_what_the_outputs_mean(scheme, num_labels, problem, names, tmp_path):
    config = BertConfig(num_labels=5)
    configure_labels(config, scheme, num_labels)
    config.save_pretrained(tmp_path)
    config = BertConfig.from_pretrained(tmp_path)
    assert (config.num_labels, config.problem_type) == (len(names), problem)
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: class_id for class_id, name in enumerate(names)}


@pytest.mark.parametrize("scheme, num_labels", [(BINARY, 3), (CLASSES, 2), (SCORES, 2)])
def test_a_wrong_number_of_outputs_is_refused(scheme, num_labels):
    with pytest.raises(InputError, match=f"--num_labels {num_labels}: .* leave it out"):
        configure_labels(BertConfig(), scheme, num_labels)


@pytest.mark.parametrize("num_labels", [1, 2])
def test_a_tiny_bert_learns_a_separable_toy_problem(num_labels, tmp_path):
    generator = np.random.default_rng(0)
    words = ["a", "cold", "cure", "for", "how", "bad", "is", "winter", "treat", "what"]
    labels = generator.integers(0, 2, 96)
    left = [" ".join(generator.choice(words, 4)) for _ in labels]
    right = [" ".join([*generator.choice(words, 3), "home" if label else "best"]) for label in labels]
    pairs = Pairs(left, right, labels, left)
    config = BertConfig(**SIZES, **PLAIN)
    configure_labels(config, BINARY, num_labels)
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    flat = bind_cross_encoder(model)
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=60,
        per_device_train_batch_size=16,
        learning_rate=3e-3,
        use_cpu=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=1,
    )
    trainer = StageTrainer(
        model=model,
        args=arguments,
        train_dataset=PairRows(pairs, BINARY, TOKENIZER, 24, flat=flat),
        eval_dataset=PairRows(pairs, BINARY, TOKENIZER, 24, flat=flat, with_rows=True),
        compute_loss_func=pair_loss(BINARY.kind),
        score_batch=lambda model, batch: score_pairs(model, batch, scheme=BINARY),
        row_metrics=lambda columns: pair_row_metrics(columns, scheme=BINARY),
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert before["eval_accuracy"] < 0.8
    assert after["eval_accuracy"] > 0.9 and after["eval_loss"] < before["eval_loss"] / 2
