"""The embedded sample data: written again byte for byte, and hard for whoever only counts words."""

import csv
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score

DATA = Path(__file__).parents[2] / "data"
FILES = ("corpus.jsonl", "general.txt", "pairs.csv")
LANGUAGES = ("en", "zh")
HALF_WIDTH_MARK = re.compile(r"[,;:!?]|\.(?!\d)")


def generate(out: Path, *flags: str) -> dict[str, int]:
    command = [sys.executable, str(DATA / "generate.py"), "--out", str(out), *flags]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def sentences(text: str, language: str) -> list[str]:
    return [part for part in re.split(r"(?<=[.!?])\s+" if language == "en" else r"(?<=[。！？])", text) if part]


def tokens(text: str, language: str) -> frozenset[str]:
    """English words, Chinese characters."""
    return frozenset(re.findall(r"\w+" if language == "en" else r"\w", text.lower()))


def components(rows: list[dict[str, str]]) -> list[str]:
    """The component of each row: texts that share a row are connected."""
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            text = parent[text]
        return text

    for row in rows:
        parent[root(row["sentence1"])] = root(row["sentence2"])
    return [root(row["sentence1"]) for row in rows]


@pytest.fixture(scope="module")
def corpus() -> list[dict[str, str]]:
    return [json.loads(line) for line in (DATA / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    with (DATA / "pairs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def of(rows: list[dict[str, str]], language: str) -> list[dict[str, str]]:
    return [row for row in rows if row["language"] == language]


def test_generator_writes_the_same_bytes_and_the_readme_holds_its_counts(tmp_path):
    counts = generate(tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes(), name
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    for language in LANGUAGES:
        for name in ("corpus", "general"):
            documents, total = counts[f"{name}_{language}_documents"], counts[f"{name}_{language}_sentences"]
            assert f"{documents:,} documents, {total:,} sentences" in readme
        assert f"{counts[f'pairs_{language}']:,} pairs" in readme


def test_another_seed_gives_other_texts(tmp_path):
    generate(tmp_path, "--seed", "7")
    assert all((tmp_path / name).read_bytes() != (DATA / name).read_bytes() for name in FILES)


def test_generator_doctests():
    modules = sorted(str(path) for path in DATA.glob("*.py") if path.name != "generate.py")
    result = subprocess.run([sys.executable, "-m", "doctest", *modules], cwd=DATA, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


def test_files_are_small_and_hold_no_open_slot():
    assert sum((DATA / name).stat().st_size for name in FILES) < 2_500_000
    for name in ("general.txt", "pairs.csv"):
        assert not re.search(r"[{}]", (DATA / name).read_text(encoding="utf-8"))


def test_corpus_counts(corpus):
    num_sentences = {lang: sum(len(sentences(row["text"], lang)) for row in of(corpus, lang)) for lang in LANGUAGES}
    total = sum(num_sentences.values())
    assert total >= 4500
    assert 0.5 <= num_sentences["en"] / total <= 0.6
    assert len({row["id"] for row in corpus}) == len(corpus)


def test_documents_have_three_to_twelve_sentences_and_hardly_repeat(corpus):
    assert len({row["text"] for row in corpus}) == len(corpus)
    for language in LANGUAGES:
        documents = [sentences(row["text"], language) for row in of(corpus, language)]
        assert all(3 <= len(document) <= 12 for document in documents)
        every = [sentence for document in documents for sentence in document]
        assert len(set(every)) > 0.95 * len(every)
        assert not any(re.search(r"[{}]", sentence) for sentence in every)


def test_general_text_is_away_from_the_domain():
    lines = (DATA / "general.txt").read_text(encoding="utf-8").splitlines()
    languages = ["zh" if re.search(r"[\u4e00-\u9fff]", line) else "en" for line in lines]
    num_sentences = sum(len(sentences(line, language)) for line, language in zip(lines, languages))
    assert 1400 <= num_sentences <= 1700
    assert 0.4 < languages.count("en") / len(lines) < 0.6
    assert not re.search(r"vacuum|warranty|firmware|Wi-Fi|refund|扫地机|保修|固件|退款", "\n".join(lines))


def test_pair_counts_and_balance(pairs):
    assert len(pairs) >= 1800
    for language in LANGUAGES:
        labels = Counter(row["label"] for row in of(pairs, language))
        assert labels["0"] == labels["1"] >= 400
    assert all(row["sentence1"].strip() and row["sentence2"].strip() for row in pairs)
    assert all(row["sentence1"] != row["sentence2"] for row in pairs)
    assert len({frozenset((row["sentence1"], row["sentence2"])) for row in pairs}) == len(pairs)


def test_kinds_go_with_labels(pairs):
    kinds = {label: {row["kind"] for row in pairs if row["label"] == label} for label in "01"}
    assert kinds["1"] == {"synonym", "rewording"}
    assert {"product", "part", "number", "negation", "direction", "intent"} <= kinds["0"]
    assert not kinds["0"] & kinds["1"]


def test_a_question_is_in_few_pairs_and_components_are_small(pairs):
    texts = Counter(text for row in pairs for text in (row["sentence1"], row["sentence2"]))
    assert max(texts.values()) <= 3
    sizes = Counter(components(pairs)).values()
    assert max(sizes) < 0.05 * len(pairs)
    assert len(sizes) >= 400


def test_components_join_texts_over_several_rows():
    rows = [{"sentence1": a, "sentence2": b} for a, b in ("ab", "cd", "bc", "xy")]
    assert [part == components(rows)[0] for part in components(rows)] == [True, True, True, False]


def test_pairs_are_not_in_the_corpus(corpus, pairs):
    text = {language: "\n".join(row["text"] for row in of(corpus, language)) for language in LANGUAGES}
    assert not [row for row in pairs for side in ("sentence1", "sentence2") if row[side] in text[row["language"]]]


def test_chinese_has_full_width_marks_and_english_none(corpus, pairs):
    texts = {lang: [row["text"] for row in of(corpus, lang)] for lang in LANGUAGES}
    for row in pairs:
        texts[row["language"]] += [row["sentence1"], row["sentence2"]]
    clock = re.compile(r"\d+:\d\d")
    assert not [text for text in texts["zh"] if HALF_WIDTH_MARK.search(clock.sub("", text))]
    assert not [text for text in texts["en"] if re.search(r"[\u3000-\u9fff\uff00-\uffef]", text)]


@pytest.mark.parametrize("language", LANGUAGES)
def test_word_overlap_is_no_answer(pairs, language):
    rows = of(pairs, language)
    labels = np.array([row["label"] == "1" for row in rows])
    sides = [(tokens(row["sentence1"], language), tokens(row["sentence2"], language)) for row in rows]
    overlap = np.array([len(a & b) / len(a | b) for a, b in sides])
    accuracies = [np.mean((overlap >= threshold) == labels) for threshold in np.unique(overlap)]
    assert max(max(accuracies), 1 - min(accuracies)) < 0.65


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_alone_are_no_answer(pairs, language):
    rows = of(pairs, language)
    unions = [tokens(row["sentence1"], language) | tokens(row["sentence2"], language) for row in rows]
    features = CountVectorizer(analyzer=sorted).fit_transform(unions)
    labels = [row["label"] for row in rows]
    model = LogisticRegression(max_iter=1000)
    accuracy = cross_val_score(model, features, labels, groups=components(rows), cv=GroupKFold(5)).mean()
    assert accuracy < 0.62
