"""Masked rows as a person reads them: a wrong tokenization or mask is seen before it is trained on."""

from transformers import PreTrainedTokenizerBase

from pair_pkg.data.batches import Item
from pair_pkg.mlm.dataset import MaskedRows


def preview_rows(dataset: MaskedRows, tokenizer: PreTrainedTokenizerBase, num_rows: int, epoch: int = 0) -> list[str]:
    """The first rows of a flat data set, decoded; a predicted token reads ``{shown -> label}``."""
    previews = []
    for row in range(min(num_rows, len(dataset))):
        batch = dataset.build_batch([Item(row, epoch)])
        shown = tokenizer.convert_ids_to_tokens(batch["input_ids"].tolist())
        wanted = tokenizer.convert_ids_to_tokens(batch["labels"].tolist())
        for place, label in zip(batch["predicted"].tolist(), wanted):
            shown[place] = f"{{{shown[place]} -> {label}}}"
        previews.append(" ".join(shown))
    return previews
