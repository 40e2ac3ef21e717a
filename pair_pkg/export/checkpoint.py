"""Weights in half precision, in the format before PyTorch 1.6, and in sentence-transformers' folders.

A cross-encoder's temperature is divided out of its last linear layer, so that the plain sigmoid or softmax of what
these checkpoints give is the calibrated probability, in every program that reads them.
"""

import copy
import dataclasses
import tempfile
from pathlib import Path
from typing import Any, cast

import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from torch import nn
from transformers import AutoModel, AutoModelForSequenceClassification, PreTrainedModel

from pair_pkg.columns import CROSS_ENCODER
from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import InputError
from pair_pkg.export.graph import BiEncoderGraph, CrossEncoderGraph
from pair_pkg.export.quiet import quiet_libraries
from pair_pkg.export.source import Finished
from pair_pkg.modeling.embedding import SentenceEncoder
from pair_pkg.modeling.loading import load_config, load_model
from pair_pkg.modeling.sentence_folder import load_sentence_encoder, save_sentence_encoder
from pair_pkg.pairs.decision import plain_decision, save_decision
from pair_pkg.pairs.head_norm import final_place
from pair_pkg.pairs.metrics import BINARY, SCORES

LEGACY_NAME, LEGACY_HEAD_NAME = "pytorch_model.pth", "head.pth"


def save_checkpoint(finished: Finished, folder: Path, dtype: torch.dtype) -> nn.Module:
    """A plain checkpoint in ``dtype``; returns the graph that it holds."""
    if finished.architecture == CROSS_ENCODER:
        model = calibrated_model(finished).to(dtype)
        model.save_pretrained(folder)
        _save_tokenizer(finished, folder)
        if finished.decision:
            calibrated = dataclasses.replace(finished.decision, temperature=1.0, center=0.0)
            save_decision(calibrated, folder)
        return _cross_graph(model, finished.scheme)
    encoder = _encoder(finished, dtype)
    with quiet_libraries():
        save_sentence_encoder(encoder, folder)
    if finished.decision:
        save_decision(finished.decision, folder)
    return BiEncoderGraph(encoder)


def load_checkpoint(folder: Path, manifest: dict[str, Any], dtype: torch.dtype) -> nn.Module:
    """The graph of a folder of ``save_checkpoint``, computing in ``dtype``."""
    if manifest["architecture"] == CROSS_ENCODER:
        model = load_model(AutoModelForSequenceClassification, str(folder), load_config(str(folder)), False)
        return _cross_graph(model, LabelScheme.from_json(manifest["labels"])).to(dtype).eval()
    return BiEncoderGraph(load_sentence_encoder(str(folder))).to(dtype).eval()


def save_legacy(finished: Finished, folder: Path) -> None:
    """``config.json`` and the state dict as a bare pickle, which PyTorch before 1.6 reads; read back and compared."""
    cross = finished.architecture == CROSS_ENCODER
    model: PreTrainedModel = calibrated_model(finished) if cross else finished.graph.model
    parts: dict[str, nn.Module] = {LEGACY_NAME: model}
    if not cross and not isinstance(finished.graph.head, nn.Identity):
        parts[LEGACY_HEAD_NAME] = cast(BiEncoderGraph, finished.graph).head
    model.config.save_pretrained(folder)
    for name, module in parts.items():
        state = {key: values.contiguous() for key, values in module.state_dict().items()}
        torch.save(state, folder / name, _use_new_zipfile_serialization=False)
        back = torch.load(folder / name, map_location="cpu", weights_only=True)
        assert back.keys() == state.keys() and all(torch.equal(back[key], state[key]) for key in state), name


def load_legacy(folder: Path, manifest: dict[str, Any]) -> nn.Module:
    """The graph of a folder of ``save_legacy``, in float32."""
    config, state = load_config(str(folder)), _read_state(folder / LEGACY_NAME)
    if manifest["architecture"] == CROSS_ENCODER:
        model = AutoModelForSequenceClassification.from_config(config)
        model.load_state_dict(state)
        return _cross_graph(model, LabelScheme.from_json(manifest["labels"])).eval()
    model = AutoModel.from_config(config)
    model.load_state_dict(state)
    head: nn.Module = nn.Identity()
    if (folder / LEGACY_HEAD_NAME).is_file():
        weights = _read_state(folder / LEGACY_HEAD_NAME)
        head = nn.Linear(*weights["weight"].T.shape)
        head.load_state_dict(weights)
    encoder = SentenceEncoder(
        model, None, manifest["pooling"], manifest["max_seq_length"], head, manifest["normalized"]
    )
    return BiEncoderGraph(encoder).eval()


def save_sentence_transformers(finished: Finished, folder: Path) -> None:
    """A folder for ``SentenceTransformer`` or ``CrossEncoder``, whose ``predict`` is the calibrated probability.

    A cross-encoder of binary labels gets one output, the margin of its two: the library's default is its sigmoid.
    """
    if finished.architecture != CROSS_ENCODER:
        save_checkpoint(finished, folder, torch.float32)
        return
    model, kind = calibrated_model(finished), finished.scheme.kind
    if kind == BINARY and model.config.num_labels == 2:
        _keep_margin(model, finished.scheme.names[1])
    activation = nn.Sigmoid() if kind == BINARY else nn.Identity()
    with tempfile.TemporaryDirectory() as plain, quiet_libraries():
        model.save_pretrained(plain)
        _save_tokenizer(finished, Path(plain))
        library = CrossEncoder(plain, max_length=finished.max_seq_length, activation_fn=activation, device="cpu")
        library.save_pretrained(str(folder), create_model_card=False)


def load_sentence_transformers(folder: Path, manifest: dict[str, Any]) -> nn.Module:
    """What the library itself makes of a folder, as a graph: ids in, the library's output."""
    if manifest["architecture"] == CROSS_ENCODER:
        return _LibraryCrossEncoder(str(folder), LabelScheme.from_json(manifest["labels"])).eval()
    return _LibrarySentenceEncoder(str(folder)).eval()


def calibrated_model(finished: Finished) -> PreTrainedModel:
    """A copy of a cross-encoder's model whose own sigmoid or softmax is the calibrated probability.

    Raises ``InputError`` where no final linear layer is known.
    """
    model, decision = copy.deepcopy(finished.graph.model), finished.decision
    if decision is None:
        return model
    linear = _final_linear(model)
    with torch.no_grad():
        linear.bias[-1] -= decision.center  # of binary labels only
        linear.weight /= decision.temperature
        linear.bias.div_(decision.temperature)
    return model


def _keep_margin(model: PreTrainedModel, positive_name: str) -> None:
    """Two outputs become one, the second less the first, in place."""
    linear = _final_linear(model)
    margin = nn.Linear(linear.in_features, 1)
    with torch.no_grad():
        margin.weight.copy_(linear.weight[1:] - linear.weight[:1])
        margin.bias.copy_(linear.bias[1:] - linear.bias[:1])
    owner, name = final_place(model)
    setattr(owner, name, margin)
    model.num_labels = 1
    model.config.id2label, model.config.label2id = {0: positive_name}, {positive_name: 0}
    model.config.problem_type = "multi_label_classification"  # the library's name of a loss with a sigmoid


def _final_linear(model: PreTrainedModel) -> nn.Linear:
    owner, name = final_place(model)
    linear = getattr(owner, name, None)
    if not isinstance(linear, nn.Linear) or linear.bias is None:
        raise InputError(
            f"{type(model).__name__}: no final linear layer is known to take the temperature; "
            "export to torchscript or onnx, which hold it in the graph"
        )
    return linear


def _encoder(finished: Finished, dtype: torch.dtype) -> SentenceEncoder:
    graph = cast(BiEncoderGraph, finished.graph)
    if not isinstance(graph.head, (nn.Identity, nn.Linear)):
        raise InputError(
            f"{finished.model_dir}: its Dense module has an activation, which a checkpoint here cannot hold; "
            "export to torchscript or onnx"
        )
    model, head = copy.deepcopy(graph.model).to(dtype), copy.deepcopy(graph.head).to(dtype)
    return SentenceEncoder(model, finished.tokenizer, graph.pooling, finished.max_seq_length, head, graph.normalized)


def _save_tokenizer(finished: Finished, folder: Path) -> None:
    tokenizer = copy.deepcopy(finished.tokenizer)
    tokenizer.model_max_length = finished.max_seq_length
    tokenizer.save_pretrained(folder)


def _cross_graph(model: PreTrainedModel, scheme: LabelScheme) -> CrossEncoderGraph:
    decision = None if scheme.kind == SCORES else plain_decision(scheme.kind)
    return CrossEncoderGraph(model, decision, scheme.low, scheme.high)


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, map_location="cpu", weights_only=True)


class _LibrarySentenceEncoder(nn.Module):
    def __init__(self, folder: str):
        super().__init__()
        self.library = SentenceTransformer(folder, device="cpu")

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.library(_features(inputs))["sentence_embedding"]


class _LibraryCrossEncoder(nn.Module):
    def __init__(self, folder: str, scheme: LabelScheme):
        super().__init__()
        self.library = CrossEncoder(folder, device="cpu")
        self.scheme = scheme

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        values = self.library.activation_fn(self.library(_features(inputs))["scores"])
        if self.scheme.kind == SCORES:
            return self.scheme.low + values.flatten() * (self.scheme.high - self.scheme.low)
        return values.flatten() if self.scheme.kind == BINARY else values.softmax(-1)


def _features(inputs: tuple[torch.Tensor, ...]) -> dict[str, torch.Tensor]:
    return dict(zip(("input_ids", "attention_mask", "token_type_ids"), inputs))
