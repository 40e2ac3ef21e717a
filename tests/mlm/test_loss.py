"""The loss and perplexity as sums over predicted tokens, by hand."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate.utils import convert_outputs_to_fp32

from pair_pkg.errors import TrainingFailure
from pair_pkg.mlm import loss as loss_module
from pair_pkg.mlm.head import PredictedLogits
from pair_pkg.mlm.loss import masked_lm_loss, perplexity_metrics, score_rows, token_losses

LOGITS = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [0.0, math.log(3)]])
LABELS = torch.tensor([0, 0, 0])
LOSSES = [math.log(2), math.log(4 / 3), math.log(4)]  # -log of 1/2, 3/4, 1/4
OUTPUTS = PredictedLogits(logits=LOGITS)


def test_loss_is_a_sum_over_the_tokens_of_the_whole_step():
    assert masked_lm_loss(OUTPUTS, LABELS).item() == pytest.approx(sum(LOSSES) / 3)
    assert masked_lm_loss(OUTPUTS, LABELS, num_items_in_batch=12).item() == pytest.approx(sum(LOSSES) / 12)


def test_nothing_predicted_is_a_loss_of_zero():
    logits = torch.zeros(0, 5, requires_grad=True)
    loss = masked_lm_loss(PredictedLogits(logits=logits), torch.zeros(0, dtype=torch.long), num_items_in_batch=7)
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0, 5)


def test_half_precision_is_summed_in_float32():
    logits = torch.zeros(4000, 2, dtype=torch.bfloat16)
    loss = masked_lm_loss(PredictedLogits(logits=logits), torch.zeros(4000, dtype=torch.long))
    assert loss.dtype == torch.float32 and loss.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-6), (torch.bfloat16, 4e-3)])
@pytest.mark.parametrize("rows_at_a_time", [1, 3, 100])
def test_token_losses_and_their_gradient_are_those_of_cross_entropy(dtype, tolerance, rows_at_a_time, monkeypatch):
    monkeypatch.setattr(loss_module, "ELEMENTS_AT_A_TIME", rows_at_a_time * 50)
    generator = torch.Generator().manual_seed(0)
    logits = (4 * torch.randn(9, 50, generator=generator)).to(dtype).requires_grad_()  # the last two are dead
    labels = torch.randint(0, 50, (7,), generator=generator)
    weights = torch.randn(7, generator=generator)  # every row's loss counts differently
    losses = token_losses(logits, labels)
    expected = F.cross_entropy(logits[:7].float(), labels, reduction="none")
    assert losses.dtype == torch.float32
    torch.testing.assert_close(losses, expected, atol=1e-5, rtol=1e-5)
    (gradient,) = torch.autograd.grad(losses @ weights, logits)
    (expected_gradient,) = torch.autograd.grad(expected @ weights, logits)
    assert gradient.dtype == dtype and gradient[len(labels) :].eq(0).all()
    torch.testing.assert_close(gradient, expected_gradient, atol=tolerance * 1e-2, rtol=tolerance)


def test_accelerate_leaves_the_logits_in_half_precision():
    outputs = convert_outputs_to_fp32(lambda: PredictedLogits(LOGITS.bfloat16()))()
    assert outputs.logits.dtype == torch.bfloat16


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
