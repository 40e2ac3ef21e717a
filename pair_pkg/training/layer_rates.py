"""Layer-wise learning rates: each layer learns by a factor more slowly than the one above it."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn


def split_by_depth(groups: Sequence[dict[str, Any]], depth_of: Mapping[nn.Parameter, int], decay: float) -> list[dict]:
    """An optimizer's parameter groups, divided so that a parameter learns at its group's rate x decay ^ (top - depth).

    The top depth keeps its rate and comes first, so that it is the rate that is logged. Weight decay and all else stay
    as in the group that is divided (Howard and Ruder, 2018; Zhang et al., 2021).
    """
    top = max(depth_of.values())
    divided = []
    for depth in range(top, -1, -1):
        for group in groups:
            parameters = [parameter for parameter in group["params"] if depth_of[parameter] == depth]
            if parameters:
                divided.append({**group, "params": parameters, "lr": group["lr"] * decay ** (top - depth)})
    return divided


def describe_rates(groups: Sequence[dict[str, Any]], depth_of: Mapping[nn.Parameter, int]) -> str:
    """The rate of each depth, head first, in one line."""
    rates = {depth_of[group["params"][0]]: group["lr"] for group in groups}
    top = max(depth_of.values())
    titles = {top: "head", 0: "embeddings"}
    return ", ".join(f"{titles.get(depth, f'layer {depth}')} {rate:.3g}" for depth, rate in rates.items())
