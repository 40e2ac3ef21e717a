"""``python -m pair_pkg COMMAND``: the commands that are not one of the two stages."""

import importlib
import sys
from collections.abc import Sequence

from pair_pkg import __version__
from pair_pkg.errors import InputError, run_door

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
    "export": ("pair_pkg.stages.exporting", "a finished model for C++, ONNX and others, proven equal to float32"),
    "push": ("pair_pkg.stages.push", "a finished model and its card to the Hub: private, scanned, compared afterwards"),
    "distill": (
        "pair_pkg.stages.distill",
        "a bi-encoder from what a cross-encoder says of a corpus's pairs",
    ),
    "doctor": ("pair_pkg.stages.doctor", "this machine: versions, features, disk, what would be chosen, advice"),
    "inspect": ("pair_pkg.stages.inspection", "how a text becomes tokens, and how rows are masked"),
}
USAGE = "\n".join(
    [
        f"pair_pkg {__version__}: usage: python -m pair_pkg COMMAND ... (--help after a command shows its flags)",
        *(f"  {name:<10}{summary}" for name, (_, summary) in COMMANDS.items()),
        "the two stages by themselves: python run_mlm.py --help, python run_pair_cls.py --help",
    ]
)


def main(argv: Sequence[str] | None = None) -> object:
    """Run the command that the first word names."""
    words = list(sys.argv[1:] if argv is None else argv)
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        return None
    if words[0] not in COMMANDS:
        raise InputError(f"{words[0]}: no such command; take one of {', '.join(COMMANDS)}")
    return importlib.import_module(COMMANDS[words[0]][0]).main(words[1:])


def command() -> int:
    """The console command ``pair_pkg``."""
    return run_door(main)


if __name__ == "__main__":
    raise SystemExit(command())
