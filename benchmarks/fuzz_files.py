"""The readers of data files, recipes and vectors, with whole files to begin from, for ``benchmarks fuzz``."""

import io
import json
from collections.abc import Callable
from gzip import compress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.fuzz_judge import JSON_EDGES, TEXT_EDGES, Reader, arrays, jsons
from pair_pkg.data.corpus import CorpusAudit, clean_documents, read_documents
from pair_pkg.data.files import read_lines
from pair_pkg.data.labels import detect_labels
from pair_pkg.data.pairs import load_pairs
from pair_pkg.data.strict_json import parse_json
from pair_pkg.data.tables import read_table
from pair_pkg.search.vector_files import open_vectors
from pair_pkg.stages.masking import read_words
from pair_pkg.stages.pipeline import read_recipe as read_pipeline
from pair_pkg.training.settings import read_recipe

ENCODINGS = (
    None,
    "utf-8",
    "utf-16",
    "utf-16-le",
    "utf-32",
    "gb18030",
    "cp1252",
    "shift_jis",
    "utf-7",
    "idna",
    "hex",
    "punycode",
    "unicode_escape",
    "raw_unicode_escape",
    "undefined",
    "iso2022_jp",
    "hz",
    "nonsense",
)
FLAGS = ("seed", "train_file", "lr_scheduler_kwargs", "class_names")
LINES = "the old pump leaks\n旧水泵漏水\n\na small valve\tsticks\r\nlast line".encode()
RECIPE = (
    b"seed: 1\ntrain_file: [a.txt, b.txt]\nlr_scheduler_kwargs: {num_cycles: 2}\nsection:\n  class_names: [no, ~]\n"
)
RECIPE_EDGES = (
    b"? [a]\n: b\n",
    b"[" * 2000,
    b"lr_scheduler_kwargs: {a: " + b"1" * 5000 + b"}",
    b"a: &a [*a]\n",
    b"lr_scheduler_kwargs: {a: '" + b"[" * 3000 + b"'}",
    b"".join(b"k%d: &k%d {a: *k%d, b: *k%d}\n" % (n, n, n - 1, n - 1) for n in range(1, 30)),
    b"k0: &k0 {a: b}\n"
    + b"".join(b"k%d: &k%d {a: *k%d, b: *k%d}\n" % (n, n, n - 1, n - 1) for n in range(1, 30))
    + b"lr_scheduler_kwargs: *k29\n",
    b"{? {a: b} : c}",
    b"seed: !!python/object/apply:os.mkdir [a]",
    b"--- a\n--- b\n",
    b"a: \x01\n",
)
PIPELINE = b"base_model: a\noutput_dir: b\nseeds: [1, 2]\nmlm: {train_file: a.txt}\npairs:\n  train_file: p.csv\n"

ROWS = [{"text": "旧水泵 leaks", "label": 1}, {"text": "a\u2028b", "label": None}]
PAIR_ROWS = b'sentence1,sentence2,label\na pump,"a, ""valve""",1\nold,new,0\nc,d,yes\n'
TABLE = pa.table({"text": ["a", "b", None], "label": [1, 2, 3], "when": pa.array([0, 1, 2], pa.timestamp("us", "UTC")),
                  "many": [[1], None, [2, 3]]})  # fmt: skip
VECTORS = pa.table({"embedding": pa.array([[0.6, 0.8], [1.0, 0.0]], pa.list_(pa.float32(), 2))})


def _texts(*more: bytes) -> Callable[[Path], list[bytes]]:
    return lambda folder: [*more, *TEXT_EDGES]


def _read_corpus(path: Path) -> None:
    for document_per in ("auto", "blank_line"):
        documents = read_documents([path], encoding="utf-8", document_per=document_per)
        for _ in clean_documents(documents, CorpusAudit()):
            pass


def _read_encoded(path: Path) -> None:
    """The first byte is the number of an encoding."""
    content = path.read_bytes()
    path.write_bytes(content[1:])
    for _ in read_lines(path, ENCODINGS[content[0] % len(ENCODINGS)] if content else None):
        pass


def _read_table(path: Path) -> None:
    for row in read_table(path, encoding="utf-8"):
        assert isinstance(row.values, dict)


def _read_pairs(path: Path) -> None:
    for labelled in (True, False):
        load_pairs([str(path)], encoding="utf-8", labelled=labelled, label_optional=not labelled)


def _read_labels(path: Path) -> None:
    """A JSON list of labels."""
    values = parse_json(path.read_bytes().decode("utf-8", "replace"), path, 1)
    if isinstance(values, list):
        places = [f"{path}:{row}" for row in range(1, len(values) + 1)]
        detect_labels(values, places).encode_all(values, places)


def _read_job_recipe(path: Path) -> None:
    read_recipe(str(path), FLAGS)


def _read_pipeline_recipe(path: Path) -> None:
    read_pipeline(str(path))


def _parquets(*tables: pa.Table) -> Callable[[Path], list[bytes]]:
    def write(table: pa.Table, **settings: Any) -> bytes:
        file = io.BytesIO()
        pq.write_table(table, file, **settings)
        return file.getvalue()

    settings = ({"compression": "none", "use_dictionary": False}, {"compression": "zstd"})
    return lambda folder: [write(table, **setting) for table in tables for setting in settings]


FILES = {
    "txt": Reader("corpus.txt", _read_corpus, _texts(LINES)),
    "txt.gz": Reader(
        "corpus.txt.gz", _read_corpus, lambda folder: [compress(LINES), compress(LINES * 9)[:-9], *TEXT_EDGES]
    ),
    "encodings": Reader(
        "lines.txt",
        _read_encoded,
        lambda folder: [
            bytes([number]) + LINES.decode().encode(name or "utf-8", "replace")
            if name in ENCODINGS[:6]
            else bytes([number]) + b"a+2AA-b\\ud800"
            for number, name in enumerate(ENCODINGS)
        ],
        share=0.1,
    ),
    "csv": Reader("rows.csv", _read_table, _texts(PAIR_ROWS, b'text\n"a\nb"\n')),
    "tsv": Reader("rows.tsv", _read_table, _texts(PAIR_ROWS.replace(b",", b"\t"), LINES)),
    "json": Reader("rows.json", _read_table, jsons(ROWS, {"data": ROWS})),
    "jsonl": Reader(
        "rows.jsonl",
        _read_table,
        lambda folder: [b"\n".join(json.dumps(row, ensure_ascii=False).encode() for row in ROWS), *JSON_EDGES],
    ),
    "csv.gz": Reader("rows.csv.gz", _read_table, lambda folder: [compress(PAIR_ROWS), *TEXT_EDGES]),
    "parquet": Reader("rows.parquet", _read_table, _parquets(TABLE)),
    "pairs csv": Reader("pairs.csv", _read_pairs, _texts(PAIR_ROWS, PAIR_ROWS.split(b"\n", 1)[1])),
    "pairs jsonl": Reader(
        "pairs.jsonl",
        _read_pairs,
        lambda folder: [
            b'{"sentence1": "a", "sentence2": "b", "label": 1}\n{"sentence1": "c", "sentence2": "d", "label": 0.5}',
            *JSON_EDGES,
        ],
    ),
    "labels": Reader(
        "labels.json",
        _read_labels,
        jsons(
            [0, 1, 1.0, "1", True],
            ["yes", "no", "maybe"],
            [0.5, 4.75, 5],
            ["a", 1],
            [None, 1],
            [1e999, 2],
            ["1_0", "2"],
            ["ı", "I"],
        ),
    ),
    "word lists": Reader("words.txt", lambda path: read_words(str(path), "--term_list"), _texts(LINES), share=0.1),
    "recipe yaml": Reader("recipe.yaml", _read_job_recipe, lambda folder: [RECIPE, *RECIPE_EDGES], share=0.1),
    "recipe json": Reader(
        "recipe.json",
        _read_job_recipe,
        jsons({"seed": 1, "train_file": ["a.txt"], "section": {"class_names": ["no"]}}),
    ),
    "pipeline yaml": Reader(
        "pipeline.yaml", _read_pipeline_recipe, lambda folder: [PIPELINE, *RECIPE_EDGES], share=0.1
    ),
    "vectors npy": Reader("v.npy", lambda path: open_vectors(path).sum(), arrays),
    "vectors jsonl": Reader(
        "v.jsonl", open_vectors, lambda folder: [b"[0.6, 0.8]\n[1, 0.0]\n", b'["1", null]\n', *JSON_EDGES]
    ),
    "vectors parquet": Reader("v.parquet", open_vectors, _parquets(VECTORS, TABLE)),
}
