"""``python -m benchmarks NAME [--quick] [--json PATH]``: a table on the terminal, one JSON object at the end."""

import argparse
import importlib
import json
import sys
import time
import warnings
from collections.abc import Sequence
from typing import Any

import datasets
from transformers.utils import logging as transformers_logging

from benchmarks.hardware import describe_hardware
from pair_pkg.errors import run_door
from pair_pkg.records import write_json

NAMES = {
    "mlm": "MLM training against the library's Trainer (--ablation: each technique alone)",
    "pairs": "pair training against sentence-transformers",
    "encode": "texts to vectors against sentence-transformers",
    "tokenize": "corpus to ids against datasets' map",
    "memory": "peak memory of a step, growth with the corpus",
    "scaling": "cost against sequence length, batch tokens and corpus size, as pictures",
    "time_to_perplexity": "seconds of training to a held-out perplexity",
    "search": "FAISS indexes: building, queries a second, recall, beside plain faiss calls",
    "stsb": "a bi-encoder on the STS benchmark: correlation and seconds against sentence-transformers",
    "kills": "runs that are killed at random instants and continued, beside the library's Trainer",
    "signals": "runs that are told to stop at random instants, also by launchers, beside the library's Trainer",
    "fuzz": "every reader on files that atheris made up",
    "damage": "checkpoints with a damaged file, and the run continued, beside the library's Trainer",
    "resume": "runs that died behind each step, over a grid of settings, beside the library's Trainer",
    "faults": "full disks, numbers that are none, changed settings, beside the library's Trainer",
    "batch_splits": "a batch, its halves accumulated, its halves in two processes, beside the library's Trainer",
    "gpu": "tokens/s, MFU and memory on a GPU",
}


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run one benchmark; returns the JSON object that it prints."""
    begin = time.perf_counter()
    settings = vars(build_parser().parse_args(argv))
    name, json_path = settings.pop("name"), settings.pop("json")
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    datasets.disable_progress_bars()
    warnings.filterwarnings("ignore", category=UserWarning, module="torch.utils.data")  # pin_memory without a GPU
    result = _module(name).run(**settings)
    if result is None:  # nothing to measure with, and it has said so
        return {}
    hardware = describe_hardware(settings.get("device", "cpu"))
    seconds = round(time.perf_counter() - begin, 1)
    result.notes.append(f"{seconds:,.1f} seconds in all")
    document = {"benchmark": name, "arguments": settings, **hardware, **result.to_json(), "total_seconds": seconds}
    print(result.render(), end="\n\n")
    print(json.dumps(document, ensure_ascii=False))
    if json_path:
        write_json(json_path, document)
    return document


def build_parser() -> argparse.ArgumentParser:
    """One sub-parser for each benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, summary in NAMES.items():
        command = commands.add_parser(name, help=summary, description=summary)
        command.add_argument("--quick", action="store_true", help="within five minutes on two cores")
        command.add_argument("--json", metavar="PATH", help="write the JSON object there too")
        _module(name).add_arguments(command)
    return parser


def _module(name: str):
    return importlib.import_module(f"benchmarks.{name}")


if __name__ == "__main__":
    sys.exit(run_door(main))
