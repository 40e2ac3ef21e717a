"""Masked rows as a person reads them: a wrong tokenization or mask is seen before it is trained on."""

from collections.abc import Iterable
from typing import Any

from transformers import PreTrainedTokenizerBase

from pair_pkg.mlm.dataset import MaskedBatches


def preview_rows(dataset: MaskedBatches, tokenizer: PreTrainedTokenizerBase, items: Iterable[Any]) -> list[str]:
    """Some rows of a flat data set, decoded; a predicted token reads ``{shown -> label}``."""
    previews = []
    for item in items:
        batch = dataset.build_batch([item])
        shown = tokenizer.convert_ids_to_tokens(batch["input_ids"].tolist())
        wanted = tokenizer.convert_ids_to_tokens(batch["labels"].tolist())
        for place, label in zip(batch["predicted"].tolist(), wanted):
            shown[place] = f"{{{shown[place]} -> {label}}}"
        previews.append(" ".join(shown))
    return previews
