"""The readers of what runs and checkpoints leave, with whole files to begin from, for ``benchmarks fuzz``.

A seal or a sha256 that would stop every change at the gate is made anew, as one who means harm would, so that what lies
behind it is read too.
"""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks.fuzz_judge import JSON_EDGES, TEXT_EDGES, Reader, arrays, jsons
from pair_pkg.data.labels import LabelScheme
from pair_pkg.modeling.sentence_folder import fingerprint_encoder
from pair_pkg.modeling.sources import check_settings, refuse_without_weights
from pair_pkg.pairs.decision import Decision, load_decision, save_decision
from pair_pkg.records import file_sha256, fingerprint, write_json, write_record
from pair_pkg.search.index_changes import create_index
from pair_pkg.search.index_folder import FILES, MANIFEST, open_index
from pair_pkg.search.text_store import Record
from pair_pkg.stages.run_folders import read_run
from pair_pkg.training.checkpoints import open_run
from pair_pkg.training.manifest import seal_checkpoint

IDENTITY = {"seed": 1, "stage": "pairs"}
MODULES = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
           {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"}]  # fmt: skip


def _index_folder(folder: Path) -> dict[str, Path]:
    vectors = np.random.default_rng(0).standard_normal((12, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    facts = {"model": {"name": "m", "fingerprint": "abc"}, "ids": "row numbers", "next_row_number": 12}
    create_index(folder, [Record(str(row), f"text {row} 水泵\n") for row in range(12)], vectors, facts)
    return {part: folder / f"g000001.{name}" for part, name in FILES.items()}


def _index_part(part: str) -> Callable[[Path], list[bytes]]:
    def prepare(folder: Path) -> list[bytes]:
        whole = _index_folder(folder)[part].read_bytes()
        return [whole, *(arrays(folder) if part == "offsets" else [whole.replace(b'"id"', b'"di"')])]

    return prepare


def _index_manifest(folder: Path) -> list[bytes]:
    _index_folder(folder)
    return [(folder / MANIFEST).read_bytes(), *JSON_EDGES]


def _read_index(path: Path) -> None:
    opened = open_index(path.parent)
    list(opened.store)
    opened.records(np.arange(12))


def _read_index_part(path: Path) -> None:
    """A file of an index whose manifest was made to fit."""
    manifest = json.loads((path.parent / MANIFEST).read_text())
    part = next(part for part, name in FILES.items() if path.name.endswith(name))
    manifest["files"][part] = {"name": path.name, "bytes": path.stat().st_size, "sha256": file_sha256(path)}
    (path.parent / MANIFEST).write_text(json.dumps(manifest))
    _read_index(path)


def _checkpoint(folder: Path) -> list[bytes]:
    """The file is the manifest of ``checkpoint-7``, which lies elsewhere while it is changed."""
    staging, place = folder / ".saving", folder / "checkpoint-7"
    staging.mkdir()
    (staging / "model.safetensors").write_bytes(b"weights")
    facts = {"step": 7, "identity": IDENTITY, "world_size": 1, "can_be_continued": True, "scheduled": True}
    facts |= {"at_epoch_end": False, "not_logged": {"loss": 0.5, "since_step": 5}}
    seal_checkpoint(staging, place, facts)
    write_record(folder, {"status": "running", "identity": IDENTITY})
    return [(place / "manifest.json").read_bytes(), *JSON_EDGES]


def _read_checkpoint(path: Path) -> None:
    """Sealed anew, where the manifest is one at all."""
    content = path.read_bytes()
    try:
        document = json.loads(content)
        del document["seal"]
        content = json.dumps({"seal": fingerprint(document), **document}).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    checkpoint = path.parent / "checkpoint-7"
    (checkpoint / "manifest.json").write_bytes(content)
    open_run(str(path.parent), IDENTITY)
    open_run(str(path.parent), IDENTITY, resume_from_checkpoint=str(checkpoint))


def _run_record(folder: Path) -> list[bytes]:
    rows = "sentence1,sentence2,label,score,prediction,raw_score\na,b,yes,0.9,yes,1.5\nc,d,no,0.2,no,-1.0\n"
    (folder / "test_predictions.csv").write_text(rows)
    labels = LabelScheme("binary", ["no", "yes"]).to_json()
    write_record(folder, {"status": "running", "stage": "pairs", "identity": IDENTITY, "labels": labels})
    return [(folder / "run.json").read_bytes(), *JSON_EDGES]


def _read_run(path: Path) -> None:
    read_run(path.parent)
    open_run(str(path.parent), IDENTITY)


def _predictions(folder: Path) -> list[bytes]:
    _run_record(folder)
    return [(folder / "test_predictions.csv").read_bytes(), *TEXT_EDGES]


def _read_predictions(path: Path) -> None:
    read_run(path.parent)


def _decision(folder: Path) -> list[bytes]:
    save_decision(Decision("binary", 1.5, 0.1, 0.5, "accuracy"), folder)
    whole = json.loads((folder / "decision.json").read_text())
    changes = ({"threshold": "0.5"}, {"center": None}, {"temperature": float("inf")}, {"kind": "classes"})
    return [json.dumps({**whole, **change}).encode() for change in ({}, *changes)] + list(JSON_EDGES)


def _read_decision(path: Path) -> None:
    decision = load_decision(path.parent)
    if decision is not None:
        decision.decide(decision.probability(np.zeros(3) if decision.kind == "binary" else np.zeros((3, 2))))


def _read_config(path: Path) -> None:
    check_settings(str(path.parent), (path.name,), {})


def _config(folder: Path) -> list[bytes]:
    config = {"model_type": "bert", "architectures": ["BertModel"], "hidden_size": 32, "nested": {"auto_map": {}}}
    write_json(folder / "config.json", config)
    return [(folder / "config.json").read_bytes(), *JSON_EDGES]


def _read_shards(path: Path) -> None:
    refuse_without_weights(str(path.parent))


def _read_modules(path: Path) -> None:
    fingerprint_encoder(str(path.parent))


FOLDERS = {
    "index manifest": Reader(MANIFEST, _read_index, _index_manifest),
    "index texts": Reader("g000001.texts.jsonl", _read_index_part, _index_part("texts")),
    "index offsets": Reader("g000001.offsets.npy", _read_index_part, _index_part("offsets")),
    "checkpoint manifest": Reader("candidate.json", _read_checkpoint, _checkpoint),
    "run.json": Reader("run.json", _read_run, _run_record),
    "predictions": Reader("test_predictions.csv", _read_predictions, _predictions),
    "decision.json": Reader("decision.json", _read_decision, _decision),
    "config.json": Reader("config.json", _read_config, _config),
    "shard names": Reader(
        "model.safetensors.index.json", _read_shards, jsons({"weight_map": {"a": "b.safetensors", "c": "../d"}})
    ),
    "modules.json": Reader("modules.json", _read_modules, jsons(MODULES)),
}
