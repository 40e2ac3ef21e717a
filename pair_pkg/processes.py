"""The processes of one launch (``torchrun``, ``accelerate launch``): which this one is, its share, how they meet."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist

from pair_pkg.interrupts import Interrupted

# A process that dies closes its connections, and who waits for it is told at once; one that works may work for long.
PATIENCE = timedelta(days=7)
GLOO_THREADS_END = 0.1  # seconds in which the interpreter's lock is free for them; they need far less than one

ENDED = "another process of this launch ended; the same command goes on"

Made = TypeVar("Made")


@dataclass(frozen=True)
class Processes:
    """This process among those of its launch. Items are dealt in groups, in turn: a group is in one process, whole."""

    index: int = 0
    count: int = 1

    @property
    def is_main(self) -> bool:
        return self.index == 0

    def own(self, num_items: int, group_size: int) -> np.ndarray:
        """Numbers of the items of this process, ascending.

        >>> Processes(1, 2).own(8, group_size=3).tolist()
        [3, 4, 5]
        """
        numbers = np.arange(num_items)
        return numbers[numbers // group_size % self.count == self.index]

    def together(self, own: np.ndarray, num_items: int, group_size: int) -> np.ndarray:
        """The values of all items, everywhere, from those of each process's ``own``."""
        parts = self.gather(own)
        if self.count == 1:
            return own
        whole = np.empty((num_items, *parts[0].shape[1:]), parts[0].dtype)  # the first process has items if any has
        for index, part in enumerate(parts):
            if len(part):
                whole[replace(self, index=index).own(num_items, group_size)] = part
        return whole

    def from_main(self, make: Callable[[], Made]) -> Made:
        """What the main process makes, everywhere; the others wait for it."""
        return self.gather(make() if self.is_main else None)[0]

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, by their order, everywhere. Raises ``Interrupted`` where one of them has died."""
        values = [value] * self.count
        if self.count > 1:
            try:
                dist.all_gather_object(values, value)
            except RuntimeError as error:
                raise Interrupted(ENDED) from error
        return values


ALONE = Processes()


@contextmanager
def joined_launch() -> Iterator[Processes]:
    """The processes that a launcher has started for this work, joined for the block; ``ALONE`` without a launcher.

    They meet over gloo, whatever they compute on: little is exchanged. Each takes an accelerator of its machine, where
    there is one.
    """
    count = int(os.environ.get("WORLD_SIZE", 1))
    if count == 1:
        yield ALONE
        return
    if torch.accelerator.is_available():
        torch.accelerator.set_device_index(local_index() % torch.accelerator.device_count())
    with process_group_ends():
        dist.init_process_group("gloo", timeout=PATIENCE)
        yield Processes(dist.get_rank(), count)


@contextmanager
def one_first(is_first: bool) -> Iterator[None]:
    """The first ones are alone in this block; the others come when they are through, and all leave it together.

    However long it takes: the limit of the run's own group is for the steps of a training. Where one fails the others
    come all the same, and fail alike. Raises ``Interrupted`` where one has died.
    """
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        yield
        return
    group = dist.new_group(backend="gloo", timeout=PATIENCE)
    try:
        if not is_first:
            _meet(group)
        yield
    finally:
        if is_first:
            _meet(group)
    _meet(group)
    dist.destroy_process_group(group)


def _meet(group: Any) -> None:
    try:
        dist.barrier(group)
    except RuntimeError as error:
        raise Interrupted(ENDED) from error


def local_index() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def process_group_ends() -> Iterator[None]:
    """The group of processes that was set up in this block ends with it, not with the interpreter.

    Raises ``Interrupted`` where an exchange in the block fails because another process has died.

    A thread of gloo needs the interpreter's lock to drop the tensors of its last exchange. Where it gets the lock
    only while the interpreter ends, the process is aborted ("terminate called without an active exception") though
    its work is done; DistributedDataParallel keeps the group alive, so that ending it does not wait for its threads.
    Source: pytorch pull request 179291.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_lost_process(error):
            raise
        reason = str(error).partition("\n")[0].partition(". ")[0]
        raise Interrupted(f"{ENDED} from what is saved ({reason})") from error
    finally:
        if dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
            time.sleep(GLOO_THREADS_END)


def is_lost_process(error: RuntimeError) -> bool:
    """Whether an exchange failed because a process has died or cannot be reached; gloo has no error class of its own.

    >>> is_lost_process(RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.2]:5000"))
    True
    >>> is_lost_process(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    False
    """
    return isinstance(error, getattr(dist, "DistError", ())) or "gloo/transport" in str(error)
