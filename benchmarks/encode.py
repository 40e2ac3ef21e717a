"""Texts to vectors: sentences a second, ours against ``SentenceTransformer.encode`` and its int8 backend."""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.inputs import minilm_dir, pairs_path, read_pairs
from benchmarks.onnx_int8 import load_in_int8
from benchmarks.openvino_int8 import load_in_openvino_int8
from benchmarks.result import Result, comparison
from benchmarks.timing import Contestant, alternate, clocked
from pair_pkg.modeling.embedding import encode_texts, hold_in
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.modeling.sentence_folder import load_sentence_encoder

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPENVINO_PACKAGES = ("onnx", "onnxscript", "openvino", "nncf")
LOWEST_COSINE = 0.9  # to the library's float32 vectors: below it a side computes something else, and is no peer
OURS = "ours"

Encode = Callable[[list[str]], np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", help="a file of pairs whose distinct texts are encoded; unset: MQP")
    parser.add_argument("--max_texts", type=int, help="unset: 600 with --quick, else all")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 3 with --quick, else 5")


def run(quick: bool, pairs: str | None = None, max_texts: int | None = None, rounds: int | None = None) -> Result:
    path, notes = pairs_path(pairs)
    texts = read_pairs(path)[0].texts()[: max_texts or (600 if quick else None)]
    result = Result(notes=notes)
    with tempfile.TemporaryDirectory() as work_dir:
        sides = {OURS: _ours(), **_peers(Path(work_dir), texts, result)}
        cosines = _cosines_to_float32(sides, texts[:100])
        wrong = [name for name, cosine in cosines.items() if cosine < LOWEST_COSINE]
        assert OURS not in wrong, f"our vectors are wrong: lowest cosine {cosines[OURS]:.4f}"
        result.notes += [f"note: {name} is left out, its vectors are wrong ({cosines[name]:.4f})" for name in wrong]
        contestants = {name: _contestant(encode, texts) for name, encode in sides.items() if name not in wrong}
        laps = alternate(contestants, rounds or (3 if quick else 5), warm_up_rounds=1)
    extra = {name: {"lowest cosine to float32": f"{cosine:.4f}"} for name, cosine in cosines.items()}
    result.tables.append(comparison(f"encoding {len(texts):,} texts, MiniLM", "sentences/s", laps, OURS, extra))
    result.values |= {"sentences_per_second": laps.to_json(), "lowest_cosine_to_float32": cosines}
    return result


def _ours() -> Encode:
    dtype = torch.bfloat16 if supports_bfloat16("cpu") else torch.float32
    encoder = hold_in(load_sentence_encoder(minilm_dir()), dtype)
    return lambda texts: encode_texts(encoder, texts, dtype=dtype)


def _peers(work_dir: Path, texts: list[str], result: Result) -> dict[str, Encode]:
    """sentence-transformers by its default, in bfloat16, and with int8 in ONNX Runtime and OpenVINO where installed."""
    float32 = SentenceTransformer(minilm_dir(), device="cpu")
    peers: dict[str, Encode] = {"SentenceTransformer, float32": _encode_of(float32)}
    if supports_bfloat16("cpu"):
        half = SentenceTransformer(minilm_dir(), device="cpu", model_kwargs={"dtype": torch.bfloat16})
        peers["SentenceTransformer, bfloat16"] = _encode_of(half)
    backends = {
        "SentenceTransformer, ONNX int8": (ONNX_PACKAGES, partial(load_in_int8, minilm_dir(), work_dir)),
        "SentenceTransformer, OpenVINO int8": (
            OPENVINO_PACKAGES,
            partial(load_in_openvino_int8, minilm_dir(), work_dir, texts),
        ),
    }
    for name, (packages, load) in backends.items():
        missing = [package for package in packages if importlib.util.find_spec(package) is None]
        if missing:
            result.notes.append(f"note: {name} is not measured: {', '.join(missing)} not installed (extra: bench)")
        else:
            peers[name] = _encode_of(load())
    return peers


def _encode_of(model: SentenceTransformer) -> Encode:
    return lambda texts: model.encode(texts, show_progress_bar=False)


def _contestant(encode: Encode, texts: list[str]) -> Contestant:
    return clocked(lambda: float(len(encode(texts))))


def _cosines_to_float32(sides: dict[str, Encode], texts: list[str]) -> dict[str, float]:
    """The lowest cosine of a text's vector to the library's own in float32, by side."""
    reference = sides["SentenceTransformer, float32"](texts)
    return {
        name: float((np.asarray(encode(texts), np.float32) * reference).sum(1).min()) for name, encode in sides.items()
    }
