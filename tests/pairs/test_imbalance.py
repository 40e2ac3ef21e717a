"""Class weights and the focal loss: known values, one sum however a step is cut, and what they do to odds."""

import math

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from pair_pkg.errors import InputError
from pair_pkg.pairs.imbalance import balance_losses, choose_class_weights, margin_shift
from pair_pkg.pairs.loss import pair_loss, pair_losses

LABELS = np.array([0] * 6 + [1] * 3 + [2])
NAMES = ["no", "maybe", "yes"]


@pytest.mark.parametrize("wanted", [["auto"], ["yes=6", "no=1", "maybe=2"], ["no=100", "maybe=200", "yes=600"]])
def test_weights_are_the_inverse_frequency_with_mean_1_over_the_pairs(wanted):
    weights = choose_class_weights(wanted, NAMES, LABELS)
    np.testing.assert_allclose(weights, [10 / 18, 10 / 9, 10 / 3])  # as scikit-learn's "balanced"
    assert np.mean([weights[label] for label in LABELS]) == pytest.approx(1)


def test_a_class_of_no_pair_may_have_a_weight_by_name():
    weights = choose_class_weights(["no=1", "maybe=1", "yes=5"], NAMES, np.array([0, 1]))
    assert weights == [1, 1, 5]


@pytest.mark.parametrize(
    "wanted, message",
    [
        (["auto"], "auto: no training pair is 'yes'"),
        (["auto", "no=1"], "auto: no such class; give each of no, maybe, yes once"),
        (["no=1", "no=2"], "no=2: twice"),
        (["no=1", "maybe=2"], "yes has no weight; add yes=1"),
        (["no=many"], "'many' is no number"),
        (["no=0"], "give a weight above 0"),
        (["no=inf"], "give a weight above 0"),
        (["no=nan"], "give a weight above 0"),
        (["never=1"], "never=1: no such class"),
    ],
)
def test_weights_that_do_not_fit_are_refused(wanted, message):
    with pytest.raises(InputError, match=message):
        choose_class_weights(wanted, NAMES, np.array([0, 1, 1]))


@pytest.mark.parametrize("num_logits", [1, 2, 3])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_the_focal_loss_is_the_formula(num_logits, gamma):
    logits = torch.tensor([[0.3, -1.2, 2.0], [1.5, 0.2, -0.4], [-2.0, 1.0, 0.5]], dtype=torch.float64)[:, :num_logits]
    labels = torch.tensor([1, 0, 1])
    kind = "binary" if num_logits < 3 else "classes"
    weights = [0.5, 1.5, 2.0]
    found = balance_losses(pair_losses(kind, logits, labels).double(), labels, weights, gamma)
    for row, label in enumerate(labels.tolist()):
        if num_logits == 1:
            right = logits[row, 0].sigmoid().item() if label else 1 - logits[row, 0].sigmoid().item()
        else:
            right = logits[row].softmax(0)[label].item()
        expected = -weights[label] * (1 - right) ** gamma * math.log(right)
        assert found[row].item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("gamma", [0.5, 1.0, 2.0])
def test_a_pair_that_is_surely_right_or_wrong_has_a_finite_gradient(gamma):
    logits = torch.tensor([[-200.0, 200.0], [200.0, -200.0], [0.0, 0.0]], requires_grad=True)
    labels = torch.tensor([1, 1, 0])
    balance_losses(pair_losses("binary", logits, labels), labels, (), gamma).sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert logits.grad[0].abs().max() < 1e-6 and logits.grad[1].abs().max() == pytest.approx(1)


def test_batch_8_is_2_batches_of_4_whatever_their_classes():
    logits = torch.randn(8, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1, 0])  # the halves differ in their classes, so in their weights
    loss = pair_loss("binary", choose_class_weights(["auto"], ["no", "yes"], labels.numpy()), 2.0)

    def gradient(parts):
        logits.grad = None
        losses = [loss(SequenceClassifierOutput(logits=logits[part]), labels[part], 8) for part in parts]
        sum(losses).backward()
        return sum(losses).item(), logits.grad.clone()

    whole, halves = gradient([slice(0, 8)]), gradient([slice(0, 4), slice(4, 8)])
    assert whole[0] == pytest.approx(halves[0], rel=1e-6)
    torch.testing.assert_close(whole[1], halves[1])


def test_weights_move_the_margin_of_a_fitted_model_by_the_logarithm_of_their_ratio():
    """One logit fitted to 8 negative and 2 positive pairs: log-odds -1.39 without weights, even odds with auto."""
    labels = torch.tensor([0] * 8 + [1] * 2)
    weights = choose_class_weights(["auto"], ["no", "yes"], labels.numpy())
    margins = []
    for class_weights in ((), weights):
        logit = torch.zeros(1, requires_grad=True)
        optimizer = torch.optim.LBFGS([logit], max_iter=50)

        def closure(logit=logit, optimizer=optimizer, class_weights=class_weights):
            optimizer.zero_grad()
            outputs = SequenceClassifierOutput(logits=logit.expand(10).unsqueeze(1))
            loss = pair_loss("binary", class_weights)(outputs, labels)
            loss.backward()
            return loss

        optimizer.step(closure)
        margins.append(logit.item())
    assert margins[0] == pytest.approx(math.log(2 / 8), abs=1e-3)
    assert margins[1] - margins[0] == pytest.approx(margin_shift(weights), abs=1e-3)
