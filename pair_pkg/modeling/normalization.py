"""One normalization of texts, inside the tokenizer itself: whoever loads it from the folder reads texts alike."""

import json
from typing import Any

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

NFKC = [{"type": "NFKC"}, {"type": "Strip", "strip_left": True, "strip_right": True}]
SIDES = ("padding_side", "truncation_side")
TRAITS = ("model_max_length", "model_input_names", "pad_token_type_id", "clean_up_tokenization_spaces", *SIDES)


def with_nfkc(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """A tokenizer that first brings a text to NFKC and strips the blanks around it, then does as ``tokenizer`` does.

    NFKC (Unicode Annex 15) makes one of composed and decomposed characters, and of full-width forms and their plain
    ones; what case means stays the tokenizer's business. The result is of transformers' general class: BertTokenizer
    and its like build their normalizer anew when they are loaded, and would lose what stands in tokenizer.json. One
    that has the normalization already is returned as it is.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    steps = _steps(state["normalizer"])
    if steps[: len(NFKC)] == NFKC:
        return tokenizer
    state["normalizer"] = {"type": "Sequence", "normalizers": [*NFKC, *steps]}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        name_or_path=tokenizer.name_or_path,
        **{name: getattr(tokenizer, name) for name in TRAITS if hasattr(tokenizer, name)},
        **tokenizer.special_tokens_map,
    )


def _steps(normalizer: dict[str, Any] | None) -> list[dict[str, Any]]:
    """The steps of a normalizer as tokenizer.json writes it."""
    if normalizer is None:
        return []
    return normalizer["normalizers"] if normalizer["type"] == "Sequence" else [normalizer]
