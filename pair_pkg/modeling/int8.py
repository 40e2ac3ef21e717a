"""Linear layers that multiply in int8 on a processor: weights by output channel, activations by token, as they come.

No library serves here: torch's own dynamic quantization is deprecated and takes one scale for all tokens of a batch,
and torchao's modules are slower than float32 until a compiler has been at them, as ``export --to int8`` lets it.
"""

# N tokens, K width of the input, M width of the output

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

HIGHEST = 127  # of the symmetric range, which leaves -128 out
SMALLEST_SCALE = 1e-12  # of a row of zeros, which has no scale
BLOCK_ROWS = 512  # tokens at a time, whose float32 copies stay in a core's cache


class Int8Linear(nn.Module):
    """The product of a ``nn.Linear`` in int8 with exact integer sums: (..., K) -> (..., M), in the type of its input.

    A weight w becomes round(w / s) with s the largest |w| of its output channel over 127, an activation the same with
    the largest of its token. The bias stays as it is. For inference alone: nothing has a gradient.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = _scale(weight)
        self.register_buffer("weight", (weight / scale).round_().to(torch.int8).t().contiguous())  # (K, M)
        self.register_buffer("scale", scale.t().contiguous())  # (1, M)
        bias = weight.new_zeros(len(weight)) if linear.bias is None else linear.bias.detach().float()
        self.register_buffer("bias", bias)  # (M,)

    def forward(self, rows: Tensor) -> Tensor:
        flat = rows.reshape(-1, rows.shape[-1])
        output = flat.new_empty(len(flat), self.weight.shape[1])
        for start in range(0, len(flat), BLOCK_ROWS):
            block = flat[start : start + BLOCK_ROWS].float()
            scale = _scale(block)
            products = torch._int_mm((block / scale).round_().to(torch.int8), self.weight)  # int32
            output[start : start + BLOCK_ROWS] = torch.addcmul(self.bias, products * scale, self.scale)
        return output.view(*rows.shape[:-1], output.shape[1])


def quantize_linears(model: PreTrainedModel) -> None:
    """Put an ``Int8Linear`` in the place of every linear layer of a model."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, Int8Linear(child))


def _scale(rows: Tensor) -> Tensor:
    """What one step of int8 is worth in each row: (N, K) -> (N, 1)."""
    return rows.abs().amax(1, keepdim=True).clamp_(min=HIGHEST * SMALLEST_SCALE) / HIGHEST
