import json
import logging
from pathlib import Path

import numpy as np
import pytest

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"
BINARY = LabelScheme("binary", ["0", "1"])


@pytest.fixture
def write(tmp_path):
    def write(name: str, text: str) -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def load(*paths, labelled=True, **options):
    return load_pairs(paths, labelled=labelled, **options)


# Pairs


def test_subset_and_texts():
    pairs = Pairs(["a", "b", "a"], ["x", "a", "y"], np.array([0, 1, 0]), ["f:1", "f:2", "f:3"])
    part = pairs.subset(np.array([2, 0]))
    assert len(part) == 2
    assert (part.sentence1, part.sentence2, part.places) == (["a", "a"], ["y", "x"], ["f:3", "f:1"])
    assert part.labels.tolist() == [0, 0]
    assert pairs.texts() == ["a", "b", "x", "y"]
    assert Pairs(["a"], ["b"], None, ["f:1"]).subset([0]).labels is None


def test_sources_follow_their_pairs():
    pairs = Pairs(["a", "b"], ["x", "y"], np.array([0, 1]), ["f:1", "f:2"], ["web", "mail"])
    assert pairs.subset([1]).sources == ["mail"] and pairs.joined(pairs.subset([0])).sources == ["web", "mail", "web"]
    assert pairs.joined(Pairs(["c"], ["z"], np.array([0]), ["f:3"])).sources is None


# columns


def test_header_synonyms_and_extra_columns_with_one_note(write, caplog):
    one = write("1.csv", "id,Question1,question2,is_duplicate\n7,a,b,0\n8,c,d,1\n")
    two = write("2.csv", "id,sentence1,sentence2,label,source\n9,e,f,1,web\n")
    with caplog.at_level(logging.INFO):
        pairs, scheme, audit = load(one, two)
    assert (pairs.sentence1, pairs.sentence2) == (["a", "c", "e"], ["b", "d", "f"])
    assert pairs.labels.tolist() == [0, 1, 1] and pairs.labels.dtype == np.int64
    assert pairs.places == [f"{one}:2", f"{one}:3", f"{two}:2"]
    assert scheme == BINARY and audit.rows == 3 and audit.class_counts == {"0": 1, "1": 2}
    notes = [record.message for record in caplog.records if "not used" in record.message]
    assert notes == ["columns that are not used: id"]
    assert pairs.sources == [one, one, "web"]


def test_named_columns(write):
    path = write("a.csv", "first,second,gold\na,b,0\nc,d,1\n")
    pairs, _, _ = load(path, header=True, sentence1_column="second", sentence2_column="first", label_column="gold")
    assert (pairs.sentence1, pairs.sentence2) == (["b", "d"], ["a", "c"])


def test_without_header_by_position(write):
    pairs, scheme, _ = load(write("a.tsv", "a\tb\t0\nc\td\t1\n"))
    assert (pairs.sentence1, pairs.sentence2, pairs.labels.tolist()) == (["a", "c"], ["b", "d"], [0, 1])
    pairs, _, _ = load(
        write("b.tsv", "0\ta\tb\n1\tc\td\n"), sentence1_column="1", sentence2_column="2", label_column="0"
    )
    assert (pairs.sentence1, pairs.sentence2, pairs.labels.tolist()) == (["a", "c"], ["b", "d"], [0, 1])


def test_jsonl_with_typed_labels(write):
    rows = [{"sentence1": "a", "sentence2": "b", "score": 4.75}, {"sentence1": "c", "sentence2": "d", "score": 0}]
    pairs, scheme, audit = load(write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert scheme == LabelScheme("scores", [], 0, 5) and pairs.labels.dtype == np.float32
    assert pairs.labels.tolist() == [4.75, 0] and audit.class_counts == {}


@pytest.mark.parametrize(
    ("name", "text", "flag"),
    [
        ("a.csv", "sentence1,label\na,0\nc,1\n", "--sentence2_column"),
        ("a.csv", "sentence1,sentence2\na,b\nc,d\n", "--label_column"),
        ("a.tsv", "a\tb\nc\td\n", "--label_column"),
        ("a.tsv", "only one\ncolumn here\n", "--sentence2_column"),
    ],
)
def test_missing_column(write, name, text, flag):
    with pytest.raises(InputError, match=flag):
        load(write(name, text))


def test_one_column_for_two_roles(write):
    with pytest.raises(InputError, match="must differ"):
        load(write("a.csv", "sentence1,sentence2,label\na,b,0\n"), sentence2_column="sentence1")


def test_sentence_that_is_no_text(write):
    path = write("a.jsonl", '{"sentence1": 7, "sentence2": "b", "label": 0}\n')
    with pytest.raises(InputError, match=r"a\.jsonl:1: sentence1 is 7, not text"):
        load(path)


@pytest.mark.parametrize("head", ["sentence1,sentence2,label", "left,right,gold", "question1,question2,whatever"])
def test_header_read_as_data_is_named(write, head):
    path = write("a.csv", f"{head}\na,b,0\nc,d,1\n")
    label = head.split(",")[2]
    with pytest.raises(InputError, match=rf"a\.csv:1: label '{label}' is none of the labels.*header.*--header"):
        load(path, header=False)


def test_header_read_as_data_beside_text_labels(write):
    path = write("a.csv", "sentence1,sentence2,label\na,b,same\nc,d,different\n")
    with pytest.raises(InputError, match="header"):
        load(path, header=False)


@pytest.mark.parametrize(
    "options", [{"scheme": LabelScheme("classes", ["x", "y", "z"])}, {"label_names": ["x", "y", "z"]}]
)
def test_header_read_as_data_where_the_labels_are_known(write, options):
    path = write("a.csv", "left,right,gold\na,b,x\nc,d,z\n")
    with pytest.raises(InputError, match=r"a\.csv:1: label 'gold' is none of the labels, this looks like a header"):
        load(path, header=False, **options)


def test_known_labels_of_another_spelling_are_no_header(write):
    pairs, _, _ = load(write("a.csv", "a,b,yes\nc,d,no\n"), header=False, scheme=BINARY)
    assert pairs.labels.tolist() == [1, 0]


def test_missing_label_in_the_first_row_is_no_header(write):
    with pytest.raises(InputError, match=r"a\.csv:1: label is missing"):
        load(write("a.csv", "a,b,\nc,d,1\ne,f,0\n"), header=False)


def test_header_read_as_a_pair_to_predict(write):
    with pytest.raises(InputError, match=r"a\.csv:1: 'sentence1' is the name of a column.*header"):
        load(write("a.csv", "sentence1,sentence2\na,b\n"), header=False, labelled=False)


def test_first_row_of_data_is_no_header(write):
    pairs, _, _ = load(write("a.csv", "what is a label,and a sentence,same\nc,d,different\n"), header=False)
    assert len(pairs) == 2


# labels


def test_scheme_of_training_binds_other_files(write):
    path = write("a.csv", "sentence1,sentence2,label\na,b,yes\nc,d,yes\n")
    pairs, scheme, audit = load(path, scheme=BINARY)
    assert pairs.labels.tolist() == [1, 1] and scheme is BINARY  # one class is fine in a file that is only scored
    assert audit.class_counts == {"0": 0, "1": 2}
    bad = write("b.csv", "sentence1,sentence2,label\na,b,0\nc,d,2\n")
    with pytest.raises(InputError, match=r"b\.csv:3: label '2' is none of 0, 1"):
        load(bad, scheme=BINARY)


def test_only_one_class_to_learn_from(write):
    with pytest.raises(InputError, match="only one label, '1'"):
        load(write("a.csv", "sentence1,sentence2,label\na,b,1\nc,d,1\n"))


@pytest.mark.parametrize(
    ("options", "scheme"),
    [
        ({"label_kind": "scores"}, LabelScheme("scores", [], 0, 5)),
        ({"label_range": (0.0, 10.0)}, LabelScheme("scores", [], 0, 10)),
        ({"label_names": ["2", "1", "0"]}, LabelScheme("classes", ["2", "1", "0"])),
        ({}, LabelScheme("classes", ["0", "1", "2"])),
    ],
)
def test_options_of_labels_reach_the_detection(write, options, scheme):
    path = write("a.csv", "sentence1,sentence2,label\na,b,0\nc,d,1\ne,f,2\n")
    assert load(path, **options)[1] == scheme


# empty sentences


def test_empty_sentences_are_skipped_and_counted(write, caplog):
    path = write("a.csv", "sentence1,sentence2,label\na,b,0\n  ,d,oops\ne,,1\ng,h,1\n")
    pairs, _, audit = load(path)
    assert pairs.sentence1 == ["a", "g"] and pairs.places == [f"{path}:2", f"{path}:5"]
    assert (audit.rows, audit.empty_skipped) == (4, 2)
    assert "2 of 4 rows have an empty sentence" in caplog.text


def test_null_is_an_empty_sentence(write):
    rows = '{"sentence1": "a", "sentence2": "b", "label": 0}\n{"sentence1": "c", "sentence2": null, "label": 1}\n'
    more = '{"sentence1": "e", "sentence2": "f", "label": 1}\n'
    assert load(write("a.jsonl", rows + more))[2].empty_skipped == 1


def test_empty_sentence_is_refused_with_strict(write):
    path = write("a.csv", "sentence1,sentence2,label\na,b,0\nc, ,1\n")
    with pytest.raises(InputError, match=r"a\.csv:3: sentence2 is empty; .*--strict"):
        load(path, strict=True)


@pytest.mark.parametrize("strict", [True, False])
def test_prediction_loses_no_row(write, strict):
    path = write("a.csv", "sentence1,sentence2\na,b\n,d\n")
    with pytest.raises(InputError, match=r"a\.csv:3: sentence1 is empty; fill it in or remove the row"):
        load(path, labelled=False, strict=strict)


def test_prediction_keeps_the_order_and_reads_no_label(write):
    path = write("a.csv", "sentence1,sentence2,label\nz,b,oops\na,b,\nz,b,1\n")
    pairs, scheme, audit = load(path, labelled=False)
    assert pairs.sentence1 == ["z", "a", "z"] and pairs.labels is None and scheme is None
    assert (audit.rows, audit.duplicate_pairs, audit.class_counts) == (3, 1, {})


def test_nothing_left(write):
    with pytest.raises(InputError, match="no pairs are left, all 2 rows"):
        load(write("a.csv", "sentence1,sentence2,label\n,b,0\nc,,1\n"))


# audit


def test_audit_of_duplicates_and_conflicts(write):
    rows = ["a,b,0", "B,A,0", "a,b,1", "b,a,1", "c,c ,1", "d,e,0", "d,e,1"]
    path = write("a.csv", "sentence1,sentence2,label\n" + "\n".join(rows) + "\n")
    _, _, audit = load(path)
    assert audit.identical_sentences == 1  # c
    assert audit.duplicate_pairs == 2  # rows 2 and 4
    assert audit.conflicting_pairs == 2
    assert audit.conflicting_places == [(f"{path}:2", f"{path}:4"), (f"{path}:7", f"{path}:8")]
    assert audit.class_counts == {"0": 3, "1": 4}


def test_pair_with_three_labels_is_one_conflict(write):
    path = write("a.csv", "sentence1,sentence2,label\na,b,0\na,b,1\na,b,2\n")
    assert load(path)[2].conflicting_places == [(f"{path}:2", f"{path}:3")]


def test_places_of_conflicts_are_capped(write):
    rows = "".join(f"a{i},b,0\na{i},b,1\n" for i in range(30))
    _, _, audit = load(write("a.csv", "sentence1,sentence2,label\n" + rows))
    assert audit.conflicting_pairs == 30 and len(audit.conflicting_places) == 20


# real data; counts from ../shared/data/README.md, one row of rqe/train.csv has an empty sentence


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "rows", "skipped", "scheme"),
    [
        ("mqp/train.csv", 1982, 0, BINARY),
        ("mqp/dev.csv", 458, 0, BINARY),
        ("rqe/train.csv", 8588, 1, BINARY),
        ("rqe/test.csv", 302, 0, BINARY),
        ("afqmc/train.tsv", 34334, 0, BINARY),
        ("afqmc/dev.tsv", 4316, 0, BINARY),
        ("afqmc/test_unlabelled.tsv", 3861, 0, None),
        ("stsb_en/train.csv", 5749, 0, LabelScheme("scores", [], 0, 5)),
        ("stsb_en/dev.csv", 1500, 0, LabelScheme("scores", [], 0, 5)),
        ("stsb_en/test.csv", 1379, 0, LabelScheme("scores", [], 0, 5)),
        ("stsb_zh/train.tsv", 5231, 0, LabelScheme("classes", ["0", "1", "2", "3", "4", "5"])),
        ("stsb_zh/dev.tsv", 1458, 0, LabelScheme("classes", ["0", "1", "2", "3", "4", "5"])),
    ],
)
def test_published_sets_are_read_whole(name, rows, skipped, scheme):
    pairs, found, audit = load(str(SHARED / name), labelled=scheme is not None)
    assert (audit.rows, audit.empty_skipped, len(pairs)) == (rows, skipped, rows - skipped)
    assert found == scheme
