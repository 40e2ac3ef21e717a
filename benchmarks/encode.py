"""Texts to vectors: sentences a second, ours against ``SentenceTransformer.encode`` and its int8 backend.

Beside the rate, what the vectors are worth: the average precision of their cosines on the labelled pairs, and the
Spearman correlation on the test part of the English STS benchmark.
"""

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

from benchmarks.inputs import ROOT, minilm_dir, pairs_path, read_pairs
from benchmarks.onnx_int8 import load_in_int8
from benchmarks.openvino_int8 import load_in_openvino_int8
from benchmarks.result import Result, comparison, number
from benchmarks.timing import Contestant, alternate, clocked
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.embedding import encode_texts, hold_in
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.modeling.sentence_folder import load_sentence_encoder
from pair_pkg.pairs.metrics import compute_pair_metrics

ONNX_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
OPENVINO_PACKAGES = ("onnx", "onnxscript", "openvino", "nncf")
STSB_TEST = ROOT.parent / "shared/data/stsb_en/test.csv"
LOWEST_COSINE = 0.9  # to the library's float32 vectors: below it a side computes something else, and is no peer
OURS = "ours"

Encode = Callable[[list[str]], np.ndarray]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", help="a file of pairs whose distinct texts are encoded; unset: MQP")
    parser.add_argument("--max_texts", type=int, help="unset: 600 with --quick, else all")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 3 with --quick, else 5")


def run(quick: bool, pairs: str | None = None, max_texts: int | None = None, rounds: int | None = None) -> Result:
    path, notes = pairs_path(pairs)
    judged = [read_pairs(file) for file in (path, STSB_TEST) if file.is_file()]
    texts = judged[0][0].texts()[: max_texts or (600 if quick else None)]
    result = Result(notes=notes)
    with tempfile.TemporaryDirectory() as work_dir:
        sides = {**_ours(), **_peers(Path(work_dir), texts, result)}
        cosines = _cosines_to_float32(sides, texts[:100])
        wrong = [name for name, cosine in cosines.items() if cosine < LOWEST_COSINE]
        assert OURS not in wrong, f"our vectors are wrong: lowest cosine {cosines[OURS]:.4f}"
        result.notes += [f"note: {name} is left out, its vectors are wrong ({cosines[name]:.4f})" for name in wrong]
        sides = {name: encode for name, encode in sides.items() if name not in wrong}
        metrics = {name: _metrics(encode, judged) for name, encode in sides.items()}
        contestants = {name: _contestant(encode, texts) for name, encode in sides.items()}
        laps = alternate(contestants, rounds or (3 if quick else 5), warm_up_rounds=1)
    extra = {
        name: {
            "lowest cosine to float32": number(cosines[name], 4),
            **{metric.replace("_", " "): number(value, 4) for metric, value in metrics[name].items()},
        }
        for name in sides
    }
    result.tables.append(comparison(f"encoding {len(texts):,} texts, MiniLM", "sentences/s", laps, OURS, extra))
    result.values |= {"sentences_per_second": laps.to_json(), "lowest_cosine_to_float32": cosines, "metrics": metrics}
    return result


def _ours() -> dict[str, Encode]:
    """Ours in the type that this processor multiplies in best, and in int8."""
    dtypes = {OURS: torch.bfloat16 if supports_bfloat16("cpu") else torch.float32, "ours, int8": torch.int8}
    encoder = load_sentence_encoder(minilm_dir())
    held = {name: hold_in(encoder, dtype) for name, dtype in dtypes.items()}
    return {name: partial(encode_texts, held[name], dtype=dtype) for name, dtype in dtypes.items()}


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


def _metrics(encode: Encode, judged: list[tuple[Pairs, LabelScheme]]) -> dict[str, float]:
    """The average precision (binary labels) or Spearman correlation (scores) of the cosines on each set of pairs."""
    metrics = {}
    for pairs, scheme in judged:
        texts = pairs.texts()
        row_of, vectors = {text: row for row, text in enumerate(texts)}, np.asarray(encode(texts), np.float32)
        first, second = (vectors[[row_of[text] for text in side]] for side in (pairs.sentence1, pairs.sentence2))
        name = "spearman" if scheme.kind == "scores" else "average_precision"
        metrics[name] = compute_pair_metrics(scheme.kind, (first * second).sum(1), pairs.labels, threshold=None)[name]
    return metrics
