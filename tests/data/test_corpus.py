import gzip
import json
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pair_pkg.data.corpus import CorpusAudit, Document, clean_documents, from_hub, hub_splits, read_documents
from pair_pkg.errors import InputError, one_line

MEDQUAD = Path("../shared/data/medquad/corpus.jsonl.gz")


def written(tmp_path, content: str | bytes, name="corpus.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def texts(*paths, **options):
    return [document.text for document in read_documents(paths, **options)]


def cleaned(lines, **options):
    audit = CorpusAudit()
    documents = [Document(line, f"corpus.txt:{number}") for number, line in enumerate(lines, start=1)]
    return list(clean_documents(documents, audit, **options)), audit


def refusal(call) -> str:
    with pytest.raises(InputError) as caught:
        list(call())
    message = str(caught.value)
    assert "; " in message and message == one_line(message)
    return message


# --- text files

POEM = "roses are red\nviolets are blue\n\n \t\nsugar is sweet\nand so are you\n\nthe end\n"


def test_blank_lines_separate_documents_where_blocks_have_several_lines(tmp_path):
    path = written(tmp_path, POEM)
    documents = list(read_documents([path]))
    assert documents == [
        Document("roses are red\nviolets are blue", f"{path}:1"),
        Document("sugar is sweet\nand so are you", f"{path}:5"),
        Document("the end", f"{path}:8"),
    ]
    assert list(read_documents([path], document_per="blank_line")) == documents
    lines = list(read_documents([path], document_per="line"))
    assert [document.text for document in lines] == POEM.splitlines()
    assert lines[4].place == f"{path}:5"


@pytest.mark.parametrize(
    ("content", "num_documents"),
    [
        ("one\ntwo\nthree\n", 3),
        ("one\n\ntwo\n\nthree\n", 5),  # blocks of one line: a document a line, the empty ones go in cleaning
        ("one\ntwo\n\nthree\n", 4),
        ("one\ntwo\n\nthree\nfour\n", 2),
        ("line\n" * 998 + "\nx\ny\n", 1001),  # the second block has one line within the first 1,000
        ("line\n" * 997 + "\nx\ny\n", 2),
    ],
)
def test_auto_decides_within_the_first_thousand_lines(tmp_path, content, num_documents):
    assert len(texts(written(tmp_path, content))) == num_documents


def test_each_file_decides_for_itself_and_order_is_kept(tmp_path):
    poem, lines = written(tmp_path, POEM, "b.txt"), written(tmp_path, gzip.compress(b"x\ny\n"), "a.txt.gz")
    assert texts(poem, lines)[2:] == ["the end", "x", "y"]
    assert texts(lines, poem)[:2] == ["x", "y"]


def test_encoding_is_passed_on(tmp_path):
    path = written(tmp_path, "café\n".encode("cp1252"))
    assert texts(path, encoding="cp1252") == ["café"]
    assert "--encoding" in refusal(lambda: read_documents([path]))


def test_unknown_choices_are_refused(tmp_path):
    path = written(tmp_path, "x\n")
    assert "--document_per page: unknown" in refusal(lambda: read_documents([path], document_per="page"))
    assert "unknown format .md" in refusal(lambda: read_documents([written(tmp_path, "x\n", "a.md")]))


# --- tables


def test_tables_give_their_text_column(tmp_path):
    rows = [{"id": "1", "Content": "first,\nlong"}, {"id": "2", "Content": "NA"}]
    paths = [
        written(tmp_path, 'id,Content\n1,"first,\nlong"\n2,NA\n', "a.csv"),
        written(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "a.jsonl"),
        written(tmp_path, json.dumps(rows), "a.json"),
        tmp_path / "a.parquet",
    ]
    pq.write_table(pa.Table.from_pylist(rows), paths[-1])
    for path in paths:
        assert texts(path) == ["first,\nlong", "NA"]
        assert texts(path, text_column="id") == ["1", "2"]
    places = [[document.place for document in read_documents([path])][1] for path in paths]
    assert [place.rpartition(":")[2] for place in places] == ["4", "2", "row 2", "row 2"]


def test_a_named_column_says_that_there_is_a_header_and_a_number_that_there_may_be_none(tmp_path):
    path = written(tmp_path, "beschreibung\tquelle\nerster Text\tA\n", "a.tsv")
    assert texts(path, text_column="beschreibung") == ["erster Text"]
    assert texts(path, text_column="1") == ["quelle", "A"]
    message = refusal(lambda: read_documents([path]))
    assert message.startswith(f"{path}: no column named text") and message.endswith("name it with --text_column")
    assert "did you mean quelle?" in refusal(lambda: read_documents([path], text_column="quele"))


@pytest.mark.parametrize(("value", "shown"), [("null", "null"), ("7", "int 7"), ('["a"]', "list ['a']")])
def test_a_text_that_is_no_string_is_refused_at_its_place(tmp_path, value, shown):
    path = written(tmp_path, f'{{"text": "a"}}\n{{"text": {value}}}\n', "a.jsonl")
    assert refusal(lambda: read_documents([path])).startswith(f"{path}:2: the text is {shown}, not a string")


# --- cleaning


def test_cleaning_counts_everything_and_keeps_the_first_of_each():
    kept, audit = cleaned([" one ", "", "two", "one", "\t \u3000", "Two", "two\n"])
    assert [(document.text, document.place) for document in kept] == [
        ("one", "corpus.txt:1"),
        ("two", "corpus.txt:3"),
        ("Two", "corpus.txt:6"),
    ]
    assert audit == CorpusAudit(documents_read=7, empty=2, duplicates=2, documents_kept=3, characters=9)


def test_duplicates_can_stay():
    kept, audit = cleaned(["one", "one", ""], drop_duplicates=False)
    assert len(kept) == 2
    assert audit == CorpusAudit(documents_read=3, empty=1, duplicates=0, documents_kept=2, characters=6)


def test_text_inside_is_not_changed():
    inside = "a  b\x00\u200b\ufeffＡé e\u0301\r\nc"
    assert cleaned([inside])[0][0].text == inside


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=4)))
def test_cleaning_is_idempotent_and_adds_up(lines):
    kept, audit = cleaned(lines)
    again, second = cleaned([document.text for document in kept])
    assert [document.text for document in again] == [document.text for document in kept]
    assert len({document.text for document in kept}) == len(kept) == audit.documents_kept
    assert audit.documents_read == len(lines) == audit.empty + audit.duplicates + audit.documents_kept
    assert second.empty == second.duplicates == 0 and second.characters == audit.characters


def test_nothing_left_is_counted_not_raised():
    kept, audit = cleaned(["", " "])
    assert kept == [] and audit.documents_kept == 0 and audit.empty == 2


def test_a_lone_surrogate_is_refused_at_its_place():
    message = refusal(lambda: cleaned(["fine", "half \ud83d"])[0])
    assert message.startswith("corpus.txt:2: a lone surrogate")


# --- the Hub


def load_from(monkeypatch, outcome):
    def load_dataset(name, config, split, token):
        load_dataset.called_with = (name, config, split, token)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return load_dataset


def test_hub_rows_become_documents(monkeypatch):
    rows = datasets.Dataset.from_dict({"id": [1, 2], "content": ["a", "b"]})
    load = load_from(monkeypatch, rows)
    assert list(from_hub("org/name", "en", "train", None, "hf_token")) == [
        Document("a", "org/name[train]:1"),
        Document("b", "org/name[train]:2"),
    ]
    assert load.called_with == ("org/name", "en", "train", "hf_token")
    assert refusal(lambda: from_hub("org/name", None, "train", "txt")).startswith("org/name[train]: no column 'txt'")
    assert "org/name[train]:1: the text is int 1" in refusal(lambda: from_hub("org/name", None, "train", "id"))


def test_hub_splits_are_listed_or_refused(monkeypatch):
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda name, config, token: [name, config, token])
    assert hub_splits("org/name", "en", "hf_token") == ["org/name", "en", "hf_token"]

    def unreachable(name, config, token):
        raise ConnectionError("offline")

    monkeypatch.setattr(datasets, "get_dataset_split_names", unreachable)
    assert refusal(lambda: hub_splits("org/name", "en")).startswith("org/name: the Hub cannot be reached (offline)")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (datasets.exceptions.DatasetNotFoundError("no"), "no such data set on the Hub; check the name"),
        (ConnectionError("offline"), "the Hub cannot be reached (offline); connect to the network"),
        (ValueError('Unknown split "x".'), 'cannot be loaded (Unknown split "x".); check'),
        (datasets.exceptions.DatasetGenerationError("bad"), "cannot be loaded (bad); check"),
        (RuntimeError("scripts are no longer supported"), "cannot be loaded (scripts are no longer supported)"),
    ],
)
def test_errors_of_the_hub_become_one_line(monkeypatch, error, expected):
    load_from(monkeypatch, error)
    assert refusal(lambda: from_hub("org/name", None, "x", None)).startswith(f"org/name[x]: {expected}")


@pytest.mark.skipif(not MEDQUAD.is_file(), reason="../shared/data/medquad is absent")
def test_medquad_reads_whole():
    audit = CorpusAudit()
    documents = list(clean_documents(read_documents([MEDQUAD]), audit))
    assert len(documents) == audit.documents_read == audit.documents_kept == 15_809
    assert audit.empty == audit.duplicates == 0
    assert 20_300_000 < audit.characters < 20_450_000  # 20.4 M by the data's own account
