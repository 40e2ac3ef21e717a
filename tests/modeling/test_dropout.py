"""The cheap dropout has torch's meaning: rate, scale, gradient, and a stream that the random state restores."""

import pytest
import torch

from pair_pkg.modeling.dropout import add_dropped, dropout


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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_dropped_values_are_added_as_they_would_be_alone(dtype):
    values, residual = torch.randn(50, 30).to(dtype).requires_grad_(), torch.randn(50, 30, requires_grad=True)
    state = torch.get_rng_state()
    ours = add_dropped(values, residual, 0.3)
    torch.set_rng_state(state)
    alone = dropout(values, 0.3)
    torch.testing.assert_close(ours.float(), residual + alone.float(), atol=0.04, rtol=0)  # a product less in half
    assert torch.equal(ours == residual, alone == 0)
    ours.float().sum().backward()
    assert torch.equal(values.grad == 0, alone == 0) and residual.grad.eq(1).all()
    assert values.grad.max().item() == pytest.approx(1 / 0.7, rel=5e-3)


def test_everything_can_be_dropped():
    assert dropout(torch.ones(9), 1.0).eq(0).all()
    assert dropout(torch.ones(0, 4), 0.5).shape == (0, 4)


def test_a_strided_view_is_dropped_in_its_own_shape():
    values = torch.arange(1.0, 13.0).view(3, 4).t()
    dropped = dropout(values, 0.5)
    assert dropped.shape == (4, 3) and ((dropped == 0) | (dropped == 2 * values)).all()
