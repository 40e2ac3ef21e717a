"""What stage 2 says of its figures: baselines, intervals, slices, the worst pairs, conflicts and shifts."""

import csv
import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoModel, AutoTokenizer

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.embedding import SentenceEncoder
from pair_pkg.modeling.loading import load_config, load_model, load_tokenizer
from pair_pkg.modeling.sentence_folder import save_sentence_encoder
from pair_pkg.pairs.decision import Decision
from pair_pkg.pairs.thresholds import best_threshold
from pair_pkg.stages import finetune
from pair_pkg.stages.pair_evaluation import write_worst
from pair_pkg.stages.pair_testing import ScoredPairs
from pair_pkg.stages.predictions import read_predictions


@pytest.fixture
def rows(tiny_pairs):
    return [(tiny_pairs[n][0], tiny_pairs[n if n % 2 else n + 80][1], n % 2) for n in range(80)]


@pytest.fixture
def run(tiny_bert, tmp_path):
    """``run(rows, "--flag", ...)`` trains two steps and gives the metrics; the folder is ``tmp_path / "out"``."""

    def train(rows, *more, model=tiny_bert, header=("sentence1", "sentence2", "label")):
        with open(tmp_path / "pairs.csv", "w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        flags = {
            "model_name_or_path": model,
            "train_file": tmp_path / "pairs.csv",
            "output_dir": tmp_path / "out",
            "max_seq_length": 40,
            "max_steps": 2,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        }
        return finetune.main([*(f"--{name}={value}" for name, value in flags.items()), *map(str, more)])

    return train


def read_sheet(path):
    with open(path, encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_figures_carry_intervals_slices_and_baselines_into_the_record(run, rows, tmp_path, capsys):
    metrics = run(rows)
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["metrics"] == json.loads(json.dumps(metrics))
    intervals = metrics["intervals"]
    assert intervals["confidence"] == 0.95 and intervals["num_groups"] == metrics["test"]["total"]
    assert set(intervals["bounds"]) == {"model", *metrics["baselines"]}
    low, high = intervals["bounds"]["model"]["accuracy"]
    assert low <= metrics["test"]["accuracy"] <= high
    assert {row["family"] for row in metrics["slices"]} >= {
        "characters",
        "word overlap",
        "negation",
        "numbers",
        "label",
    }
    assert {shift["what"] for shift in record["pairs"]["shift"]} >= {"labels", "vocabulary"}
    printed = capsys.readouterr().out
    assert "95 % interval" in printed and "frozen encoder" in printed and "negation: neither side" in printed
    tables = [line for line in printed.splitlines() if line.startswith(("95 % interval", "negation", "accuracy  "))]
    assert tables and max(map(len, tables)) <= 100


def test_the_frozen_baseline_is_the_cosine_of_mean_vectors_cut_on_the_training_pairs(run, rows, tiny_bert, tmp_path):
    metrics = run(rows)
    test = read_predictions(tmp_path / "out")
    held = {*test.sentence1}
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModel.from_pretrained(tiny_bert).eval()

    def vector(text):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].mean(0)
        return (hidden / hidden.norm()).numpy()

    cosines = np.array([vector(a) @ vector(b) for a, b in zip(test.sentence1, test.sentence2)])
    frozen = metrics["baselines"]["frozen_encoder"]
    assert frozen["correct"] == int(((cosines >= frozen["threshold"]) == test.labels).sum())
    trained = [(a, b, label) for a, b, label in rows if a not in held]
    of_train = np.array([vector(a) @ vector(b) for a, b, _ in trained])
    labels = np.array([label for *_, label in trained])
    # the validation pairs are among ``trained`` here, so the cut is near and not equal
    assert frozen["threshold"] == pytest.approx(best_threshold(of_train, labels), abs=0.1)


def test_a_sentence_transformers_checkpoint_pools_as_its_modules_say(run, rows, tiny_bert, tmp_path):
    model = load_model(AutoModel, tiny_bert, load_config(tiny_bert))
    save_sentence_encoder(SentenceEncoder(model, load_tokenizer(tiny_bert), "cls", 40), tmp_path / "cls")
    frozen = run(rows, model=tmp_path / "cls")["baselines"]["frozen_encoder"]
    test = read_predictions(tmp_path / "out")
    theirs = SentenceTransformer(str(tmp_path / "cls"), device="cpu")
    left, right = (theirs.encode(texts, normalize_embeddings=True) for texts in (test.sentence1, test.sentence2))
    cosines = (left * right).sum(1)
    assert frozen["correct"] == int(((cosines >= frozen["threshold"]) == test.labels).sum())


def test_the_frozen_baseline_can_be_left_out(run, rows):
    assert set(run(rows, "--frozen_baseline", "false")["baselines"]) == {"majority", "word_overlap"}


def test_worst_pairs_are_wrong_confident_and_safe_to_open(tmp_path):
    left = ['=HYPERLINK("http://x")', "花呗\n不能用", "fine", "@cmd"]
    pairs = Pairs(left, ["a", "花呗能用", "fine", "b"], np.array([0, 1, 1, 0]), [f"p.csv:{n}" for n in range(4)])
    scores = np.array([3.0, -2.0, 4.0, 1.0])
    write_worst(
        tmp_path,
        LabelScheme("binary", ["no", "yes"]),
        Decision("binary", 1.0, 0.0, 0.5),
        ScoredPairs("test", pairs, scores),
    )
    sheet = read_sheet(tmp_path / "worst_pairs.csv")
    assert [row["place"] for row in sheet] == ["p.csv:0", "p.csv:1", "p.csv:3"]  # the third is right
    assert [row["sentence1"] for row in sheet] == ['\'=HYPERLINK("http://x")', r"花呗\n不能用", "'@cmd"]
    assert [(row["label"], row["prediction"]) for row in sheet] == [("no", "yes"), ("yes", "no"), ("no", "yes")]
    assert float(sheet[0]["probability"]) == pytest.approx(0.952574) and sheet[0]["error"] == sheet[0]["probability"]
    assert "negation: one side only" in sheet[1]["slices"] and "label: yes" in sheet[1]["slices"]


def test_at_most_fifty_worst_pairs_and_scores_by_their_error(tmp_path):
    labels = np.linspace(0, 5, 120, dtype=np.float32)
    pairs = Pairs(["a"] * 120, ["b"] * 120, labels, [f"p:{n}" for n in range(120)])
    write_worst(tmp_path, LabelScheme("scores", [], 0, 5), None, ScoredPairs("test", pairs, np.full(120, 5.0)))
    sheet = read_sheet(tmp_path / "worst_pairs.csv")
    assert len(sheet) == 50 and sheet[0]["place"] == "p:0" and float(sheet[0]["error"]) == 5
    assert "score" in sheet[0]


def test_sources_of_a_column_become_slices(run, rows):
    marked = [(*row, "forum" if n % 3 else "mail") for n, row in enumerate(rows)]
    metrics = run(marked, header=("sentence1", "sentence2", "label", "source"))
    assert {row["slice"] for row in metrics["slices"] if row["family"] == "source"} <= {"forum", "mail"}


def test_conflicts_are_counted_listed_and_told_in_one_line(run, rows, tmp_path, capsys):
    a, b, label = rows[0]
    run([*rows, (b.upper(), a, 1 - label), (a, b, label)])
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["pairs"]["conflicts"] == {"pairs": 1, "rows": 3}
    sheet = read_sheet(tmp_path / "out" / "conflicts.csv")
    assert [row["label"] for row in sheet] == ["0", "0", "1"] or sorted(row["label"] for row in sheet) == [
        "0",
        "0",
        "1",
    ]
    path = tmp_path / "pairs.csv"
    assert {row["place"] for row in sheet} == {f"{path}:2", f"{path}:82", f"{path}:83"}
    assert len({row["split"] for row in sheet}) == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if "more than one label" in line]
    assert len(lines) == 1 and lines[0].startswith("1 pair with") and "conflicts.csv" in lines[0]


def test_no_conflicts_no_file(run, rows, tmp_path):
    run(rows)
    assert not (tmp_path / "out" / "conflicts.csv").exists()


def test_a_test_file_unlike_the_training_is_told_before_training(run, rows, tmp_path, tiny_pairs, capsys):
    with open(tmp_path / "test.csv", "w", encoding="utf-8", newline="") as file:
        texts = [f"{a} and {b} over and over again" for a, b in tiny_pairs[:90]]
        pairs = [(one, f"{one} once more", 1) for one in texts]
        csv.writer(file).writerows([("sentence1", "sentence2", "label"), *pairs[:59], (*pairs[59][:2], 0)])
    run(rows, f"--test_file={tmp_path / 'test.csv'}", "--dry_run")
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("test differs from train")]
    assert any("longer texts" in message for message in told) and any("its labels" in message for message in told)
