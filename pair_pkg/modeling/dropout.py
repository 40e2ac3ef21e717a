"""Dropout whose random draws and masks cost little on a CPU."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_LEVELS = 1 << 16
_INTEGERS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # by the bytes of an element


def dropout(values: Tensor, probability: float, training: bool = True) -> Tensor:
    """Drop elements with ``probability`` (to 1/65,536) and scale the rest, as ``torch.nn.functional.dropout`` does.

    On a CPU the draws and masks of ``_kept`` stand in for torch's; other devices use torch's own.
    """
    if not training or probability == 0.0:
        return values
    if values.device.type != "cpu":
        return F.dropout(values, probability)
    dropped, scale = _drop_unscaled(values, probability)
    return dropped * scale


def add_dropped(values: Tensor, residual: Tensor, probability: float, training: bool = True) -> Tensor:
    """``residual + dropout(values, probability, training)``, scaled in the same pass that adds."""
    if not training or probability == 0.0 or values.device.type != "cpu":
        return dropout(values, probability, training) + residual
    dropped, scale = _drop_unscaled(values, probability)
    return torch.add(residual, dropped, alpha=scale)


def _drop_unscaled(values: Tensor, probability: float) -> tuple[Tensor, float]:
    """Values with some of them zero, and the scale that makes up for these."""
    below = round(probability * _LEVELS)
    return _Masked.apply(values, _kept(values, below)), _LEVELS / max(_LEVELS - below, 1)


def _kept(values: Tensor, below: int) -> Tensor:
    """All bits set where an element stays, none where it is dropped, in integers as wide as the values.

    torch draws one 32-bit number an element on one core, 22 % of a training step of a small encoder; here four
    16-bit numbers come from every draw of NumPy's SFC64, seeded by one draw from torch's generator, so that a
    restored ``torch`` random state restores these draws too.
    """
    seed = int(torch.randint(2**62, ()))
    draws = np.random.SFC64(seed).random_raw(-(-values.numel() // 4)).view(np.uint16)[: values.numel()]
    stays = torch.from_numpy(draws >= below).view(values.shape)
    return stays.to(_INTEGERS[values.element_size()]).neg_()


class _Masked(torch.autograd.Function):
    """Values where all bits of the mask are set, zero elsewhere: one pass, several times faster than a product.

    A mask of booleans would be converted to the values' type on the slow path of torch's promotion.
    """

    @staticmethod
    def forward(ctx, values: Tensor, kept: Tensor) -> Tensor:
        ctx.save_for_backward(kept)
        return _mask_bits(values, kept)

    @staticmethod
    def backward(ctx, gradient: Tensor):
        (kept,) = ctx.saved_tensors
        return _mask_bits(gradient, kept), None


def _mask_bits(values: Tensor, kept: Tensor) -> Tensor:
    return torch.bitwise_and(values.view(kept.dtype), kept).view(values.dtype)
