"""Scores pairs (or texts, for a bi-encoder) with an ONNX export: onnxruntime and tokenizers only, no torch.

    python examples/onnx_runtime.py EXPORT pairs.csv

``pairs.csv`` has the columns sentence1 and sentence2. Prints one line a pair: the probability, the score, or, of a
bi-encoder, the cosine and where it was calibrated the probability.
"""

import csv
import json
import math
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

BATCH = 32


def main(export_dir: str, pairs_path: str) -> list[list[float]]:
    folder = Path(export_dir)
    manifest = json.loads((folder / "export.json").read_text(encoding="utf-8"))
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))  # cuts and pads as the model wants
    with open(pairs_path, encoding="utf-8", newline="") as file:
        pairs = [(row["sentence1"], row["sentence2"]) for row in csv.DictReader(file)]
    if manifest["architecture"] == "cross_encoder":
        outputs = compute(session, tokenizer, pairs)
        if manifest["symmetric"]:  # fitted to be asked in both orders
            swapped = compute(session, tokenizer, [(other, one) for one, other in pairs])
            outputs = both_orders(outputs, swapped, manifest["outputs"][0]["name"])
        lines = [np.atleast_1d(values).tolist() for values in outputs]
    else:
        vectors = [compute(session, tokenizer, [pair[side] for pair in pairs]) for side in (0, 1)]
        cosines = (vectors[0] * vectors[1]).sum(1).tolist()
        lines = [[cosine, *calibrated(cosine, manifest["decision"])] for cosine in cosines]
    for values in lines:
        print(*values)
    return lines


def compute(session: onnxruntime.InferenceSession, tokenizer: Tokenizer, rows: list) -> np.ndarray:
    """What the graph makes of texts or pairs of texts."""
    names = [value.name for value in session.get_inputs()]
    parts = []
    for start in range(0, len(rows), BATCH):
        encodings = tokenizer.encode_batch(rows[start : start + BATCH])
        arrays = {
            "input_ids": np.array([encoding.ids for encoding in encodings]),
            "attention_mask": np.array([encoding.attention_mask for encoding in encodings]),
            "token_type_ids": np.array([encoding.type_ids for encoding in encodings]),
        }
        parts += [session.run(None, {name: arrays[name] for name in names})[0]]
    return np.concatenate(parts)


def both_orders(one: np.ndarray, other: np.ndarray, output: str) -> np.ndarray:
    """The answer whose bare score is the mean of both orders'."""
    if output == "score":
        return (one + other) / 2
    yes = np.sqrt(one * other)
    if output == "probability":
        return yes / (yes + np.sqrt((1 - one) * (1 - other)))
    return yes / yes.sum(1, keepdims=True)


def calibrated(cosine: float, decision: dict | None) -> list[float]:
    """The probability of a cosine, where the model was calibrated for yes and no."""
    if not decision or decision["kind"] != "binary":
        return []
    return [1 / (1 + math.exp(-(cosine - decision["center"]) / decision["temperature"]))]


if __name__ == "__main__":
    main(*sys.argv[1:])
