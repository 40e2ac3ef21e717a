"""A finished model scores pairs alike through every way to it: ours, plain transformers, sentence-transformers."""

import csv
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import POOLINGS
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.stages import finetune, score
from pair_pkg.stages.predictions import read_predictions

NAMES = ("contradiction", "entailment", "neutral")
CROSS = {  # kind of labels -> label of a row, and more flags
    "binary": (lambda row: row % 2, []),
    "one logit": (lambda row: row % 2, ["--num_labels=1"]),
    "one order": (lambda row: row % 2, ["--no_symmetric"]),
    "classes": (lambda row: NAMES[row % 3], []),
    "scores": (lambda row: row % 11 / 2, ["--label_range", "0", "5"]),
}


def write(path, rows, header):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return str(path)


@pytest.fixture(scope="module")
def wide_bert(tmp_path_factory, tiny_bert):
    """A checkpoint with large weights, whose scores of (A, B) and (B, A) lie well apart."""
    folder = tmp_path_factory.mktemp("models") / "wide_bert"
    model = AutoModel.from_pretrained(tiny_bert)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(8 if parameter.ndim > 1 else 1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_bert).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def train(tmp_path_factory, wide_bert, tiny_pairs):
    """``train(label_of_row, *flags)``: the folder of a trained model."""

    def run(label_of_row, *more):
        folder = tmp_path_factory.mktemp("score")
        rows = [
            (tiny_pairs[row][0], tiny_pairs[row if row % 2 else row + 60][1], label_of_row(row)) for row in range(60)
        ]
        flags = {
            "model_name_or_path": wide_bert,
            "train_file": write(folder / "pairs.csv", rows, ("sentence1", "sentence2", "label")),
            "output_dir": folder / "out",
            "max_seq_length": 24,
            "num_train_epochs": 3,
            "learning_rate": 3e-4,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        }
        finetune.main([*(f"--{name}={value}" for name, value in flags.items()), *more])
        return folder / "out"

    return run


@pytest.fixture(scope="module", params=CROSS)
def cross(request, train):
    label_of_row, flags = CROSS[request.param]
    return request.param, train(label_of_row, *flags)


@pytest.fixture
def texts(tiny_pairs):
    """31 pairs, some far longer than the model reads."""
    left = [" ".join(tiny_pairs[row][0] for row in range(start, start + 1 + start % 4)) for start in range(31)]
    return left, [tiny_pairs[row + 90][1] for row in range(31)]


def plain(folder, left, right):
    """Logits by plain transformers, pairs cut as the tokenizer says."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        batches = [tokenizer(*pair, truncation=True, return_tensors="pt") for pair in zip(left, right)]
        return torch.cat([model(**batch).logits for batch in batches]).double().numpy()


def bare(kind, logits):
    """What our scores are of logits."""
    if kind == "classes":
        return logits
    if kind == "scores":
        return 5 * logits[:, 0]
    return logits[:, 0] if kind == "one logit" else logits[:, 1] - logits[:, 0]


def test_plain_transformers_give_our_scores(cross, texts):
    kind, folder = cross
    left, right = texts
    scorer = load_scorer(str(folder))
    forward, backward = bare(kind, plain(folder, left, right)), bare(kind, plain(folder, right, left))
    np.testing.assert_allclose(scorer.score(left, right, symmetric=False), forward, atol=1e-5)
    np.testing.assert_allclose(scorer.score(left, right, symmetric=True), (forward + backward) / 2, atol=1e-5)
    averaged = kind not in ("one order", "classes")
    assert np.array_equal(scorer.score(left, right), scorer.score(left, right, symmetric=averaged))
    if averaged:  # the two orders differ, or nothing would be shown here
        assert np.abs(forward - backward).max() > 1e-3
        np.testing.assert_allclose(scorer.score(left, right), scorer.score(right, left), atol=1e-6)


def test_the_librarys_cross_encoder_gives_our_scores(cross, texts):
    kind, folder = cross
    model, ours = CrossEncoder(str(folder), device="cpu"), load_scorer(str(folder)).score(*texts, symmetric=False)
    found = model.predict(list(zip(*texts)), convert_to_numpy=True).astype(np.float64)
    if kind == "one logit":  # it applies a sigmoid to one output
        np.testing.assert_allclose(found, 1 / (1 + np.exp(-ours)), atol=1e-5)
    elif kind == "scores":  # outputs lie in [0, 1]
        np.testing.assert_allclose(5 * found, ours, atol=1e-5)
    else:
        np.testing.assert_allclose(bare(kind, found), ours, atol=1e-5)


def test_the_scorer_repeats_the_test_predictions(cross):
    kind, folder = cross
    test = read_predictions(folder)
    predicted = load_scorer(str(folder)).predict(test.sentence1, test.sentence2)
    if kind == "scores":
        assert predicted.probabilities is None and predicted.verdicts is None
        np.testing.assert_allclose(predicted.scores, test.scores, atol=1e-5)
    else:
        np.testing.assert_allclose(predicted.probabilities, test.scores, atol=1e-4)
        names = json.loads((folder / "run.json").read_text())["labels"]["names"]
        assert predicted.verdicts == [names[class_id] for class_id in test.decided]


def test_one_pair_is_scored_as_among_many(cross, texts, capsys):
    kind, folder = cross
    scorer = load_scorer(str(folder))
    many, one = scorer.predict(*texts), scorer.predict_one(texts[0][3], texts[1][3])
    np.testing.assert_allclose(one.score, many.scores[3], atol=1e-6)
    printed = score.main(["--model", str(folder), "--sentences", texts[0][3], texts[1][3]])
    assert printed["score"] == pytest.approx(one.score) and capsys.readouterr().out.count("\n") == 1
    if kind != "scores":
        assert one.verdict == many.verdicts[3]
        assert one.probability == pytest.approx(many.probabilities[3].max())
        assert one.threshold == (None if kind == "classes" else scorer.decision.threshold)


@pytest.mark.parametrize("flags", [[f"--pooling={pooling}"] for pooling in POOLINGS] + [["--head_norm=batch"]])
def test_the_librarys_sentence_encoder_gives_our_cosines(train, texts, flags):
    folder = train(lambda row: row % 2, "--architecture=bi_encoder", *flags)
    model = SentenceTransformer(str(folder), device="cpu")
    vectors = [model.encode(column) for column in texts]
    found = load_scorer(str(folder)).score(*texts)
    np.testing.assert_allclose(found, (vectors[0] * vectors[1]).sum(1), atol=1e-5)


def variants(text):
    """The text as other keyboards, files and operating systems write it."""
    wide = "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)
    return [f"  {text}\n", f"\u3000{text}\u00a0", wide, unicodedata.normalize("NFD", text), text.upper()]


@pytest.mark.parametrize("architecture", ["cross_encoder", "bi_encoder"])
def test_texts_that_look_alike_score_alike_in_every_library(train, architecture):
    folder = str(train(lambda row: row % 2, f"--architecture={architecture}"))
    scorer, text, other = load_scorer(folder), "the old pump Café leaks", "a small valve sticks"
    [expected] = scorer.score([text], [other])
    for variant in variants(text):  # the tokenizer is uncased, so capitals are one of them
        assert scorer.score([variant], [other]) == pytest.approx([expected], abs=1e-6), repr(variant)
        if architecture == "bi_encoder":
            plain = SentenceTransformer(folder, device="cpu").encode([text, variant])
        else:
            plain = CrossEncoder(folder, device="cpu").predict([(text, other), (variant, other)])
        np.testing.assert_allclose(plain[1], plain[0], atol=1e-6)


def test_without_normalization_the_tokenizer_is_left_as_it_is(train, tiny_bert):
    folder = str(train(lambda row: row % 2, "--text_normalization=none"))
    files = [json.loads(Path(path, "tokenizer.json").read_text(encoding="utf-8")) for path in (folder, tiny_bert)]
    assert files[0]["normalizer"] == files[1]["normalizer"]
    scorer = load_scorer(folder)
    assert scorer.score(["ｔｈｅ　ｏｌｄ　ｐｕｍｐ"], ["a small valve"]) != scorer.score(
        ["the old pump"], ["a small valve"]
    )


@pytest.fixture(scope="module")
def binary(train):
    return train(lambda row: row % 2)


def test_a_file_with_labels_is_measured_at_the_stored_threshold(binary, tmp_path, caplog, monkeypatch):
    test, out = read_predictions(binary), tmp_path / "deep" / "scored.csv"
    monkeypatch.setattr(score, "set_up_logging", lambda: None)  # which would take the log from caplog
    caplog.set_level("INFO", "pair_pkg")
    rows = list(zip(test.sentence1, test.sentence2, ["yes" if label else "no" for label in test.labels]))
    file = write(tmp_path / "new.csv", rows, ("question1", "question2", "is_duplicate"))
    found = score.main(["--model", str(binary), file, "--output", str(out)])
    record = json.loads((binary / "run.json").read_text())
    assert found["pairs"] == len(rows) and found["metrics"] == record["metrics"]["test"]
    assert f"accuracy {found['metrics']['correct']}/{len(rows)} = " in caplog.text
    written = list(csv.DictReader(out.open(encoding="utf-8")))
    assert [row["label"] for row in written] == [str(label) for label in test.labels]
    np.testing.assert_allclose([float(row["score"]) for row in written], test.scores, atol=1e-6)


def test_prediction_without_training_gives_the_same_file(binary, tmp_path, capsys):
    rows = [("the old pump leaks", "a small valve sticks"), ("the old pump leaks", "the old pump leaks")]
    file = write(tmp_path / "new.csv", rows, ("sentence1", "sentence2"))
    words = [f"--model_name_or_path={binary}", "--do_predict", f"--predict_file={file}", "--use_cpu", "--bf16=false"]
    finetune.main([*words, f"--output_dir={tmp_path / 'predicted'}"])
    capsys.readouterr()
    assert score.main(["--model", str(binary), file]) == {"pairs": 2}
    assert capsys.readouterr().out == (tmp_path / "predicted" / "predictions.csv").read_text(encoding="utf-8")


def test_a_column_that_holds_no_labels_is_passed_over_unless_it_was_named(binary, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(score, "set_up_logging", lambda: None)
    file = write(tmp_path / "scored.csv", [("a", "b", 0.37)], ("sentence1", "sentence2", "score"))
    assert score.main(["--model", str(binary), file]) == {"pairs": 1}
    assert "not measured, for the labels do not fit the model" in caplog.text
    with pytest.raises(InputError, match="label '0.37'"):
        score.main(["--model", str(binary), file, "--label_column", "score"])


def test_figures_are_those_of_the_metrics(binary, tmp_path):
    rows = [("the old pump leaks", "a small valve sticks", 1), ("the old pump leaks", "it hums", 0)]
    file = write(tmp_path / "new.csv", rows, ("sentence1", "sentence2", "label"))
    scorer = load_scorer(str(binary))
    probabilities = scorer.predict(*zip(*[row[:2] for row in rows])).probabilities
    expected = compute_pair_metrics("binary", probabilities, [1, 0], scorer.decision.threshold)
    assert score.main(["--model", str(binary), file])["metrics"] == expected


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "give files of pairs, or two sentences"),
        (["pairs.csv", "--sentences", "a", "b"], "give files of pairs, or two sentences"),
        (["pairs.csv", "--output", "scored.json"], "--output scored.json: scores are written as csv"),
        (["pairs.csv"], "holds no run.json of a fine-tuned model"),
    ],
)
def test_what_cannot_be_scored_is_refused(tiny_bert, words, message):
    with pytest.raises(InputError, match=message):
        score.main(["--model", tiny_bert, *words])


def test_no_pairs_have_no_scores(cross):
    kind, folder = cross
    assert load_scorer(str(folder)).score([], []).shape == ((0, 3) if kind == "classes" else (0,))
