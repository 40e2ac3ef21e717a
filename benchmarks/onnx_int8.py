"""SentenceTransformer over ONNX Runtime with dynamic int8, as its ONNX backend would be.

That backend needs ``optimum``, of which no release imports beside transformers 5.23 (tried 2026-11-23: 2.3.0 with
optimum-onnx 0.1.0 and optimum-intel 2.2.0), so the encoder is exported and quantized here and put into the library's
own model; tokenization, batches and pooling remain the library's.
"""

import logging
import warnings
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def load_in_int8(name: str, work_dir: Path) -> SentenceTransformer:
    """A sentence encoder of the BERT architecture whose encoder runs in ONNX Runtime with int8 weights."""
    from onnxruntime.quantization import QuantType, quantize_dynamic  # optional, with the extra onnx

    model = SentenceTransformer(name, device="cpu")
    encoder = model[0].model
    export_encoder(encoder.eval(), work_dir / "float32.onnx")
    logging.disable(logging.WARNING)  # the quantizer advises a step for images
    quantize_dynamic(work_dir / "float32.onnx", work_dir / "int8.onnx", weight_type=QuantType.QInt8)
    logging.disable(logging.NOTSET)
    model[0].model = _OnnxEncoder(work_dir / "int8.onnx", encoder.config)
    return model


def export_encoder(encoder: nn.Module, path: Path) -> None:
    """Write a BERT encoder as ONNX in float32, batch and length free."""
    # three different tensors: one passed twice becomes one input; and some padding, else the mask may be left out
    ids, types = torch.arange(32).view(2, 16), torch.zeros(2, 16, dtype=torch.long)
    mask = torch.ones(2, 16, dtype=torch.long)
    mask[1, 10:] = 0
    dynamic = {name: {0: torch.export.Dim("batch"), 1: torch.export.Dim("length")} for name in INPUTS}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _HiddenStates(encoder),
            (ids, mask, types),
            path,
            input_names=INPUTS,
            output_names=["last_hidden_state"],
            dynamic_shapes=dynamic,
            verbose=False,
        )


class _HiddenStates(nn.Module):
    """An encoder with one output."""

    def __init__(self, encoder: nn.Module):
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.encoder(
            input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
        ).last_hidden_state


class _OnnxEncoder(nn.Module):
    """What stands in the place of the library's encoder."""

    def __init__(self, path: Path, config):
        import onnxruntime  # optional, with the extra onnx

        super().__init__()
        self.config = config
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.anchor = nn.Parameter(torch.empty(0))  # the library asks a parameter for the device

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor, **_: object
    ) -> BaseModelOutput:
        feed = dict(zip(INPUTS, (values.numpy() for values in (input_ids, attention_mask, token_type_ids))))
        return BaseModelOutput(last_hidden_state=torch.from_numpy(self.session.run(None, feed)[0]))
