"""``index`` and ``search``: build, add, remove, rebuild, ask; every generation is whole, verified and of one model."""

import json
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pair_pkg.__main__ import main
from pair_pkg.errors import InputError
from pair_pkg.search import index_changes, index_folder, vector_job
from pair_pkg.search.index_folder import open_index

ROOT = Path(__file__).parents[2]


@pytest.fixture
def texts_path(tmp_path, tiny_documents):
    path = tmp_path / "texts.csv"
    rows = "".join(f'k{row},"{text}"\n' for row, text in enumerate(tiny_documents))
    path.write_text("key,text\n" + rows, encoding="utf-8")
    return path


@pytest.fixture
def index(tiny_bi_encoder, tmp_path):
    """``index(words...)``: the manifest of ``tmp_path/index``."""

    def run(*words):
        model = [] if {"--remove", "--rebuild"} & set(words) else ["--model", tiny_bi_encoder]
        return main(["index", *map(str, words), *model, "--output", str(tmp_path / "index")])

    return run


@pytest.fixture
def ask(tmp_path):
    """``ask(query, flags...)``: ids of the hits."""

    def run(query, *flags):
        answers = main(["search", "--index", str(tmp_path / "index"), query, "--json", *flags])
        return [hit["id"] for hit in answers[0]["hits"]]

    return run


@pytest.mark.parametrize("index_type", ["flat", "hnsw"])
def test_the_nearest_text_of_a_text_is_itself_through_adding_removing_and_rebuilding(
    index, ask, texts_path, tiny_documents, tmp_path, index_type
):
    manifest = index(texts_path, "--id_column", "key", "--index_type", index_type)
    assert (manifest["texts"], manifest["index_type"], manifest["width"]) == (200, index_type, 128)
    assert manifest["recall"]["own_texts"]["recall"] > 0.98
    assert ask(tiny_documents[17])[0] == "k17"

    (tmp_path / "more.csv").write_text('key,text\nnew,"a very different sentence on clouds"\n')
    manifest = index(tmp_path / "more.csv", "--add", "--id_column", "key")
    assert manifest["texts"] == 201 and ask("a very different sentence on clouds")[0] == "new"

    manifest = index("--remove", "k17", "new")
    assert manifest["texts"] == 199 and manifest["removed"] == (2 if index_type == "hnsw" else 0)
    assert not {"k17", "new"} & set(ask(tiny_documents[17], "--top_k", "250"))
    assert len(ask(tiny_documents[17], "--top_k", "250")) == 199
    gone = open_index(tmp_path / "index").store.path.read_text(encoding="utf-8")
    assert "clouds" not in gone and '"k17"' not in gone and '"k18"' in gone
    with pytest.raises(InputError, match="no id 'k17' in this index"):
        index("--remove", "k17")

    manifest = index("--rebuild")
    assert (manifest["index_type"], manifest["rows"], manifest["removed"]) == ("flat", 199, 0)
    assert ask(tiny_documents[18])[0] == "k18" and manifest["ids"] == "key"
    files = sorted(path.name for path in (tmp_path / "index").iterdir())
    generation = f"g{manifest['generation']:06}"
    expected = [f"{generation}.{name}" for name in ("index.faiss", "offsets.npy", "texts.jsonl")]
    assert files == [".lock", *expected, "manifest.json"]


def test_a_graph_is_built_anew_once_a_fifth_is_removed(index, texts_path, ask, tiny_documents):
    index(texts_path, "--id_column", "key", "--index_type", "hnsw")
    manifest = index("--remove", *(f"k{row}" for row in range(40)))
    assert (manifest["rows"], manifest["removed"]) == (200, 40)
    manifest = index("--remove", "k40")
    assert (manifest["rows"], manifest["removed"], manifest["index_type"]) == (159, 0, "hnsw")
    assert ask(tiny_documents[41])[0] == "k41"


def test_rows_are_numbered_where_there_are_no_ids_and_no_number_comes_twice(index, ask, tmp_path, capsys):
    (tmp_path / "a.txt").write_text("the old pump\n\nthe new filter\n")
    manifest = index(tmp_path / "a.txt")
    assert manifest["next_row_number"] == 3 and ask("the new filter")[0] == "2"
    assert "1 empty texts are left out, the first at" in capsys.readouterr().err
    index("--remove", "2")
    (tmp_path / "b.txt").write_text("the blue meter\n")
    index(tmp_path / "b.txt", "--add")
    assert "ids of the new texts: 3 to 3" in capsys.readouterr().out
    assert ask("the blue meter")[0] == "3"


def test_vectors_of_embed_give_the_same_index(index, ask, texts_path, tiny_bi_encoder, tmp_path, tiny_documents):
    vectors = tmp_path / "v.npy"
    main(["embed", "--model", tiny_bi_encoder, str(texts_path), "--output", str(vectors)])
    index(texts_path, "--vectors", vectors, "--recall_queries", texts_path)
    opened = open_index(tmp_path / "index")
    assert opened.manifest["recall"]["held_out"] == {"queries": 200, "recall": 1.0}
    assert ask(tiny_documents[5])[0] == "5"
    index(texts_path, "--overwrite")
    np.testing.assert_allclose(
        index_changes.stored_vectors(opened.index), index_changes.stored_vectors(open_index(tmp_path / "index").index)
    )


def test_a_killed_build_goes_on(index, texts_path, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(vector_job, "CHUNK_ROWS", 32)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr(index_folder, "save_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        index(texts_path)
    with pytest.raises(InputError, match="holds no manifest.json, so no finished index"):
        main(["search", "--index", str(tmp_path / "index"), "query"])
    assert index(texts_path)["texts"] == 200
    assert "going on behind row 200 of 200" in capsys.readouterr().err
    assert not list((tmp_path / "index").glob("embedding*"))


def test_a_change_that_dies_leaves_the_old_index(index, ask, texts_path, tmp_path, monkeypatch, tiny_documents):
    index(texts_path)
    monkeypatch.setattr(index_folder, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        index("--remove", "0")
    monkeypatch.undo()
    assert ask(tiny_documents[0])[0] == "0"
    index("--remove", "0")
    assert ask(tiny_documents[0])[0] != "0"


def test_another_model_is_refused_with_both_fingerprints(index, texts_path, tiny_bi_encoder, tmp_path):
    manifest = index(texts_path)
    other = tmp_path / "other"
    shutil.copytree(tiny_bi_encoder, other)
    settings = json.loads((other / "1_Pooling/config.json").read_text())
    settings = {**settings, "pooling_mode": "cls"}
    (other / "1_Pooling/config.json").write_text(json.dumps(settings))
    words = ["--index", str(tmp_path / "index"), "--model", str(other)]
    with pytest.raises(InputError, match=rf"built with .* \(fingerprint {manifest['model']['fingerprint']}\), asked"):
        main(["search", *words, "query"])
    with pytest.raises(InputError, match="built with"):
        main(["index", "--add", str(texts_path), "--model", str(other), "--output", str(tmp_path / "index")])


def test_two_processes_do_not_change_one_index_at_once(index, texts_path, tmp_path):
    index(texts_path)
    with index_folder.changing(tmp_path / "index"), pytest.raises(InputError, match="another process is changing"):
        index("--remove", "0")


# ---- answers ----


@pytest.fixture
def built(index, texts_path, tmp_path):
    (tmp_path / "odd.txt").write_text("a red \x1b[31m pump\n", encoding="utf-8")
    index(texts_path, tmp_path / "odd.txt")
    return str(tmp_path / "index")


def test_a_table_for_a_person_shows_no_control_character(built, capsys):
    main(["search", "--index", built, "a red pump", "the old pump", "--top_k", "2"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed and "a red \\x1b[31m pump" in printed
    assert printed.count("cosine  id") == 2 and "same" not in printed


def test_queries_from_files_and_answers_as_json_lines(built, tmp_path, capsys, tiny_documents):
    (tmp_path / "q.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in tiny_documents[:3]))
    output = tmp_path / "answers.jsonl"
    main(["search", "--index", built, "--queries", str(tmp_path / "q.jsonl"), "--output", str(output)])
    answers = [json.loads(line) for line in output.read_text().splitlines()]
    assert [answer["hits"][0]["id"] for answer in answers] == ["0", "1", "2"]
    assert [answer["query"] for answer in answers] == tiny_documents[:3]
    assert answers[0]["hits"][0]["cosine"] == pytest.approx(1, abs=1e-5)


def test_queries_beyond_the_model_s_length_are_counted(built, caplog):
    main(["search", "--index", built, "the old pump", "the filter " * 200])
    assert "1 of 2 distinct texts are longer than the model's 128 tokens" in caplog.text


def test_lines_of_a_pipe_are_queries(built):
    words = [sys.executable, "-m", "pair_pkg", "search", "--index", built, "--json", "--top_k=1"]
    done = subprocess.run(words, input="a red pump\n\nthe filter\n", capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["query"] for line in done.stdout.splitlines()] == ["a red pump", "the filter"]


@pytest.mark.slow
def test_a_terminal_is_asked_until_ctrl_d(built):
    leader, follower = pty.openpty()
    words = [sys.executable, "-m", "pair_pkg", "search", "--index", built, "--top_k=1"]
    process = subprocess.Popen(words, stdin=follower, stdout=follower, stderr=follower, cwd=ROOT)
    os.close(follower)
    seen = b""
    for typed in (b"a red pump\n", b" \n", b"the filter\n", b"\x04"):
        seen += _read_until(leader, b"query> ")
        os.write(leader, typed)
    assert process.wait(timeout=60) == 0
    assert seen.count(b"cosine") == 2 and b"Ctrl-D ends" in seen
    assert seen.count(b"the query is empty; type some words") == 1
    os.close(leader)


def _read_until(descriptor, wanted):
    seen = b""
    while wanted not in seen:
        seen += os.read(descriptor, 4096)
    return seen


def test_flags_of_search_that_make_no_sense(built, tmp_path, monkeypatch):
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    (tmp_path / "q.jsonl").write_text('{"text": "the old pump"}\n')
    queries, blank = str(tmp_path / "q.jsonl"), str(tmp_path / "blank.txt")
    (tmp_path / "blank.txt").write_text("\n \n")
    for words, message in (
        (["query", " "], "query 2 of 2: is empty; give words to search for"),
        (["--queries", blank], "no query is left; give words, a file with --queries"),
        (["--output", "a.jsonl"], "no queries to answer there; give them as words or with --queries"),
        (["--queries", queries, "--output", queries], "is one of the files that are read; name another"),
        (["query", "--top_k=0"], "give at least 1"),
        (["query", "--queries", "q.txt"], "as words or as a file, not both"),
        (["query", "--output", "a.csv"], "name it .jsonl"),
    ):
        with pytest.raises(InputError, match=message):
            main(["search", "--index", built, *words])


def test_flags_that_a_change_would_pass_over_and_recall_without_queries(index, texts_path, tmp_path):
    index(texts_path)
    for words, message in (
        (["--remove", "0", "--index_type", "hnsw"], "--index_type: says nothing to --remove; leave it out"),
        (["--rebuild", "--overwrite"], "--overwrite: says nothing to --rebuild; leave it out"),
    ):
        with pytest.raises(InputError, match=message):
            index(*words)
    assert index("--rebuild", "--index_type", "hnsw")["index_type"] == "hnsw"
    (tmp_path / "q.txt").write_text("\n")
    with pytest.raises(InputError, match="q.txt: no query is left; check the file"):
        index(texts_path, "--overwrite", "--recall_queries", tmp_path / "q.txt")
