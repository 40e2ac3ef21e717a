"""What every layer of an encoder makes of one text: hidden states and attentions, for looking at and for probing."""

# L layers, T tokens, D hidden size, H heads

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast

from pair_pkg.modeling.loading import load_config, load_model, max_positions


@dataclass(frozen=True)
class Layers:
    """The layers of one text; ``labels`` are its tokens as they stand in the text."""

    labels: list[str]
    input_ids: np.ndarray  # (T,) int64
    hidden_states: np.ndarray  # (L + 1, T, D) float32: the embeddings, then behind each layer
    attentions: np.ndarray  # (L, H, T, T) float32: from each token (row) to each (column), rows sum to 1


def load_for_layers(name: str, **hub: Any) -> PreTrainedModel:
    """The bare encoder of a checkpoint, with the attention that gives its weights away. Raises ``InputError``."""
    config = load_config(name, **hub)
    config._attn_implementation = "eager"  # the fused ones compute no weights
    return load_model(AutoModel, name, config, **hub).eval()


def read_layers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, text: str, pair: str | None = None
) -> Layers:
    """The layers of a text or a pair, cut to the model's positions."""
    encoding = tokenizer(
        text, pair, truncation=True, max_length=max_positions(model.config) or 512, return_offsets_mapping=True
    )
    inputs = {name: torch.tensor([encoding[name]]) for name in tokenizer.model_input_names if name in encoding}
    with torch.inference_mode():
        outputs = model(**inputs, output_hidden_states=True, output_attentions=True, return_dict=True)
    return Layers(
        labels=_labels(tokenizer, encoding, (text, pair or "")),
        input_ids=np.array(encoding["input_ids"]),
        hidden_states=torch.cat(outputs.hidden_states).float().numpy(),
        attentions=torch.cat(outputs.attentions).float().numpy(),
    )


def layers_bytes(model: PreTrainedModel, num_tokens: int) -> int:
    """Bytes of the layers of a text of so many tokens."""
    config = model.config
    hidden = (config.num_hidden_layers + 1) * num_tokens * config.hidden_size
    return 4 * (hidden + config.num_hidden_layers * config.num_attention_heads * num_tokens**2)


def _labels(tokenizer: PreTrainedTokenizerFast, encoding: Any, texts: Sequence[str]) -> list[str]:
    """Each token by the characters that it stands for, so that byte-level tokens can be read; special ones by name."""
    tokens = tokenizer.convert_ids_to_tokens(encoding["input_ids"])
    places = zip(tokens, encoding["offset_mapping"], encoding.sequence_ids())
    return [token if part is None else texts[part][begin:end] or token for token, (begin, end), part in places]
