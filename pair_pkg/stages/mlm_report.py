"""What stage 1 did to the model, token by token and layer by layer: measured around the training, told in a page."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from pair_pkg.data.tokens import TokenStore, num_ids
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.fill_mask import Filled, fill_masks
from pair_pkg.mlm.slices import COUNT_AT_A_TIME, frequency_bands, score_slices, slice_metrics
from pair_pkg.report.numbers import format_share
from pair_pkg.report.tables import Cells, markdown_table
from pair_pkg.stages.merging import merge_cells
from pair_pkg.training.trainer import StageTrainer

NUM_FILLED = 12
PAGE_NAME = "adaptation.md"


@dataclass(frozen=True)
class Look:
    """How a model fills in masked tokens: accuracies by slice, and a sample."""

    slices: dict[str, dict[str, Any]]
    filled: list[Filled]


def look_at(trainer: StageTrainer, store: TokenStore) -> Look:
    """Look at the trainer's model as it is, on its validation rows; bands are those of ``store``'s tokens."""
    dataset: MaskedRows = trainer.eval_dataset
    size = max(num_ids(trainer.processing_class), trainer.model.config.vocab_size)
    parts = (store.ids[start : start + COUNT_AT_A_TIME] for start in range(0, len(store.ids), COUNT_AT_A_TIME))
    bands = torch.from_numpy(frequency_bands(map(np.asarray, parts), size))
    score = partial(_score_batch, bands=bands.to(trainer.args.device))
    columns = trainer.score_dataset(trainer.get_eval_dataloader(), score_batch=score)
    with trainer.accelerator.autocast():
        filled = fill_masks(trainer.model, dataset, trainer.processing_class, NUM_FILLED)
    return Look(slice_metrics(columns["counts"]), filled)


def compare_looks(base: Look, adapted: Look) -> dict[str, Any]:
    """Both looks for the record."""
    fill_mask = [
        {"context": before.context, "token": before.token, "base": before.guesses, "adapted": after.guesses}
        for before, after in zip(base.filled, adapted.filled)
    ]
    return {"masked_slices": {"base": base.slices, "adapted": adapted.slices}, "fill_mask": fill_mask}


def write_page(folder: Path, metrics: dict[str, Any]) -> Path:
    """``adaptation.md``: the tables of a finished run."""
    parts = [f"## {title}\n\n{markdown_table(*cells)}" for title, cells in adaptation_tables(metrics).items()]
    path = folder / PAGE_NAME
    path.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return path


def adaptation_tables(metrics: dict[str, Any], with_texts: bool = True) -> dict[str, Cells]:
    """What a run did to its model, as far as it was measured, by title."""
    tables = {"Masked tokens": slices_cells(metrics["masked_slices"])} if "masked_slices" in metrics else {}
    if metrics.get("merge", {}).get("sweep"):
        tables["Between the base (0) and the adapted encoder (1)"] = merge_cells(metrics["merge"])
    if "weight_movement" in metrics:
        rows = [[part, f"{share:.4f}"] for part, share in metrics["weight_movement"].items()]
        tables["How far the weights moved"] = Cells(["part", "|now - base| / |base|"], rows, "lr")
    if metrics.get("fill_mask") and with_texts:
        rows = [
            [part["context"], part["token"], ", ".join(part["base"]), ", ".join(part["adapted"])]
            for part in metrics["fill_mask"]
        ]
        tables["Guesses"] = Cells(["text", "token", "base", "adapted"], rows, "llll")
    return tables


def slices_cells(slices: dict[str, Any]) -> Cells:
    """Accuracies by slice, base beside adapted."""
    header = ["masked tokens", "number", "right: base", "adapted", "in the first five: base", "adapted"]
    rows = []
    for name, after in slices["adapted"].items():
        before = slices["base"][name]
        shares = [format_share(part[key]) for key in ("accuracy_at_1", "accuracy_at_5") for part in (before, after)]
        rows.append([name, f"{after['tokens']:,}", *shares])
    return Cells(header, rows, "lrrrrr")


def _score_batch(model: PreTrainedModel, batch: dict[str, Any], bands: torch.Tensor) -> dict[str, torch.Tensor]:
    labels, rows, row_of_label = (batch.pop(name) for name in ("labels", "rows", "row_of_label"))
    is_term = batch.pop("is_term", None)
    return score_slices(model(**batch), labels, rows, row_of_label, bands, is_term)
