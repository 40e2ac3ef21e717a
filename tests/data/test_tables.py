import csv
import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_pkg.columns import LABEL_SYNONYMS, SENTENCE1_SYNONYMS
from pair_pkg.data.tables import looks_like_header, pick_column, read_table
from pair_pkg.errors import InputError, one_line

SHARED = Path("../shared/data")
CELL = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12) | st.sampled_from(
    ["NA", "null", "007", "1e5", " padded ", 'say "hi"', "two\nlines", "two\r\nlines", "old\rmac", "a,b;c\td", "\u2028"]
)


def written(tmp_path, content: str | bytes, name="train.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def refusal(path, **options) -> str:
    with pytest.raises(InputError) as caught:
        list(read_table(path, **options))
    message = str(caught.value)
    assert message.startswith(str(path)) and "; " in message and message == one_line(message)
    return message.removeprefix(str(path))


def cells(path, **options):
    return [list(row.values.values()) for row in read_table(path, **options)]


# --- csv and tsv


def test_csv_text_stays_text_and_places_are_first_lines(tmp_path):
    path = written(tmp_path, 'sentence1,sentence2,label\nNA,"two\nlines",007\n\nnull,"say ""hi""",1.0\n')
    table = read_table(path)
    assert (table.columns, table.has_header, table.path) == (["sentence1", "sentence2", "label"], True, path)
    rows = list(table)
    assert [row.place for row in rows] == [f"{path}:2", f"{path}:5"]
    assert rows[0].values == {"sentence1": "NA", "sentence2": "two\nlines", "label": "007"}
    assert rows[1].values == {"sentence1": "null", "sentence2": 'say "hi"', "label": "1.0"}
    assert list(table) == rows, "a table can be read twice"


@settings(max_examples=100, deadline=None)
@given(
    rows=st.integers(2, 4).flatmap(lambda width: st.lists(st.lists(CELL, min_size=width, max_size=width), min_size=1)),
    lineterminator=st.sampled_from(["\r\n", "\n", "\r"]),
    packed=st.booleans(),
)
def test_csv_comes_back_as_csv_writer_wrote_it(tmp_path_factory, rows, lineterminator, packed):
    path = tmp_path_factory.mktemp("csv") / ("rows.csv.gz" if packed else "rows.csv")
    with (gzip.open if packed else open)(path, "wt", encoding="utf-8", newline="") as file:
        file.write("\ufeff")
        # Before Python 3.13 the writer leaves a CR unquoted unless its own line end holds one.
        quoting = csv.QUOTE_MINIMAL if lineterminator == "\r\n" else csv.QUOTE_ALL
        csv.writer(file, lineterminator=lineterminator, quoting=quoting).writerows(rows)
    assert cells(path, encoding="utf-8", header=False) == rows


@settings(max_examples=50, deadline=None)
@given(
    rows=st.lists(
        st.lists(
            st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\t\r\n")), min_size=2, max_size=2
        ),
        min_size=1,
    )
)
def test_tsv_has_no_quotes(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("tsv") / "rows.tsv"
    path.write_bytes("\n".join("\t".join(row) for row in [["x", "y"], *rows]).encode())
    assert cells(path, encoding="utf-8", header=False)[1:] == rows


def test_quotes_are_text_in_tsv_and_txt(tmp_path):
    for name in ("pairs.tsv", "pairs.txt"):
        path = written(tmp_path, 'he said "no\tshe said yes"\t1\n"a"\tb\t0\n', name)
        assert cells(path) == [['he said "no', 'she said yes"', "1"], ['"a"', "b", "0"]]


@pytest.mark.parametrize(
    ("first_row", "is_header"),
    [
        (["sentence1", "sentence2", "label"], True),
        (["Question1", "QUESTION2", "Is_Duplicate"], True),
        (["", "text_a", "text_b", "gold"], True),
        (["A plane is taking off.", "An air plane is taking off.", "5.000"], False),
        (["label", "target", "1"], False),
        (["花呗怎么还款", "借呗怎么还款", "0"], False),
    ],
)
def test_header_is_detected_and_can_be_forced(tmp_path, first_row, is_header):
    path = written(tmp_path, "\t".join(first_row) + "\n" + "\t".join("x" * len(first_row)) + "\n", "pairs.tsv")
    assert looks_like_header(first_row) is is_header
    table = read_table(path)
    assert table.has_header is is_header and len(list(table)) == 2 - is_header
    assert table.columns == (first_row if is_header else [str(index) for index in range(len(first_row))])
    assert read_table(path, header=True).columns == first_row
    assert read_table(path, header=False).columns == [str(index) for index in range(len(first_row))]


def test_column_names_replace_the_numbers_or_the_header(tmp_path):
    names = ["a", "b"]
    assert [row.values for row in read_table(written(tmp_path, "x,y\n"), column_names=names)] == [{"a": "x", "b": "y"}]
    with_header = written(tmp_path, "sentence1,sentence2\nx,y\n")
    assert [row.values for row in read_table(with_header, column_names=names)] == [{"a": "x", "b": "y"}]
    with pytest.raises(InputError, match=":1: 2 columns, but 3 column names"):
        read_table(with_header, column_names=["a", "b", "c"])


def test_delimiter_can_be_given_and_a_wrong_one_is_noticed(tmp_path):
    for mark, option in ((";", ";"), ("\t", "\\t")):
        path = written(tmp_path, f"sentence1{mark}sentence2\nx{mark}y\n")
        message = refusal(path)
        assert message.startswith(":1: one comma-separated field") and f"--delimiter '{option}'" in message
        assert cells(path, delimiter=option) == [["x", "y"]]
    with pytest.raises(InputError, match="--delimiter '::': must be one character"):
        read_table(path, delimiter="::")
    assert cells(written(tmp_path, "text\nwell; so\n")) == [["well; so"]], "semicolons below the header are text"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("sentence1,sentence2\na,b\nc,d,e\n", ":3: 3 fields where the first row has 2"),
        ("sentence1,sentence2\n\na\n", ":3: 1 fields where the first row has 2"),
        ('text,label\n"a\nb",0\n"never closed,1\nc,0\n', ":4: a quoted field is not closed"),
        ('text,label\n"a" b,0\n', ":2: a quoted field is not closed or goes on"),
        ("text,label,text\na,0,b\n", ":1: column 'text' stands twice"),
        ("text,label\n\n", ":1: a header and no rows"),
        ("\n\n", ": has no rows"),
    ],
)
@pytest.mark.parametrize("packed", [False, True])
def test_bad_csv_names_its_line(tmp_path, content, expected, packed):
    if packed:
        path = written(tmp_path, gzip.compress(content.encode()), "train.csv.gz")
    else:
        path = written(tmp_path, content)
    assert refusal(path).startswith(expected)


def test_bad_tsv_names_its_line(tmp_path):
    path = written(tmp_path, "a\tb\t1\nc\td\n", "train.tsv")
    assert refusal(path).startswith(":2: 2 fields where the first row has 3")


def test_a_long_csv_field_is_read(tmp_path):
    assert cells(written(tmp_path, f"text,label\n{'x' * 200_000},1\n"))[0][0] == "x" * 200_000


# --- json and jsonl

ROWS = [{"text": "第一\u2028", "label": 1}, {"text": "007", "label": None}, {"text": "😀", "label": 0.5}]


@pytest.mark.parametrize("ensure_ascii", [False, True])
@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.jsonl.gz", "a.json", "a.json.gz", "data.json"])
def test_json_formats_come_back(tmp_path, name, ensure_ascii):
    by_line = name not in ("a.json", "a.json.gz", "data.json")
    if not by_line:
        value = {"version": 1, "data": ROWS} if name == "data.json" else ROWS
        content = json.dumps(value, ensure_ascii=ensure_ascii, indent=1)
    else:
        content = "\n\n".join(json.dumps(row, ensure_ascii=ensure_ascii) for row in ROWS)
    packed = name.endswith(".gz")
    path = written(tmp_path, gzip.compress(content.encode()) if packed else content, name)
    table = read_table(path)
    assert table.columns == ["text", "label"] and [row.values for row in table] == ROWS
    places = [row.place for row in table]
    assert places == [f"{path}:{place}" for place in ((1, 3, 5) if by_line else ("row 1", "row 2", "row 3"))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('{"text": "a"}\n{"text": \n', ":2: broken JSON"),
        ('{"text": "a"}\n\n"just text"\n', ":3: a row is not an object"),
        ('{"text": "a"}\n7\n', ":2: a row is not an object"),
        ('{"text": "a"}\n{"text": "b", "text": "c"}\n', ":2: broken JSON (duplicate key 'text')"),
        ('{"text": "a", "label": 1}\n{"text": "b"}\n', ":2: key 'label' is missing"),
        ('{"text": "a"}\n{"text": "b", "label": 1}\n', ":2: key 'label' is not in the first row"),
        ('{"text": "a", "label": NaN}\n', ":1: broken JSON (NaN is not JSON"),
        ('{"text": "a"}\n{"text": "\\ud83d"}\n', ":2: half of a surrogate pair"),
        ("[" * 100_000 + "\n", ":1: broken JSON"),
        ("\n \n", ": has no rows"),
    ],
)
def test_bad_jsonl_names_its_line(tmp_path, content, expected):
    assert refusal(written(tmp_path, content, "train.jsonl")).startswith(expected)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('[\n {"text": "a"},\n {"text": }\n]', ":3: broken JSON"),
        ('{"text": "a"}\n{"text": "b"}\n', ":2: broken JSON (Extra data"),
        ('{"rows": []}', ": neither an array of objects"),
        ('"text"', ": neither an array of objects"),
        ("[]", ": has no rows"),
        ('[{"text": "a"}, ["b"]]', ":row 2: a row is not an object"),
        ('[{"text": "a"}, {"title": "b"}]', ":row 2: key 'text' is missing"),
    ],
)
def test_bad_json_names_its_place(tmp_path, content, expected):
    message = refusal(written(tmp_path, content, "train.json"))
    assert message.startswith(expected)
    assert ("jsonl" in message) == ("Extra data" in message or "neither" in message)


# --- parquet


def test_parquet_comes_back_over_several_batches(tmp_path):
    texts = [f"text {index}" for index in range(3000)]
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": texts, "label": [*range(2999), None]}), path, row_group_size=700)
    table = read_table(path)
    rows = list(table)
    assert table.columns == ["text", "label"]
    assert [row.values["text"] for row in rows] == texts
    assert rows[0].values == {"text": "text 0", "label": 0} and rows[-1].values["label"] is None
    assert rows[2047].place == f"{path}:row 2048"


def test_bad_parquet_is_refused(tmp_path):
    path = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": [f"text {index}" for index in range(5000)]}), path, compression="gzip")
    content = path.read_bytes()
    assert refusal(written(tmp_path, content[:-100], "cut.parquet")).startswith(": damaged or not parquet")
    assert refusal(written(tmp_path, b"plain text\n", "text.parquet")).startswith(": damaged or not parquet")
    spoilt = content[:100] + bytes(2000) + content[2100:]
    assert ": damaged parquet" in refusal(written(tmp_path, spoilt, "spoilt.parquet"))
    assert ": parquet compresses itself" in refusal(written(tmp_path, gzip.compress(content), "a.parquet.gz"))
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), path)
    assert ": has no rows" in refusal(path)
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text", "text"]), path)
    assert ": column 'text' stands twice" in refusal(path)


# --- the rest


def test_unknown_format_is_refused(tmp_path):
    for name, shown in (("train.xlsx", ".xlsx"), ("train", "(no suffix)"), ("train.gz", "(no suffix)")):
        assert f": unknown format {shown}" in refusal(written(tmp_path, "x", name))


def test_pick_column():
    columns = ["id", "Question1", "question2", "score"]
    assert pick_column(columns, SENTENCE1_SYNONYMS, None, "--sentence1_column", "a.csv") == "Question1"
    assert pick_column(columns, LABEL_SYNONYMS, None, "--label_column", "a.csv") == "score"
    assert pick_column(columns, LABEL_SYNONYMS, "id", "--label_column", "a.csv") == "id"
    assert pick_column(["s1", "sentence1"], SENTENCE1_SYNONYMS, None, "--x", "a.csv") == "sentence1", "ours comes first"
    with pytest.raises(InputError, match=r"^a.csv: no column 'scores' among id, .*score; did you mean score\?$"):
        pick_column(columns, LABEL_SYNONYMS, "scores", "--label_column", "a.csv")
    with pytest.raises(InputError, match=r"^a.csv: no column 'zzz' among .*; give one of them with --label_column$"):
        pick_column(columns, LABEL_SYNONYMS, "zzz", "--label_column", "a.csv")
    with pytest.raises(InputError, match=r"^a.csv: no column named label, .* among 0, 1; name it with --label_column$"):
        pick_column(["0", "1"], LABEL_SYNONYMS, None, "--label_column", "a.csv")


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
@pytest.mark.parametrize(
    ("name", "columns", "num_rows"),
    [
        ("mqp/train.csv", ["sentence1", "sentence2", "label"], 1982),
        ("rqe/test.csv", ["sentence1", "sentence2", "label"], 302),
        ("afqmc/dev.tsv", ["0", "1", "2"], 4316),
        ("afqmc/test_unlabelled.tsv", ["0", "1"], 3861),
        ("stsb_en/train.csv", ["0", "1", "2"], 5749),
        ("stsb_zh/dev.tsv", ["0", "1", "2"], 1458),
    ],
)
def test_published_sets_have_their_published_sizes(name, columns, num_rows):
    table = read_table(SHARED / name)
    assert (table.columns, sum(1 for _ in table)) == (columns, num_rows)


def test_what_arrow_cannot_decode_is_refused(tmp_path):
    """A column whose name is no text, a date that no calendar holds, a time zone of nowhere."""
    path = tmp_path / "train.parquet"
    schema = pa.schema([("text", pa.string())])
    pq.write_table(pa.table({"text": ["a"]}, schema), path, store_schema=False)
    assert ": damaged or not parquet" in refusal(
        written(tmp_path, path.read_bytes().replace(b"text", b"\x89ext"), path.name)
    )
    for kind in (pa.date32(), pa.timestamp("s", "nowhere")):
        pq.write_table(pa.table({"text": pa.array([2_000_000_000], kind)}), path)
        assert ":row 1: damaged parquet" in refusal(path)
