"""What a model writes in place of a few masked tokens of the validation rows, for a person to read."""

from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.modeling.embedding import move_batch

CONTEXT = 8  # tokens shown on each side
GUESSES = 3


class Filled(NamedTuple):
    """One masked token, what stands around it, what it is, and a model's best guesses, the best first."""

    context: str
    token: str
    guesses: list[str]


def fill_masks(
    model: PreTrainedModel, dataset: MaskedRows, tokenizer: PreTrainedTokenizerBase, num_rows: int
) -> list[Filled]:
    """One masked token of each of ``num_rows`` rows that are spread over the data set; the model is left as it was."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    filled = []
    with torch.no_grad(), torch.random.fork_rng():
        for row in np.unique(np.linspace(0, len(dataset) - 1, num_rows).astype(int)):
            batch = dataset.build_batch([Item(int(row), FROZEN)])
            filled += _fill_one(model, batch, tokenizer, device)
    model.train(was_training)
    return filled


def _fill_one(model: PreTrainedModel, batch: dict[str, Any], tokenizer: Any, device: torch.device) -> list[Filled]:
    """The middle one of a row's tokens that are shown as the mask, with the text on both sides."""
    labels = batch.pop("labels")
    for name in ("rows", "row_of_label", "is_term"):
        batch.pop(name, None)
    ids, predicted = batch["input_ids"].flatten(), batch["predicted"]
    masked = (ids[predicted] == tokenizer.mask_token_id).nonzero().squeeze(1).tolist()
    if not masked:
        return []
    number = masked[len(masked) // 2]
    place = int(predicted[number])
    logits = model(**move_batch(batch, device)).logits[number]
    before, after = (
        _words(tokenizer, part) for part in (ids[max(0, place - CONTEXT) : place], ids[place + 1 :][:CONTEXT])
    )
    guesses = [_words(tokenizer, [guess]) for guess in logits.topk(GUESSES).indices.tolist()]
    return [Filled(f"{before} ____ {after}".strip(), _words(tokenizer, labels[number : number + 1]), guesses)]


def _words(tokenizer: Any, ids: Any) -> str:
    hidden = {tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id}
    return tokenizer.decode([number for number in map(int, ids) if number not in hidden]).strip()
