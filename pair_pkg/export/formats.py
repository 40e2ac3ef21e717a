"""The formats: how each is built, loaded and looked into, and the lines that load it elsewhere."""

# B rows of a batch, T tokens of the longest

import importlib.util
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from pair_pkg.errors import InputError
from pair_pkg.export import checkpoint, int8, onnx_graph, program, torchscript
from pair_pkg.export.gate import Run, module_norms, run_of
from pair_pkg.export.source import Finished

logger = logging.getLogger("pair_pkg")

Inputs = tuple[np.ndarray, ...]  # (B, T) int64 each


@dataclass(frozen=True)
class Format:
    """One format. ``folder`` is where its files are written, or lie."""

    summary: str
    build: Callable[[Finished, Path], nn.Module | None]  # the module that is in the files, where they hide its layers
    load: Callable[[Path, dict[str, Any]], Run]
    file: str | None = None  # the graph, where it is one file
    norms: Callable[[Path, dict[str, Any], Inputs], list[np.ndarray]] | None = None  # what its layers give
    exact: bool = False  # float32: equal to 1e-4
    half: str | None = None  # the precision whose use depends on the hardware
    needs: tuple[str, ...] = ()  # packages beyond the installation, by the extra that brings them
    extra: str = ""
    compiles: bool = False


def check_formats(names: Sequence[str]) -> list[str]:
    """The formats asked for, each once, "all" as what can be built here. Raises ``InputError`` for another word."""
    unknown = [name for name in names if name not in FORMATS and name != "all"]
    if unknown:
        raise InputError(f"--to {unknown[0]}: no such format; take one of {', '.join(FORMATS)}, or all")
    chosen = [name for name in dict.fromkeys(names) if name != "all"]
    for name in chosen:
        reason = why_not_here(name)
        if reason:
            raise InputError(f"--to {name}: {reason}")
    if "all" in names:
        for name in FORMATS:
            reason = why_not_here(name)
            if reason:
                logger.warning("%s is left out: %s", name, reason)
            elif name not in chosen:
                chosen.append(name)
    return chosen


def why_not_here(name: str) -> str | None:
    """What a format lacks on this machine, with the cure, or None."""
    reason = _missing_packages(name, FORMATS[name].needs)
    return reason or (program.why_no_compiler() if FORMATS[name].compiles else None)


def why_not_loaded(name: str) -> str | None:
    """What this machine lacks to run an export of a format, with the cure, or None; machine code needs no compiler."""
    return _missing_packages(name, () if FORMATS[name].compiles else FORMATS[name].needs)


def _missing_packages(name: str, packages: Sequence[str]) -> str | None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if not missing:
        return None
    return f"needs {', '.join(missing)}; install with: pip install 'pair-pkg[{FORMATS[name].extra}]'"


def _build_traced(finished: Finished, folder: Path) -> None:
    torchscript.trace(finished, folder / TRACED)


def _build_program(finished: Finished, folder: Path) -> None:
    program.save_program(program.capture(finished.graph, finished), folder / PROGRAM)


def _build_package(finished: Finished, folder: Path) -> nn.Module:
    program.compile_program(program.capture(finished.graph, finished), folder / PACKAGE)
    return finished.graph


def _build_int8(finished: Finished, folder: Path) -> nn.Module:
    quantized = int8.quantize(finished)
    program.compile_program(program.capture(quantized, finished), folder / PACKAGE)
    return quantized


def _build_onnx(finished: Finished, folder: Path) -> None:
    onnx_graph.export_onnx(finished, folder / ONNX)


def _build_onnx_int8(finished: Finished, folder: Path) -> None:
    onnx_graph.export_onnx(finished, folder / "float32.onnx")
    onnx_graph.quantize(folder / "float32.onnx", folder / ONNX, onnx_graph.is_large(finished))
    for path in folder.glob("float32.onnx*"):
        path.unlink()


def _build_legacy(finished: Finished, folder: Path) -> None:
    checkpoint.save_legacy(finished, folder)


def _build_sentence_transformers(finished: Finished, folder: Path) -> None:
    checkpoint.save_sentence_transformers(finished, folder)


def _build_half(finished: Finished, folder: Path, dtype: torch.dtype) -> nn.Module:
    return checkpoint.save_checkpoint(finished, folder, dtype)


def _load_onnx(folder: Path, manifest: dict[str, Any]) -> Run:
    session = onnx_graph.load_session(folder / ONNX)
    return lambda *inputs: session(*inputs)[0]


def _tensors(inputs: Inputs) -> tuple[torch.Tensor, ...]:
    return tuple(map(torch.from_numpy, inputs))


def _checkpoint_format(summary: str, load: Callable[..., nn.Module], **more: Any) -> Format:
    """A format whose files become a torch module again."""
    return Format(
        summary,
        load=lambda folder, manifest: run_of(load(folder, manifest)),
        norms=lambda folder, manifest, inputs: list(module_norms(load(folder, manifest), _tensors(inputs)).values()),
        **more,
    )


def _half_format(name: str, dtype: torch.dtype) -> Format:
    return _checkpoint_format(
        f"a plain checkpoint with {name} weights",
        build=partial(_build_half, dtype=dtype),
        load=partial(checkpoint.load_checkpoint, dtype=dtype),
        half=name,
    )


TRACED, PROGRAM, PACKAGE, ONNX = "model.pt", "model.pt2", "model_aoti.pt2", "model.onnx"

FORMATS: dict[str, Format] = {
    "torchscript": Format(
        "a traced graph, for C++ (libtorch) and Python without this package",
        _build_traced,
        lambda folder, manifest: run_of(torchscript.load_traced(folder / TRACED)),
        TRACED,
        lambda folder, manifest, inputs: torchscript.traced_norms(
            torchscript.load_traced(folder / TRACED), _tensors(inputs)
        ),
        exact=True,
    ),
    "exported": Format(
        "a program of torch.export, for Python and for compilers",
        _build_program,
        lambda folder, manifest: run_of(program.load_program(folder / PROGRAM)),
        PROGRAM,
        lambda folder, manifest, inputs: program.program_norms(
            program.load_program(folder / PROGRAM), _tensors(inputs)
        ),
        exact=True,
    ),
    "aoti": Format(
        "machine code for this processor by AOTInductor, for C++ and Python",
        _build_package,
        lambda folder, manifest: run_of(program.load_package(folder / PACKAGE)),
        PACKAGE,
        exact=True,
        compiles=True,
    ),
    "onnx": Format(
        "a graph for ONNX Runtime and others, without PyTorch",
        _build_onnx,
        _load_onnx,
        ONNX,
        lambda folder, manifest, inputs: onnx_graph.onnx_norms(folder / ONNX, inputs),
        exact=True,
        needs=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
    ),
    "onnx-int8": Format(
        "the same with int8 weights, activations quantized as they come",
        _build_onnx_int8,
        _load_onnx,
        ONNX,
        lambda folder, manifest, inputs: onnx_graph.onnx_norms(folder / ONNX, inputs),
        needs=("onnx", "onnxscript", "onnxruntime"),
        extra="onnx",
    ),
    "int8": Format(
        "int8 by torchao, compiled for this processor, for C++ and Python",
        _build_int8,
        lambda folder, manifest: run_of(program.load_package(folder / PACKAGE)),
        PACKAGE,
        needs=("torchao",),
        extra="int8",
        compiles=True,
    ),
    "half": _half_format("float16", torch.float16),
    "bf16": _half_format("bfloat16", torch.bfloat16),
    "legacy": _checkpoint_format(
        "a state dict without zip container, for PyTorch before 1.6",
        build=_build_legacy,
        load=checkpoint.load_legacy,
        exact=True,
    ),
    "sentence-transformers": _checkpoint_format(
        "a folder for SentenceTransformer, or for CrossEncoder",
        build=_build_sentence_transformers,
        load=checkpoint.load_sentence_transformers,
        exact=True,
    ),
}
