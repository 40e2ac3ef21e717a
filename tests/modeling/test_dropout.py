"""The cheap dropout has torch's meaning: rate, scale, gradient, and a stream that the random state restores."""

import pytest
import torch

from pair_pkg.modeling.dropout import dropout


@pytest.mark.parametrize("probability", [0.1, 0.5])
def test_rate_scale_and_gradient(probability):
    values = torch.ones(200_000, requires_grad=True)
    dropped = dropout(values, probability)
    zeros = (dropped == 0).float().mean().item()
    assert abs(zeros - probability) < 0.005
    assert dropped.max().item() == pytest.approx(1 / (1 - probability), rel=1e-4)
    dropped.sum().backward()
    assert torch.equal(values.grad, dropped.detach())


def test_evaluation_and_zero_probability_change_nothing():
    values = torch.randn(10)
    assert dropout(values, 0.1, training=False) is values
    assert dropout(values, 0.0) is values


def test_a_restored_random_state_draws_the_same():
    state = torch.get_rng_state()
    first = dropout(torch.ones(1000), 0.3)
    second = dropout(torch.ones(1000), 0.3)
    torch.set_rng_state(state)
    assert torch.equal(dropout(torch.ones(1000), 0.3), first)
    assert not torch.equal(first, second)


def test_half_precision_stays_half_precision():
    assert dropout(torch.ones(8, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16
