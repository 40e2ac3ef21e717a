"""A stream of rows as what a trainer trains on: its batches, and the place in it that checkpoints hold."""

from pathlib import Path

from transformers import TrainingArguments

from pair_pkg.data.stream import Mark, RowStream, StreamSampler
from pair_pkg.training.manifest import read_manifest


class TrainingStream:
    """One process's stream in a run of ``max_steps`` steps, which the library counts as one epoch."""

    def __init__(self, rows: RowStream, args: TrainingArguments):
        self.rows = rows
        self.args = args
        self._sampler: StreamSampler | None = None

    def build_sampler(self, checkpoint: str | None) -> StreamSampler:
        """Batches from the stream's beginning, or from where a checkpoint stands. Raises ``InputError``."""
        args, begin, num_done = self.args, Mark(self.args.world_size), 0
        if checkpoint is not None:
            manifest = read_manifest(Path(checkpoint))
            assert manifest is not None, f"{checkpoint} is no sealed checkpoint"
            begin = Mark.load(checkpoint, args.process_index, args.world_size)
            num_done = manifest["step"] * args.gradient_accumulation_steps
        num_batches = args.max_steps * args.gradient_accumulation_steps
        self._sampler = StreamSampler(self.rows, args.per_device_train_batch_size, num_batches, begin, num_done)
        return self._sampler

    def save(self, checkpoint: str, step: int) -> None:
        """Write this process's place behind ``step`` steps into a checkpoint."""
        self._mark(step).save(checkpoint, self.args.process_index)

    def name_rows(self, step: int) -> str:
        """The rows of a step (from 0) of this process, in words."""
        mark, num_rows = self._mark(step), self.args.per_device_train_batch_size * self.args.gradient_accumulation_steps
        first, last = mark.num_rows, mark.num_rows + num_rows - 1
        place = f"behind document {mark.position.document:,} of a shard of epoch {mark.position.epoch}"
        return f"rows {first:,} to {last:,} of its stream, {place}"

    def _mark(self, step: int) -> Mark:
        assert self._sampler is not None, "there is no place before the first batch"
        return self._sampler.mark(step * self.args.gradient_accumulation_steps)
