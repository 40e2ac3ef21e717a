"""The README beside an export: the lines that load it, which the tests run."""

from collections.abc import Callable
from typing import Any

from pair_pkg.pairs.metrics import BINARY, CLASSES

Manifest = dict[str, Any]


def readme_text(manifest: Manifest) -> str:
    """What the export is, and the code that loads it and asks it, in its own folder."""
    name = manifest["format"]
    return f"""# {name}: a {manifest["architecture"].replace("_", "-")} of the architecture {manifest["model_type"]}

```python
{_CODE[name](manifest)}
```

{_meaning(manifest)}

Texts are cut to {manifest["max_seq_length"]} tokens and padded on the right. `export.json` holds the decision, the
labels, the sha256 of every file, what was compared with PyTorch in float32, and the times that were measured.
"""


def _meaning(manifest: Manifest) -> str:
    output, decision = manifest["outputs"][0]["name"], manifest["decision"]
    if output == "sentence_embedding":
        text = "The cosine of two vectors says how alike their texts are"
        if decision and decision["kind"] == BINARY:
            return (
                f"{text}; the calibrated probability is sigmoid((cosine - {decision['center']:.6g}) / "
                f"{decision['temperature']:.6g}), and yes from {decision['threshold']:.6g} on."
            )
        return f"{text}."
    names = manifest["labels"]["names"]
    if output == "probability":
        text = f"A probability of {decision['threshold']:.6g} or more means {names[1]}, less means {names[0]}."
    elif output == "probabilities":
        text = f"The probabilities are those of {', '.join(names)}, in this order."
    else:
        text = f"Scores run from {manifest['labels']['low']:g} to {manifest['labels']['high']:g}."
    return f"{text}\n\n{_BOTH_ORDERS[output]}" if manifest["symmetric"] else text


_BOTH_ORDERS = {
    "probability": (
        "The model was fitted to be asked in both orders: with p of (A, B) and q of (B, A), the probability is "
        "sigmoid((logit(p) + logit(q)) / 2)."
    ),
    "probabilities": (
        "The model was fitted to be asked in both orders: with p of (A, B) and q of (B, A), the probabilities are "
        "sqrt(p q), divided by their sum."
    ),
    "score": "The model was fitted to be asked in both orders: the score is the mean of (A, B) and (B, A).",
}


def _texts(manifest: Manifest) -> str:
    if manifest["architecture"] == "cross_encoder":
        return '[("How do I reset it?", "Can it be reset?")]'
    return '["How do I reset it?", "Can it be reset?"]'


def _graph_code(imports: str, load: str, array: str, call: str) -> Callable[[Manifest], str]:
    """Code for a format that takes ids: ``array`` makes one of a list, ``call`` asks the model for ``inputs``."""

    def code(manifest: Manifest) -> str:
        sources = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
        names = [value["name"] for value in manifest["inputs"]]
        lists = ", ".join(f'"{name}": {array}([row.{sources[name]} for row in rows])' for name in names)
        return "\n".join(
            [
                *imports.split("\n"),
                "from tokenizers import Tokenizer",
                f'model, tokenizer = {load}, Tokenizer.from_file("tokenizer.json")',
                "",
                f"rows = tokenizer.encode_batch({_texts(manifest)})",
                f"inputs = {{{lists}}}",
                f"print({call}.tolist())",
            ]
        )

    return code


def _plain_code(manifest: Manifest, dtype: str) -> str:
    if manifest["architecture"] != "cross_encoder":
        cast = f".{'half' if dtype == 'float16' else 'bfloat16'}()"
        return (
            "from sentence_transformers import SentenceTransformer\n"
            f'model = SentenceTransformer(".", device="cpu"){cast}\n\n'
            f"print(model.encode({_texts(manifest)}).tolist())"
        )
    return (
        "import torch\n"
        "from transformers import AutoModelForSequenceClassification, AutoTokenizer\n"
        f'model = AutoModelForSequenceClassification.from_pretrained(".", dtype=torch.{dtype}).eval()\n\n'
        'tokenizer = AutoTokenizer.from_pretrained(".")\n'
        f"{_ask_classifier(manifest)}"
    )


def _legacy_code(manifest: Manifest) -> str:
    is_cross_encoder = manifest["architecture"] == "cross_encoder"
    auto = "AutoModelForSequenceClassification" if is_cross_encoder else "AutoModel"
    load = (
        "import torch\n"
        f"from transformers import AutoConfig, {auto}, PreTrainedTokenizerFast\n"
        f'model = {auto}.from_config(AutoConfig.from_pretrained(".")).eval()\n'
        'model.load_state_dict(torch.load("pytorch_model.pth"))\n\n'
        'tokenizer = PreTrainedTokenizerFast(tokenizer_file="tokenizer.json", pad_token="[PAD]")\n'
    )
    load = load.replace('"[PAD]"', repr(manifest["padding"]["token"]).replace("'", '"'))
    if is_cross_encoder:
        return load + _ask_classifier(manifest)
    names = [value["name"] for value in manifest["inputs"]]
    return load + (
        f"batch = {_tokenize(manifest)}\n"
        f"hidden = model(**{{name: batch[name] for name in {names}}}).last_hidden_state\n"
        f"print(hidden.shape)  # pooling: {manifest['pooling']}, then head.pth where there is one, then unit length"
    )


def _tokenize(manifest: Manifest) -> str:
    types = ", return_token_type_ids=True" if len(manifest["inputs"]) == 3 else ""
    cut = f"truncation=True, max_length={manifest['max_seq_length']}"
    return f'tokenizer({_texts(manifest)}, padding=True, {cut}{types}, return_tensors="pt")'


def _ask_classifier(manifest: Manifest) -> str:
    names = [value["name"] for value in manifest["inputs"]]
    labels = manifest["labels"]
    outputs = manifest["num_outputs"]
    if labels["kind"] == BINARY:
        answer = "logits.sigmoid()[:, 0]" if outputs == 1 else "logits.softmax(-1)[:, 1]"
    elif labels["kind"] == CLASSES:
        answer = "logits.softmax(-1)"
    else:
        answer = f"{labels['low']:g} + logits[:, 0] * {labels['high'] - labels['low']:g}"
    return (
        f"batch = {_tokenize(manifest)}\n"
        f"logits = model(**{{name: batch[name] for name in {names}}}).logits.float()\n"
        f"print(({answer}).tolist())"
    )


def _sentence_transformers_code(manifest: Manifest) -> str:
    if manifest["architecture"] != "cross_encoder":
        return (
            "from sentence_transformers import SentenceTransformer\n"
            'model = SentenceTransformer(".", device="cpu")\n\n'
            f"print(model.encode({_texts(manifest)}).tolist())"
        )
    softmax = ", apply_softmax=True" if manifest["labels"]["kind"] == CLASSES else ""
    low, high = manifest["labels"]["low"], manifest["labels"]["high"]
    asked = f"model.predict({_texts(manifest)}{softmax})"
    if manifest["labels"]["kind"] not in (BINARY, CLASSES):
        asked = f"({low:g} + {asked} * {high - low:g})"
    return (
        "from sentence_transformers import CrossEncoder\n"
        'model = CrossEncoder(".", device="cpu")\n\n'
        f"print({asked}.tolist())"
    )


_TENSOR, _ASK = "torch.tensor", "model(*inputs.values())"

_CODE: dict[str, Callable[[Manifest], str]] = {
    "torchscript": _graph_code("import torch", 'torch.jit.load("model.pt")', _TENSOR, _ASK),
    "exported": _graph_code("import torch", 'torch.export.load("model.pt2").module()', _TENSOR, _ASK),
    "aoti": _graph_code("import torch", 'torch._inductor.aoti_load_package("model_aoti.pt2")', _TENSOR, _ASK),
    "int8": _graph_code("import torch", 'torch._inductor.aoti_load_package("model_aoti.pt2")', _TENSOR, _ASK),
    "onnx": _graph_code(
        "import numpy, onnxruntime",
        'onnxruntime.InferenceSession("model.onnx")',
        "numpy.array",
        "model.run(None, inputs)[0]",
    ),
    "onnx-int8": _graph_code(
        "import numpy, onnxruntime",
        'onnxruntime.InferenceSession("model.onnx")',
        "numpy.array",
        "model.run(None, inputs)[0]",
    ),
    "half": lambda manifest: _plain_code(manifest, "float16"),
    "bf16": lambda manifest: _plain_code(manifest, "bfloat16"),
    "legacy": _legacy_code,
    "sentence-transformers": _sentence_transformers_code,
}
