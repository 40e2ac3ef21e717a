"""The commands of ``python -m pair_pkg``, by name; nothing is imported before one is asked for."""

import importlib
from types import ModuleType

COMMANDS = {
    "pipeline": ("pair_pkg.stages.pipeline", "both stages, from the base and the adapted checkpoint, and the answer"),
    "report": ("pair_pkg.stages.report", "finished runs as one HTML page: the answer, curves, errors, cost, lineage"),
    "history": ("pair_pkg.stages.history", "runs by date, with correct/total and accuracy or perplexity"),
    "ablate": ("pair_pkg.stages.ablation", "what several settings of stage 2 bring, each alone, over some seeds"),
    "score": ("pair_pkg.stages.score", "from a fine-tuned model to calibrated probabilities and verdicts of pairs"),
    "embed": ("pair_pkg.stages.embed", "texts to vectors: npy, jsonl or parquet"),
    "index": ("pair_pkg.stages.index", "a FAISS index of texts: build, add, remove"),
    "search": ("pair_pkg.stages.search", "the nearest texts of an index, reranked by a cross-encoder if asked"),
    "mine": ("pair_pkg.stages.mine", "hard negatives for labelled pairs, candidates for paraphrases"),
    "dedupe": ("pair_pkg.stages.dedupe", "texts of one meaning as clusters"),
    "serve": ("pair_pkg.stages.serve", "a page to try a finished model, here or as a Space of the Hub"),
    "export": ("pair_pkg.stages.exporting", "a finished model for C++, ONNX and others, proven equal to float32"),
    "push": ("pair_pkg.stages.push", "a finished model and its card to the Hub: private, scanned, compared afterwards"),
    "distill": ("pair_pkg.stages.distill", "a bi-encoder from what a cross-encoder says of a corpus's pairs"),
    "doctor": ("pair_pkg.stages.doctor", "this machine: versions, features, disk, what would be chosen, advice"),
    "inspect": ("pair_pkg.stages.inspection", "how a text becomes tokens, and how rows are masked"),
    "completion": ("pair_pkg.stages.completion", "what the Tab key of a shell needs to know of all flags"),
}


def load_command(name: str) -> ModuleType:
    """The module of a command: it has ``main(argv)`` and ``build_parser()``."""
    return importlib.import_module(COMMANDS[name][0])
