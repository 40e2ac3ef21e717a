"""An index's folder: damage of any kind is one line before FAISS reads a byte, and a change is whole or not at all."""

import json

import numpy as np
import pytest

from pair_pkg.errors import InputError
from pair_pkg.search import index_folder
from pair_pkg.search.index_changes import create_index, remove_from_index
from pair_pkg.search.index_folder import open_index, refuse_other_model
from pair_pkg.search.text_store import Record

FACTS = {"model": {"name": "m", "fingerprint": "abc"}, "ids": "row numbers", "next_row_number": 40}


@pytest.fixture
def folder(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((40, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    create_index(tmp_path, [Record(str(row), f"text {row} 水泵\n") for row in range(40)], vectors, FACTS)
    return tmp_path


def refuse(folder, message):
    with pytest.raises(InputError, match=message):
        open_index(folder)


def test_a_whole_folder_opens_and_reads_single_records(folder):
    opened = open_index(folder)
    assert opened.records(np.array([7, -1, 3])) == [Record("7", "text 7 水泵\n"), Record("3", "text 3 水泵\n")]
    assert opened.manifest["recall"]["own_texts"] == {"queries": 40, "recall": 1.0} and opened.removed is None


def test_every_file_is_verified_before_faiss_reads(folder, monkeypatch):
    monkeypatch.setattr(index_folder, "load_index", lambda *_, **__: pytest.fail("read before it was verified"))
    for path in sorted(folder.glob("g*")):
        whole = path.read_bytes()
        for place in (0, len(whole) // 2, len(whole) - 1):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
            refuse(folder, f"{path.name}: was changed")
        path.write_bytes(whole[:-1])
        refuse(folder, f"{path.name}: has {len(whole) - 1} bytes, the manifest says {len(whole)}")
        path.unlink()
        refuse(folder, f"{path.name}: is missing; restore it")
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 7}, "the manifest says width 7, the index 8"),
        ({"rows": 39}, "the manifest says rows 39, the index 40"),
        ({"format_version": 9}, "format 9, this release reads 1"),
        ({"files": {}}, "is no manifest of an index"),
        ({"model": "m"}, "is no manifest of an index"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(folder, change, message):
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    refuse(folder, message)


def test_a_manifest_names_no_file_elsewhere(folder):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    for name in ("../texts.jsonl", "/etc/passwd", "g000001.other", 7):
        manifest["files"]["texts"]["name"] = name
        path.write_text(json.dumps(manifest))
        refuse(folder, "is no file of an index")


def test_a_folder_without_a_manifest_or_with_a_broken_one(folder):
    (folder / "manifest.json").write_text("{")
    refuse(folder, "not valid JSON")
    (folder / "manifest.json").unlink()
    refuse(folder, "holds no manifest.json, so no finished index")
    refuse(folder / "nowhere", "no such folder")


def test_another_model_is_refused_with_both_fingerprints(folder):
    refuse_other_model(open_index(folder).manifest, folder, "m", "abc")
    with pytest.raises(InputError, match=r"built with m \(fingerprint abc\), asked with n \(xyz\)"):
        refuse_other_model(open_index(folder).manifest, folder, "n", "xyz")


def test_unknown_ids_and_all_ids_are_not_removed(folder):
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(InputError, match="no id '99' in this index .1 of 2 are not."):
        remove_from_index(open_index(folder, to_change=True), ["3", "99"])
    with pytest.raises(InputError, match="nothing would be left"):
        remove_from_index(open_index(folder, to_change=True), [str(row) for row in range(40)])
    assert sorted(path.name for path in folder.iterdir()) == before
