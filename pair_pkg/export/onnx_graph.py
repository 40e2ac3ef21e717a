"""ONNX: the graph for runtimes without PyTorch, in float32, and with int8 weights and activations."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pair_pkg.export.program import example
from pair_pkg.export.quiet import quiet_libraries
from pair_pkg.export.source import Finished

LARGEST_FILE = 2 << 30  # bytes: the format's end; the weights of a larger model lie in a second file


def export_onnx(finished: Finished, path: Path) -> None:
    """Write the graph with its weights; where one file cannot hold them, they lie beside it as ``NAME.onnx.data``."""
    inputs, shapes = example(finished)
    with quiet_libraries(), torch.no_grad():
        torch.onnx.export(
            finished.graph,
            inputs,
            path,
            dynamo=True,
            input_names=list(finished.input_names),
            output_names=[finished.output_name],
            dynamic_shapes=shapes,
            external_data=is_large(finished),
            verbose=False,
        )


def is_large(finished: Finished) -> bool:
    """Whether one file would be too small, with a quarter to spare for the graph itself."""
    return sum(weights.nbytes for weights in finished.graph.parameters()) > 0.75 * LARGEST_FILE


def quantize(float32_path: Path, path: Path, large: bool) -> None:
    """Weights (embeddings too) in int8 by output channel, activations quantized at every call.

    Seven bits of the eight: with all eight, processors without VNNI overflow, and a MiniLM cross-encoder changed 21
    instead of 11 of 458 verdicts; with one scale a tensor 38 (2026-11-24).
    """
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with quiet_libraries():
        quantize_dynamic(
            float32_path,
            path,
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=large,
        )


def load_session(path: Path) -> Callable[..., list[np.ndarray]]:
    """The graph in ONNX Runtime on the CPU, with torch's number of threads: input arrays -> output arrays."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    return lambda *inputs: session.run(None, dict(zip(names, inputs, strict=True)))


def onnx_norms(path: Path, inputs: tuple[np.ndarray, ...]) -> list[np.ndarray]:
    """What each layer normalization gives, in the order of execution."""
    import onnx

    proto = onnx.load(path, load_external_data=False)
    norms = [node.output[0] for node in proto.graph.node if node.op_type == "LayerNormalization"]
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in norms)
    # beside the weights that a large graph keeps apart, where the runtime looks for them; it takes no 2 GB from memory
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=path.suffix) as shown:
        shown.write(proto.SerializeToString())
        shown.flush()
        return load_session(Path(shown.name))(*inputs)[1:]
