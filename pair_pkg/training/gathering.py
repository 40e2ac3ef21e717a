"""What an evaluation measured of each row, put together from all batches and processes."""

from typing import Any

import numpy as np
import torch.distributed as dist


def gather_rows(scored: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Columns of all batches of all processes as one, in the order of their column ``row``: (R,) each, everywhere."""
    if dist.is_available() and dist.is_initialized():
        parts: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(parts, scored)
        scored = [columns for part in parts for columns in part]
    columns = {name: np.concatenate([part[name] for part in scored]) for name in scored[0]}
    order = np.argsort(columns["row"], kind="stable")
    return {name: values[order] for name, values in columns.items()}
