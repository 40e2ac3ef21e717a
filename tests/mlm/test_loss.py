"""The loss and perplexity as sums over predicted tokens, by hand."""

import math

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import MaskedLMOutput

from pair_pkg.errors import TrainingFailure
from pair_pkg.mlm.loss import masked_lm_loss, perplexity_metrics, score_rows

LOGITS = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
LABELS = torch.tensor([0, 0, 0])
LOSSES = [math.log(2), math.log(4 / 3), math.log(4)]  # -log of 1/2, 3/4, 1/4
OUTPUTS = MaskedLMOutput(logits=LOGITS)


def test_loss_is_a_sum_over_the_tokens_of_the_whole_step():
    assert masked_lm_loss(OUTPUTS, LABELS).item() == pytest.approx(sum(LOSSES) / 3)
    assert masked_lm_loss(OUTPUTS, LABELS, num_items_in_batch=12).item() == pytest.approx(sum(LOSSES) / 12)


def test_nothing_predicted_is_a_loss_of_zero():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = masked_lm_loss(MaskedLMOutput(logits=logits), torch.zeros(0, dtype=torch.long), num_items_in_batch=7)
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0, 5)


def test_half_precision_is_summed_in_float32():
    logits = torch.zeros(4000, 2, dtype=torch.bfloat16)
    loss = masked_lm_loss(MaskedLMOutput(logits=logits), torch.zeros(4000, dtype=torch.long))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), rel=1e-6)


def test_rows_are_scored_apart():
    rows, row_of_label = torch.tensor([7, 4]), torch.tensor([1, 0, 1])
    columns = score_rows(OUTPUTS, LABELS, rows, row_of_label, loss_only=False)
    assert columns["row"].tolist() == [7, 4]
    assert columns["loss"].tolist() == pytest.approx([LOSSES[1], LOSSES[0] + LOSSES[2]])
    assert columns["predicted"].tolist() == [1, 2]
    assert columns["correct"].tolist() == [1, 1]  # a tie goes to the first
    assert set(score_rows(OUTPUTS, LABELS, rows, row_of_label, loss_only=True)) == {"row", "loss", "predicted"}


def test_perplexity_by_hand():
    columns = {"row": np.arange(2), "loss": np.array([math.log(8), 0.0]), "predicted": np.array([1.0, 2.0])}
    metrics = perplexity_metrics(columns)
    assert metrics == {"loss": pytest.approx(math.log(2)), "perplexity": pytest.approx(2.0), "predicted_tokens": 3}
    assert perplexity_metrics({**columns, "correct": np.array([0.0, 1.0])})["accuracy"] == pytest.approx(1 / 3)


def test_a_non_finite_evaluation_names_its_first_row():
    columns = {"row": np.array([3, 4, 5]), "loss": np.array([1.0, np.nan, np.inf]), "predicted": np.ones(3)}
    with pytest.raises(TrainingFailure, match="validation row 4"):
        perplexity_metrics(columns)
