"""New rows of an embedding learn alone at first, so that the rest need not move for what they do not know yet."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, TrainerCallback


class WarmRows(TrainerCallback):
    """In the first ``steps`` steps only ``rows`` of the word embeddings (and of what is tied to them) learn."""

    def __init__(self, rows: Sequence[int], steps: int):
        self.rows = torch.tensor(rows)
        self.steps = steps

    def on_pre_optimizer_step(self, args, state, control, model: PreTrainedModel, **settings: Any) -> None:
        if state.global_step >= self.steps:
            return
        weight = model.get_input_embeddings().weight
        for parameter in model.parameters():
            if parameter is not weight:
                parameter.grad = None  # the optimizer passes it over, weight decay too
        if weight.grad is not None:
            kept = torch.zeros_like(weight.grad)
            rows = self.rows.to(weight.device)
            kept[rows] = weight.grad[rows]
            weight.grad = kept
