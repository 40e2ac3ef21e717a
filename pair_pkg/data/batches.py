"""Which rows form a batch: a function of (seed, epoch, step, process), so resuming is arithmetic."""

from collections.abc import Iterator
from copy import copy
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from pair_pkg.data.draws import Shuffled

FROZEN = -1  # the epoch of evaluation: its draws never change


class Item(NamedTuple):
    """One row of a batch, and the epoch whose random draws it gets; ``is_filler`` rows count for nothing.

    ``progress`` is how many epochs of rows come before it in training, a fraction among them.
    """

    row: int
    epoch: int
    is_filler: bool = False
    progress: float = 0.0


class TrainSampler(Sampler[list[Item]]):
    """Shuffled batches of one process.

    The order of an epoch's rows is a function of (seed, epoch). A micro-step takes the next ``batch_size`` x
    ``num_processes`` of them, and each process its slice, so batch 16, 4 x 4 accumulated and 2 processes x 8 see the
    same rows in the same optimizer step. Where the last rows do not reach all processes, fillers that predict
    nothing keep the processes in step.
    """

    def __init__(self, num_rows: int, batch_size: int, seed: int, process_index: int = 0, num_processes: int = 1):
        self.num_rows = num_rows
        self.batch_size = batch_size
        self.seed = seed
        self.process_index = process_index
        self.num_processes = num_processes
        self.start = 0
        self.epoch = 0

    def starting_at(self, start: int) -> "TrainSampler":
        """The same batches from the micro-step ``start`` of each epoch on; those before it are not made."""
        sampler = copy(self)
        sampler.start = start
        return sampler

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.num_rows // (self.batch_size * self.num_processes)) - self.start

    def __iter__(self) -> Iterator[list[Item]]:
        order = epoch_order(self.num_rows, self.seed, self.epoch)
        step_size = self.batch_size * self.num_processes
        for start in range(self.start * step_size, self.num_rows, step_size):
            rows = order[start : start + step_size].tolist()
            own = np.array_split(np.arange(len(rows)), self.num_processes)[self.process_index].tolist()
            items = [
                Item(rows[place], self.epoch, progress=self.epoch + (start + place) / self.num_rows) for place in own
            ]
            yield items or [Item(rows[0], self.epoch, is_filler=True)]


def epoch_order(num_rows: int, seed: int, epoch: int) -> Shuffled:
    """The rows of an epoch in the order of training, (R,), read by slices."""
    return Shuffled(num_rows, [seed, epoch])


def rows_of_step(num_rows: int, rows_per_step: int, seed: int, step: int) -> np.ndarray:
    """The training rows of an optimizer step (from 0), over its micro-steps and all processes.

    >>> rows_of_step(5, 2, seed=1, step=2).tolist() == epoch_order(5, seed=1, epoch=0)[4:5].tolist()
    True
    """
    epoch, start = place_of_step(num_rows, rows_per_step, step)
    return epoch_order(num_rows, seed, epoch)[start : start + rows_per_step]


def place_of_step(num_rows: int, rows_per_step: int, step: int) -> tuple[int, int]:
    """Where an optimizer step (from 0) begins: its epoch, and the rows of this epoch that come before it.

    >>> place_of_step(5, 2, step=2), place_of_step(5, 2, step=3)
    ((0, 4), (1, 0))
    """
    epoch, step_of_epoch = divmod(step, -(-num_rows // rows_per_step))
    return epoch, step_of_epoch * rows_per_step


class EvaluationSampler(Sampler[list[Item]]):
    """All rows once, longest first so that a batch's rows are of like length; every n-th batch to a process.

    With ``in_step`` every process gets as many batches, since processes that hold a model's weights together can only
    run it together: what comes behind the ``num_own`` first batches is another's, and counts for nothing.
    """

    def __init__(
        self,
        row_tokens: np.ndarray,
        batch_size: int,
        process_index: int = 0,
        num_processes: int = 1,
        in_step: bool = False,
    ):
        order = np.argsort(-row_tokens, kind="stable")
        batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
        own = batches[process_index::num_processes]
        self.num_own = len(own)
        self.num_shared = len(batches) // num_processes  # batches that every process has
        num_missing = -(-len(batches) // num_processes) - len(own) if in_step else 0  # 0 or 1
        self.batches = own + batches[:num_missing]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[Item]]:
        for rows in self.batches:
            yield [Item(int(row), FROZEN) for row in rows]
