"""Hidden states and attentions of a few texts as one npz file, and the attentions of the first as a picture."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pair_pkg.errors import InputError
from pair_pkg.modeling.layer_outputs import layers_bytes, load_for_layers, read_layers
from pair_pkg.modeling.loading import load_tokenizer, max_positions
from pair_pkg.report.attention_plot import plot_attentions
from pair_pkg.search.vector_files import write_beside
from pair_pkg.stages.terminal import announce

logger = logging.getLogger("pair_pkg")

FLAGS = "--output_hidden_states, --output_attentions"
MAX_TEXTS = 500
MAX_BYTES = 1 << 30  # of all arrays: they are held in memory until they are written


@dataclass(frozen=True)
class LayerWriter:
    """A checkpoint whose layers are written, and of them what was asked for."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    hidden_states: bool
    attentions: bool

    def write(self, path: Path, texts: Sequence[str], pair: str | None = None) -> list[str]:
        """Write ``path`` (npz) with ``tokens_I``, ``input_ids_I`` and the layers of each text I, from 0.

        With attentions, those of the first text are drawn beside it as a png. Returns what was written.
        """
        arrays, first = {}, None
        for number, text in enumerate(texts):
            layers = read_layers(self.model, self.tokenizer, text, pair)
            first = first or layers
            arrays[f"tokens_{number}"], arrays[f"input_ids_{number}"] = np.array(layers.labels), layers.input_ids
            if self.hidden_states:
                arrays[f"hidden_states_{number}"] = layers.hidden_states
            if self.attentions:
                arrays[f"attentions_{number}"] = layers.attentions
        write_beside(path, lambda temporary: _save(temporary, arrays))
        written = [str(path)]
        if self.attentions:
            picture = path.with_suffix(".png")
            note = plot_attentions(first.attentions, first.labels, picture)
            written.append(str(picture))
            if note:
                logger.warning("%s: %s", picture, note)
        announce(*(f"written: {name}" for name in written))
        return written

    def refuse_many(self, texts: Iterable[str]) -> list[str]:
        """The texts, or ``InputError`` where their layers are too many to be held in memory."""
        kept = list(islice(texts, MAX_TEXTS + 1))
        if len(kept) > MAX_TEXTS:
            raise InputError(f"{FLAGS}: layers of more than {MAX_TEXTS} texts are too many; give fewer texts")
        positions = max_positions(self.model.config) or 512
        lengths = [min(len(ids), positions) for ids in self.tokenizer(kept)["input_ids"]] if kept else []
        total = sum(layers_bytes(self.model, length) for length in lengths)
        if total > MAX_BYTES:
            raise InputError(
                f"{FLAGS}: the layers of {len(kept)} texts take {total / 2**20:,.0f} MiB, at most "
                f"{MAX_BYTES >> 20:,} are written; give fewer or shorter texts"
            )
        return kept


def open_layers(name: str, *, hidden_states: bool, attentions: bool) -> LayerWriter | None:
    """The writer of a checkpoint's layers, or None where none were asked for. Raises ``InputError``."""
    if not (hidden_states or attentions):
        return None
    return LayerWriter(load_for_layers(name), load_tokenizer(name), hidden_states, attentions)


def _save(path: Path, arrays: dict[str, Any]) -> None:
    with open(path, "wb") as file:
        np.savez(file, **arrays)
