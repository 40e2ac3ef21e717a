"""SentenceTransformer over OpenVINO with static int8, as its OpenVINO backend would be.

That backend needs ``optimum-intel``, of which no release imports beside transformers 5.23, so the encoder is converted
and quantized here with NNCF's defaults for transformers, as that package does, and put into the library's own model.
The activations are calibrated on texts of the benchmark itself, which is the best case for the peer.
"""

from pathlib import Path

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from benchmarks.onnx_int8 import INPUTS, export_encoder

NUM_CALIBRATION_TEXTS = 300  # the default of sentence-transformers' export


def load_in_openvino_int8(name: str, work_dir: Path, texts: list[str]) -> SentenceTransformer:
    """A sentence encoder of the BERT architecture whose encoder runs in OpenVINO with int8 weights and activations."""
    import nncf  # optional, with the extra bench
    import openvino

    model = SentenceTransformer(name, device="cpu")
    encoder = model[0].model
    export_encoder(encoder.eval(), work_dir / "float32.onnx")

    def inputs_of(text: str) -> dict[str, np.ndarray]:
        return {name: values.numpy() for name, values in model.preprocess([text]).items() if name in INPUTS}

    quantized = nncf.quantize(
        openvino.convert_model(work_dir / "float32.onnx"),
        nncf.Dataset(texts[:NUM_CALIBRATION_TEXTS], inputs_of),
        subset_size=NUM_CALIBRATION_TEXTS,
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
    )
    model[0].model = _OpenVinoEncoder(quantized, encoder.config)
    return model


class _OpenVinoEncoder(nn.Module):
    """What stands in the place of the library's encoder."""

    def __init__(self, quantized, config):
        import openvino  # optional, with the extra bench

        super().__init__()
        self.config = config
        # float32 between the int8 products was faster than the bfloat16 that it takes by itself (AMX, 2026-11-24)
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        self.request = openvino.Core().compile_model(quantized, "CPU", settings).create_infer_request()
        self.anchor = nn.Parameter(torch.empty(0))  # the library asks a parameter for the device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, **_: object
    ) -> BaseModelOutput:
        feed = dict(zip(INPUTS, (values.numpy() for values in (input_ids, attention_mask, token_type_ids))))
        return BaseModelOutput(last_hidden_state=torch.from_numpy(np.array(self.request.infer(feed)[0])))
