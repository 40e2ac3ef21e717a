"""Vector files: what is written is read again to the last bit, and damage is refused with the row and the cure."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pair_pkg.errors import InputError
from pair_pkg.search import vector_files
from pair_pkg.search.vector_files import check_unit_rows, open_vectors, write_beside, write_jsonl, write_parquet


@pytest.fixture
def vectors():
    rows = np.random.default_rng(0).standard_normal((7, 5)).astype(np.float32)
    rows[0] = [1e-7, -0.0, 1 / 3, 1e10, 5e-39]
    return rows


@pytest.mark.parametrize("block_rows", [3, 100])
def test_every_format_gives_the_same_floats_back(vectors, tmp_path, block_rows, monkeypatch):
    monkeypatch.setattr(vector_files, "BLOCK_ROWS", block_rows)
    monkeypatch.setattr(vector_files.float_blocks, "__defaults__", (block_rows,))
    np.save(tmp_path / "v.npy", vectors)
    write_jsonl(tmp_path / "v.jsonl", vectors)
    write_parquet(tmp_path / "v.parquet", vectors, {"text": lambda: map(str, range(7))})
    for suffix in vector_files.VECTOR_SUFFIXES:
        assert np.array_equal(open_vectors(tmp_path / f"v{suffix}"), vectors)
    table = pq.read_table(tmp_path / "v.parquet")
    assert table.column_names == ["text", "embedding"] and table["text"].to_pylist() == list("0123456")


def test_an_npy_file_is_mapped_and_not_read(vectors, tmp_path):
    np.save(tmp_path / "v.npy", vectors)
    assert isinstance(open_vectors(tmp_path / "v.npy"), np.memmap)


def test_unit_rows_pass_in_half_precision_too(vectors):
    unit = vectors[1:] / np.linalg.norm(vectors[1:], axis=1, keepdims=True)
    check_unit_rows(unit, "v.npy")
    check_unit_rows(unit.astype(np.float16), "v.npy")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([np.nan, 0, 0], "v.npy: row 2 holds NaN or infinity; embed its text again"),
        ([np.inf, 0, 0], "v.npy: row 2 holds NaN or infinity"),
        ([3, 4, 0], "v.npy: row 2 has length 5, not 1; embed with --normalize"),
        ([0, 0, 0], "v.npy: row 2 has length 0, not 1"),
    ],
)
def test_a_row_that_is_no_direction_is_named(row, message):
    vectors = np.eye(3, dtype=np.float32)
    vectors[2] = row
    with pytest.raises(InputError, match=message):
        check_unit_rows(vectors, "v.npy")


def _truncated(path):
    np.save(path, np.ones((100, 8), np.float32))
    path.write_bytes(path.read_bytes()[:-100])


def _pickled(path):
    np.save(path, np.array([{"a": 1}], dtype=object), allow_pickle=True)


DAMAGED = {
    "truncated": ("v.npy", _truncated, "v.npy: damaged, or no npy file of numbers"),
    "a pickle": ("v.npy", _pickled, "v.npy: damaged, or no npy file of numbers"),
    "not npy": ("v.npy", lambda path: path.write_bytes(b"hello"), "v.npy: damaged, or no npy file"),
    "one axis": ("v.npy", lambda path: np.save(path, np.ones(5, np.float32)), r"an array of shape \(5,\)"),
    "no rows": ("v.npy", lambda path: np.save(path, np.ones((0, 5), np.float32)), r"an array of shape \(0, 5\)"),
    "integers": ("v.npy", lambda path: np.save(path, np.ones((2, 2), int)), "holds int64 numbers; write .* float32"),
    "words": ("v.jsonl", lambda path: path.write_text("[1, 2]\n[1, 'a']\n"), "v.jsonl:2: no list of numbers"),
    "uneven": ("v.jsonl", lambda path: path.write_text("[1, 2]\n\n[1]\n"), "v.jsonl:3: an array of shape"),
    "no numbers": ("v.jsonl", lambda path: path.write_text("[]\n[1, 2]\n"), "v.jsonl:1: an array of shape"),
    "blank": ("v.jsonl", lambda path: path.write_text("\n\n"), "v.jsonl: holds no vectors"),
    "no parquet": ("v.parquet", lambda path: path.write_text("hello"), "v.parquet: damaged"),
    "format": ("v.csv", lambda path: path.write_text("1,2"), "v.csv: unknown format .csv; name it one of .npy, .jsonl"),
}  # fmt: skip


@pytest.mark.parametrize("case", DAMAGED)
def test_damage_is_refused(case, tmp_path):
    name, write, message = DAMAGED[case]
    write(tmp_path / name)
    with pytest.raises(InputError, match=message):
        open_vectors(tmp_path / name)


def test_parquet_names_its_columns_where_there_are_no_vectors(vectors, tmp_path):
    write_parquet(tmp_path / "v.parquet", vectors, {})
    table = pq.read_table(tmp_path / "v.parquet").rename_columns(["vector"])
    pq.write_table(table, tmp_path / "v.parquet")
    with pytest.raises(InputError, match="no column 'embedding' among vector"):
        open_vectors(tmp_path / "v.parquet")


def test_a_write_that_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_beside(path, fail)
    assert [item.name for item in tmp_path.iterdir()] == ["file"] and path.read_text() == "old"
