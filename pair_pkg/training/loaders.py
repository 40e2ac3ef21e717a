"""Loaders of batches that know their epoch, and that go on within it by arithmetic."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import transformers.trainer
from torch.utils.data import DataLoader, Dataset, Sampler

from pair_pkg.data.batches import TrainSampler
from pair_pkg.data.stream import StreamSampler


class EpochLoader(DataLoader):
    """A DataLoader that tells its sampler the epoch; ``settings`` are DataLoader's."""

    def __init__(self, dataset: Dataset, batch_sampler: Sampler, **settings: Any):
        super().__init__(dataset, batch_sampler=batch_sampler, **settings)
        self._settings = settings

    def set_epoch(self, epoch: int) -> None:
        if isinstance(self.batch_sampler, TrainSampler):
            self.batch_sampler.set_epoch(epoch)

    def starting_at(self, num_batches: int) -> "EpochLoader":
        """The same loader without the first batches of an epoch."""
        assert isinstance(self.batch_sampler, TrainSampler | StreamSampler), "only training goes on within an epoch"
        return EpochLoader(self.dataset, self.batch_sampler.starting_at(num_batches), **self._settings)


@contextmanager
def skipping_by_arithmetic() -> Iterator[None]:
    """In this block the library's Trainer, continued within an epoch, has an ``EpochLoader`` begin there.

    Its own way draws every batch before that place from the sampler, and drops it.
    """
    librarys = transformers.trainer.skip_first_batches

    def skip_first_batches(loader: DataLoader, num_batches: int = 0) -> DataLoader:
        return loader.starting_at(num_batches) if isinstance(loader, EpochLoader) else librarys(loader, num_batches)

    transformers.trainer.skip_first_batches = skip_first_batches
    try:
        yield
    finally:
        transformers.trainer.skip_first_batches = librarys
