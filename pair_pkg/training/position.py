"""Where in the order of rows a run goes on whose steps had another number of rows when it was saved."""

import logging
import math
from collections.abc import Mapping
from typing import Any

from pair_pkg.data.batches import place_of_step

logger = logging.getLogger("pair_pkg")

FACTORS = ("per_device_train_batch_size", "gradient_accumulation_steps", "world_size")


def warn_of_other_place(before: Mapping[str, Any], now: Mapping[str, Any], num_rows: int, step: int) -> None:
    """Say how many rows are passed over or read again behind ``step``, where a step has other rows than before.

    The place is counted in steps. ``before`` and ``now`` are the identities of the run, with ``FACTORS``.
    """
    if not before.keys() >= set(FACTORS):
        return
    rows_before, rows_now = (math.prod(settings[name] for name in FACTORS) for settings in (before, now))
    if rows_before == rows_now:
        return
    (epoch_before, row_before), (epoch, row) = (place_of_step(num_rows, rows, step) for rows in (rows_before, rows_now))
    ahead = (epoch - epoch_before) * num_rows + row - row_before
    logger.warning(
        "a step had %d rows and has %d now: training had come to row %d of epoch %d, and goes on behind step %d at row "
        "%d of epoch %d, so that %d rows are %s; with as many rows a step as before none would be",
        rows_before, rows_now, row_before, epoch_before, step, row, epoch, abs(ahead),
        "passed over" if ahead >= 0 else "read again",
    )  # fmt: skip
