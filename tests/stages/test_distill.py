"""Distillation: pairs of the corpus only, scored as the teacher scores, continued after a break, a plain bi-encoder."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from pair_pkg.__main__ import main
from pair_pkg.data.splits import normalize_text
from pair_pkg.errors import InputError
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.pairs.words import word_overlaps
from pair_pkg.stages import distillation_pairs, finetune
from pair_pkg.stages.predictions import read_predictions

TRAINING = ["--save_strategy=no", "--bf16=false", "--use_cpu=true", "--max_seq_length=40", "--learning_rate=1e-3"]


def write_pairs(path, rows):
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *rows])
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory, tiny_pairs):
    """A corpus of one sentence a line, pairs to train on, and test pairs, one of whose texts is in the corpus."""
    folder = tmp_path_factory.mktemp("files")
    rows = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 40][1], n % 2) for n in range(40)]
    test = [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 20][1], n % 2) for n in range(80, 100)]
    corpus = [text for pair in tiny_pairs[120:] for text in pair] + [test[0][0].upper(), "too short"]
    corpus += [f"{first}, {second}" for (first, _), (_, second) in zip(tiny_pairs[120:], tiny_pairs[130:])]
    (folder / "corpus.txt").write_text("\n".join([*corpus, corpus[0]]) + "\n", encoding="utf-8")
    return folder, write_pairs(folder / "train.csv", rows), write_pairs(folder / "test.csv", test)


@pytest.fixture(scope="module")
def teacher(files, tiny_bert, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "cross"
    words = [f"--model_name_or_path={tiny_bert}", f"--train_file={files[1]}", f"--output_dir={folder}"]
    finetune.main([*words, *TRAINING, "--num_train_epochs=15"])
    return str(folder)


@pytest.fixture
def words(files, teacher, tiny_bert, tmp_path):
    def build(*more, labelled=True):
        flags = {
            "teacher": teacher, "student": tiny_bert, "corpus": files[0] / "corpus.txt", "num_pairs": 300,
            "output_dir": tmp_path / "student", "max_steps": 4, "validation_split_percentage": 20,
        }  # fmt: skip
        given = [f"--train_file={files[1]}", f"--test_file={files[2]}"] if labelled else []
        return ["distill", *(f"--{name}={value}" for name, value in flags.items()), *TRAINING, *given, *map(str, more)]

    return build


def read_rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def read_json(path):
    return json.loads(Path(path).read_text(encoding="utf-8"))


def test_the_student_learns_the_teachers_scores_and_is_a_plain_bi_encoder(words, tmp_path, files, teacher):
    metrics = main(words())
    out = tmp_path / "student"
    train, validation = (read_rows(out / "mined" / f"{name}.csv") for name in ("train", "validation"))

    mined = [row for row in train + validation if row["source"] != "labelled"]
    assert {row["source"] for row in mined} == {"nearest", "neighbour", "random"}
    scored = load_scorer(teacher).predict([row["sentence1"] for row in mined], [row["sentence2"] for row in mined])
    np.testing.assert_allclose([float(row["label"]) for row in mined], scored.probabilities, atol=0.0051)
    labelled = [row for row in train if row["source"] == "labelled"]
    assert {row["label"] for row in labelled} == {"0.00", "1.00"} and len(labelled) == read_json(out / "run.json")[
        "pairs"
    ]["mined"]["labelled"]

    texts = [
        {normalize_text(row[name]) for row in rows for name in ("sentence1", "sentence2")}
        for rows in (train, validation)
    ]
    assert not texts[0] & texts[1]
    held_out = {normalize_text(text) for row in read_rows(files[2]) for text in (row["sentence1"], row["sentence2"])}
    assert not (texts[0] | texts[1]) & held_out and "too short" not in texts[0] | texts[1]
    pairs = [frozenset(map(normalize_text, (row["sentence1"], row["sentence2"]))) for row in mined]
    assert len(set(pairs)) == len(pairs) and all(len(pair) == 2 for pair in pairs)

    test = read_predictions(out)
    assert test.sentence1 == [row["sentence1"] for row in read_rows(files[2])]
    threshold = read_json(out / "decision.json")["threshold"]
    assert metrics["test"] == compute_pair_metrics("binary", test.scores, test.labels, threshold)
    verdicts = load_scorer(str(out)).predict(test.sentence1, test.sentence2)
    np.testing.assert_allclose(verdicts.probabilities, test.scores, atol=1e-6)
    vectors = [
        SentenceTransformer(str(out), device="cpu").encode(column) for column in (test.sentence1, test.sentence2)
    ]
    np.testing.assert_allclose((vectors[0] * vectors[1]).sum(1), verdicts.scores, atol=1e-5)
    section = read_json(out / "run.json")["distillation"]
    assert set(section["compared"]) == {"teacher", "untrained student", "student"}
    assert (
        section["decision_fitted_on"] == "labelled validation pairs" and section["judged_on"] == "labelled test pairs"
    )


def test_without_labelled_pairs_the_teacher_decides(words, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation_pairs, "teacher_scores", lambda _, *pairs: word_overlaps(*pairs))  # can be learnt
    metrics = main(words("--max_steps=40", labelled=False))
    section = metrics["distillation"]
    assert section["decision_fitted_on"] == section["judged_on"] == "the teacher's verdicts"
    assert section["compared"]["teacher"]["accuracy"] == 1
    agreement = section["spearman_with_teacher"]
    assert agreement["student"] > agreement["untrained student"] + 0.1
    assert read_json(tmp_path / "student" / "run.json")["labels"]["kind"] == "binary"


def test_nothing_is_done_twice_and_a_break_continues(words, tmp_path, monkeypatch):
    monkeypatch.setattr(distillation_pairs, "CHUNK_PAIRS", 100)
    scored, original = [], distillation_pairs.teacher_scores

    def score(teacher, sentence1, sentence2):
        if len(scored) == 2:
            raise KeyboardInterrupt
        scored.append(len(sentence1))
        return original(teacher, sentence1, sentence2)

    monkeypatch.setattr(distillation_pairs, "teacher_scores", score)
    with pytest.raises(KeyboardInterrupt):
        main(words())
    monkeypatch.setattr(
        distillation_pairs, "teacher_scores", lambda *pairs: scored.append(len(pairs[1])) or original(*pairs)
    )
    first = main(words())
    out = tmp_path / "student"
    assert sum(scored) == len(read_rows(out / "mined" / "candidates.csv"))  # each pair once, over both runs
    del scored[:]
    assert main(words()) == json.loads(json.dumps(first)) and not scored
    whole = read_rows(out / "mined" / "train.csv")
    shutil.rmtree(out)
    main(words())
    assert read_rows(out / "mined" / "train.csv") == whole
    del scored[:]
    with pytest.raises(InputError, match="train_pairs"):
        main(words("--num_pairs=200"))
    assert scored  # other settings are other pairs


@pytest.mark.parametrize(
    "more, message",
    [
        (["--teacher={student}"], "holds no run.json of a fine-tuned model"),
        (["--model_name_or_path=x"], "--model_name_or_path is not served"),
        (["--seeds", "1", "2", "--do_train", "--do_eval"], "--seeds is not served"),
        (["--architecture=cross_encoder"], "invalid choice: 'cross_encoder'"),
        (["--num_pairs=5"], "--num_pairs 5 is out of range"),
        (["--validation_split_percentage=1"], "too few to pair"),
        (["--loss=contrastive"], "these are scores"),
    ],
)
def test_what_cannot_be_distilled_is_refused(words, tiny_bert, more, message):
    with pytest.raises(InputError, match=message):
        main(words(*(word.format(student=tiny_bert) for word in more)))


def test_a_teacher_that_tells_nothing_apart_is_refused(words, monkeypatch):
    monkeypatch.setattr(distillation_pairs, "teacher_scores", lambda _, first, __: np.full(len(first), 0.5))
    with pytest.raises(InputError, match="says the same of every pair"):
        main(words())


def test_the_corpus_is_asked_for():
    with pytest.raises(InputError, match="--corpus is missing"):
        main(["distill", "--teacher=a", "--student=b", "--output_dir=c"])
