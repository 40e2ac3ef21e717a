"""int8 by torchao: weights by output channel, activations by token, as they come."""

# torch.ao.quantization.quantize_dynamic needs no compiler, but is deprecated, and one scale for all tokens of a batch
# cost a MiniLM cross-encoder 4 points of accuracy (2026-11-24). torchao's modules are slower than float32 until they
# are compiled, which is why this format is a compiled package.

import copy

from torch import nn

from pair_pkg.export.quiet import quiet_libraries
from pair_pkg.export.source import Finished


def quantize(finished: Finished) -> nn.Module:
    """A copy of the graph whose linear layers multiply in int8; embeddings and norms stay float32."""
    with quiet_libraries():
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_  # optional

        graph = copy.deepcopy(finished.graph)
        quantize_(graph, Int8DynamicActivationInt8WeightConfig())
    return graph
