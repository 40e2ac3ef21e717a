"""torch.export: a graph of tensor operations with bounded shapes, and the machine code AOTInductor makes of it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from pair_pkg.export.quiet import quiet_libraries
from pair_pkg.export.source import Finished

COMPILERS = ("g++", "clang++", "c++")


def capture(graph: nn.Module, finished: Finished) -> ExportedProgram:
    """The program of a graph, for every batch and for lengths up to the longest."""
    inputs, shapes = example(finished)
    with quiet_libraries(), torch.no_grad():
        return torch.export.export(graph, inputs, dynamic_shapes=shapes)


def example(finished: Finished) -> tuple[tuple[Tensor, ...], tuple[dict[int, Dim], ...]]:
    """Two rows with some padding, and what may change: neither one row nor a mask of ones, which would be special."""
    length = min(16, finished.max_seq_length)
    ids = torch.ones(2, length, dtype=torch.long)
    mask = torch.ones(2, length, dtype=torch.long)
    mask[1, length // 2 :] = 0
    inputs = (ids, mask, torch.zeros(2, length, dtype=torch.long))[: len(finished.input_names)]
    dims = {0: Dim("batch", min=1), 1: Dim("length", min=1, max=finished.max_seq_length)}
    return inputs, (dims,) * len(inputs)


def save_program(program: ExportedProgram, path: Path) -> None:
    with quiet_libraries():
        torch.export.save(program, path)


def load_program(path: Path) -> nn.Module:
    with quiet_libraries():
        return torch.export.load(path).module()


def program_norms(module: nn.Module, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """What each layer normalization gives, in the order of execution."""
    found: list[np.ndarray] = []

    class Listener(torch.fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            if node.target is torch.ops.aten.layer_norm.default:
                found.append(value.numpy())
            return value

    with torch.no_grad():
        Listener(module).run(*inputs)
    return found


def compile_program(program: ExportedProgram, path: Path) -> None:
    """Machine code for this processor in one package, which Python and C++ load."""
    with quiet_libraries():
        torch._inductor.aoti_compile_and_package(program, package_path=str(path))


def load_package(path: Path) -> Callable[..., Tensor]:
    with quiet_libraries():
        return torch._inductor.aoti_load_package(str(path))


def why_no_compiler() -> str | None:
    """What is to be done where no C++ compiler is at hand, or None."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else COMPILERS
    if any(shutil.which(name) for name in names):
        return None
    return f"needs a C++ compiler, and none of {', '.join(names)} is here; install one (apt install g++)"
