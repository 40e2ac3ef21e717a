"""``dedupe``: clusters known by hand, every text near to its representative, bad input in one line."""

import csv
import json
import shutil

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from pair_pkg.__main__ import main
from pair_pkg.data.corpus import read_documents
from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import Decision, save_decision

TEXTS = ["a small valve", "the old pump leaks", "水泵漏水", "", "the old pump leaks", "the old pump leaks"]


@pytest.fixture
def dedupe(tiny_bi_encoder, tmp_path):
    """``dedupe(texts_path, flags...)``: the counts and the rows of the file."""

    def run(texts, *flags, output="clusters.csv", model=tiny_bi_encoder):
        path = tmp_path / output
        counts = main(["dedupe", "--model", str(model), str(texts), "--output", str(path), *map(str, flags)])
        with open(path, encoding="utf-8", newline="") as file:
            return counts, [json.loads(line) for line in file] if path.suffix == ".jsonl" else list(
                csv.DictReader(file)
            )

    return run


@pytest.fixture
def texts_path(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


def test_equal_texts_are_one_cluster_and_the_largest_comes_first(dedupe, texts_path, tmp_path, capsys):
    counts, rows = dedupe(texts_path, "--threshold", "0.9999", output="clusters.jsonl")
    assert counts == {"texts": 5, "clusters": 3, "duplicates": 2, "largest": 3, "threshold": 0.9999}
    columns = ["cluster", "id", "is_representative", "cluster_size", "text"]
    assert [[row[column] for column in columns] for row in rows] == [
        [1, "0", 1, 1, TEXTS[0]],
        [0, "1", 1, 3, TEXTS[1]],
        [2, "2", 1, 1, TEXTS[2]],
        [0, "4", 0, 3, TEXTS[1]],
        [0, "5", 0, 3, TEXTS[1]],
    ]
    np.testing.assert_allclose([row["cosine"] for row in rows], 1, atol=1e-5)
    printed = capsys.readouterr()
    assert "5 texts in 3 clusters at a cosine of 0.9999; 2 say what their representative says" in printed.out
    assert "1 empty texts are left out, the first at" in printed.err
    assert {path.name for path in tmp_path.iterdir()} == {"texts.txt", "clusters.jsonl"}


def test_every_text_is_near_to_its_representative_and_those_are_apart(
    dedupe, tiny_corpus, tiny_documents, tiny_bi_encoder
):
    threshold = 0.98
    counts, rows = dedupe(tiny_corpus, "--threshold", threshold)
    assert [row["text"] for row in rows] == tiny_documents and 10 < counts["clusters"] < 190
    vectors = SentenceTransformer(tiny_bi_encoder, device="cpu").encode(tiny_documents)
    cosines = vectors @ vectors.T
    chief_of = {row["cluster"]: number for number, row in enumerate(rows) if row["is_representative"] == "1"}
    assert len(chief_of) == counts["clusters"]
    own = [cosines[number, chief_of[row["cluster"]]] for number, row in enumerate(rows)]
    assert min(own) >= threshold - 1e-5
    np.testing.assert_allclose([float(row["cosine"]) for row in rows], own, atol=1e-5)
    chiefs = list(chief_of.values())
    assert (cosines[np.ix_(chiefs, chiefs)] - 2 * np.eye(len(chiefs))).max() < threshold + 1e-5
    sizes = [int(rows[chief_of[str(cluster)]]["cluster_size"]) for cluster in range(counts["clusters"])]
    assert sizes == sorted(sizes, reverse=True) and sum(sizes) == 200 and sizes[0] == counts["largest"]


def test_ids_of_a_column_and_the_file_is_read_as_texts_again(dedupe, tmp_path):
    (tmp_path / "t.csv").write_text('key,text\nx1,"a pump, old"\nx2,the filter\nx3,"a pump, old"\n')
    _, rows = dedupe(tmp_path / "t.csv", "--id_column", "key", "--threshold", "0.9999")
    assert [row["id"] for row in rows] == ["x1", "x2", "x3"]
    read = read_documents([tmp_path / "clusters.csv"], id_column="id")
    assert [(document.id, document.text) for document in read][2] == ("x3", "a pump, old")


def test_the_model_s_own_decision_is_the_threshold(dedupe, texts_path, tiny_bi_encoder, tmp_path):
    model = shutil.copytree(tiny_bi_encoder, tmp_path / "model")
    save_decision(Decision("binary", temperature=0.05, center=0.93, threshold=0.5), model)
    assert dedupe(texts_path, model=model)[0]["threshold"] == pytest.approx(0.93)
    assert dedupe(texts_path, "--threshold", "0.99", model=model)[0]["threshold"] == 0.99


def test_a_killed_run_goes_on_and_leaves_nothing(dedupe, texts_path, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pair_pkg.stages.dedupe.find_neighbours", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        dedupe(texts_path, "--threshold", "0.9")
    assert not (tmp_path / "clusters.csv").exists()
    dedupe(texts_path, "--threshold", "0.9")
    assert "going on behind row 5 of 5" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"texts.txt", "clusters.csv"}


BAD = {
    "format": (["texts.txt", "--output", "c.parquet"], "c.parquet: unknown format .*; name it one of .csv, .jsonl"),
    "threshold": (["texts.txt", "--threshold=1.5", "--output", "c.csv"], "--threshold 1.5: give a cosine above -1"),
    "no number": (["texts.txt", "--threshold=nan", "--output", "c.csv"], "--threshold nan: give a cosine"),
    "no decision": (["texts.txt", "--output", "c.csv"], "holds no decision on cosines; give --threshold, such as 0.9"),
    "the input": (["t.csv", "--threshold=0.9", "--output", "t.csv"], "t.csv: is one of the files that are read; name"),
    "no text": (["blank.txt", "--threshold=0.9", "--output", "c.csv"], "blank.txt: no text is left; check the file"),
    "no such file": (["nowhere.txt", "--threshold=0.9", "--output", "c.csv"], "nowhere.txt: no such file or"),
    "no column": (["t.csv", "--text_column=body", "--threshold=0.9", "--output", "c.csv"], "t.csv.*body.*;"),
}  # fmt: skip


@pytest.mark.parametrize("words, message", BAD.values(), ids=BAD)
def test_bad_input_is_one_line_with_a_cure(words, message, texts_path, tiny_bi_encoder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t.csv").write_text("text\nthe old pump\na small valve\n")
    (tmp_path / "blank.txt").write_text("\n \n")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(InputError, match=message) as caught:
        main(["dedupe", "--model", tiny_bi_encoder, *words])
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
