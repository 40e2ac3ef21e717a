"""TorchScript: a traced graph that C++ and old PyTorch run without Python."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pair_pkg.export.quiet import quiet_libraries
from pair_pkg.export.source import Finished

EXAMPLE_LENGTH = 128  # (1, 128) longs is what the field traces with; nothing of it may stay in the graph


def trace(finished: Finished, path: Path) -> None:
    """Trace the graph with one row of ones and save it."""
    length = min(EXAMPLE_LENGTH, finished.max_seq_length)
    ones = [torch.ones(1, length, dtype=torch.long) for _ in finished.input_names]
    with quiet_libraries(), torch.no_grad():
        traced = torch.jit.trace(finished.graph, tuple(ones), check_trace=False)  # the gate checks more than one shape
        torch.jit.save(traced, path)


def load_traced(path: Path) -> nn.Module:
    """The traced graph, on the CPU."""
    with quiet_libraries():
        return torch.jit.load(path, map_location="cpu").eval()


def traced_norms(traced: Any, inputs: tuple[Tensor, ...]) -> list[np.ndarray]:
    """What each layer normalization gives, in the order of execution."""
    graph = traced.inlined_graph.copy()
    norms = [node.output() for node in graph.nodes() if node.kind() == "aten::layer_norm"]
    together = graph.appendNode(graph.create("prim::TupleConstruct", norms, 1)).output()
    together.setType(torch._C.TupleType([norm.type() for norm in norms]))
    graph.eraseOutput(0)
    graph.registerOutput(together)
    with quiet_libraries(), torch.no_grad():
        function = torch._C._create_function_from_graph("norms", graph)
        return [output.numpy() for output in function(traced._c, *inputs)]
