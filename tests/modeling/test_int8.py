import pytest
import torch
from torch import nn

from pair_pkg.modeling import int8
from pair_pkg.modeling.int8 import Int8Linear


def quantized_by_hand(rows):
    scale = rows.abs().amax(1, keepdim=True) / 127
    return (rows / scale).round().double(), scale.double()


@pytest.mark.parametrize("block_rows", [3, 512])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_that_of_the_rounded_operands(bias, block_rows, monkeypatch):
    monkeypatch.setattr(int8, "BLOCK_ROWS", block_rows)
    torch.manual_seed(0)
    linear = nn.Linear(48, 20, bias=bias)
    rows = torch.randn(2, 4, 48)
    (left, left_scale), (right, right_scale) = (
        quantized_by_hand(values) for values in (rows.view(8, 48), linear.weight.detach())
    )
    expected = (left @ right.t()) * left_scale * right_scale.t()
    if bias:
        expected += linear.bias.detach().double()
    found = Int8Linear(linear)(rows)
    assert found.shape == (2, 4, 20)
    torch.testing.assert_close(found.view(8, 20).double(), expected, atol=1e-5, rtol=1e-5)


def test_one_large_token_takes_no_precision_from_the_others():
    torch.manual_seed(0)
    linear, rows = nn.Linear(48, 20), torch.randn(8, 48)
    alone = Int8Linear(linear)(rows)
    rows[0] *= 1000
    assert torch.equal(Int8Linear(linear)(rows)[1:], alone[1:])


def test_rows_of_zeros_give_the_bias_and_the_type_stays():
    linear = nn.Linear(16, 8)
    found = Int8Linear(linear)(torch.zeros(3, 16, dtype=torch.bfloat16))
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found, linear.bias.detach().bfloat16().expand(3, 8))
    assert Int8Linear(linear)(torch.empty(0, 16)).shape == (0, 8)
