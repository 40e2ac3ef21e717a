"""Rows without end from a corpus that is not kept: read, tokenized, packed and shuffled a block at a time.

A block is a small corpus: the next documents of a process's share, about so many characters of them, never across
the end of an epoch. So where a process stands is a few whole numbers, those of the block's beginning and the rows
taken since, and reading on from there gives the same rows.
"""

# S windows of a row, T its tokens

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Sampler

from pair_pkg.data.corpus import Document
from pair_pkg.data.rows import Rows
from pair_pkg.data.shards import Shards
from pair_pkg.data.texts import ranges
from pair_pkg.data.tokens import TokenStore
from pair_pkg.errors import InputError
from pair_pkg.records import read_json, write_json

PLACES_OF_A_PROCESS = 1 << 36  # between the first tokens of two processes: draws of no two tokens are the same


class StreamRow(NamedTuple):
    """One row of a batch with its tokens; a stream's places never come again, so its draws need no epoch."""

    ids: np.ndarray  # (T,)
    word_starts: np.ndarray  # (T,) bool
    starts: np.ndarray  # (S,) the place in the stream of each window's first token
    lengths: np.ndarray  # (S,) tokens of each window
    progress: float = 0.0  # share of the run that lies before it
    epoch: int = 0
    is_filler: bool = False


class Position(NamedTuple):
    """Where a block begins: what its process has read before."""

    epoch: int = 0
    shard: int = 0  # of the epoch's shards of this process, in their order
    document: int = 0  # of the shard
    num_tokens: int = 0  # of all blocks before
    num_rows: int = 0


@dataclass(frozen=True)
class Block:
    """Rows that were packed together, in the order of training."""

    position: Position
    store: TokenStore
    rows: Rows
    first_place: int  # of its first token in the stream

    @property
    def digest(self) -> str:
        """Tells whether a block that is read again is the same."""
        arrays = (self.store.ids, self.store.word_starts, self.rows.starts, self.rows.lengths, self.rows.row_offsets)
        return hashlib.blake2b(b"".join(array.tobytes() for array in arrays), digest_size=16).hexdigest()

    def read(self, first: int) -> Iterator[StreamRow]:
        """Its rows without the first ones."""
        rows = self.rows
        for row in range(first, len(rows)):
            windows = slice(rows.row_offsets[row], rows.row_offsets[row + 1])
            starts, lengths = rows.starts[windows], rows.lengths[windows]
            places = ranges(starts, lengths)
            ids, word_starts = self.store.ids[places], self.store.word_starts[places]
            yield StreamRow(ids, word_starts, starts + self.first_place, lengths)


@dataclass(frozen=True)
class RowStream:
    """The rows of one process's share of some shards, epoch after epoch.

    The shards of an epoch are put into an order by (seed, epoch) and dealt out to the processes in turn. Where they
    are fewer than the processes, each process reads all of them and takes every ``num_processes``-th document. In
    either case a document is one process's, and read once in an epoch. ``held_back`` are documents at the beginning
    of shards that are nobody's.
    """

    name: str
    shards: Shards
    clean: Callable[[Sequence[Document]], list[str]]  # the texts to learn from; called with a block's documents
    tokenize: Callable[[Sequence[str]], TokenStore]
    cut: Callable[[TokenStore], Rows]
    seed: int
    buffer_characters: int
    process_index: int = 0
    num_processes: int = 1
    held_back: Mapping[int, int] | None = None

    @property
    def is_dealt_by_shard(self) -> bool:
        return len(self.shards) >= self.num_processes

    def blocks(self, position: Position) -> Iterator[Block]:
        """The blocks from a position on, without end. Raises ``InputError`` where an epoch has no text."""
        buffer: list[Document] = []
        characters = rows_of_epoch = 0
        for document, behind in self._documents(position):
            if document is not None:
                buffer.append(document)
                characters += len(document.text)
                if characters < self.buffer_characters:
                    continue
            block = self._build(self.clean(buffer), position)
            if len(block.rows):
                yield block
            num_tokens = position.num_tokens + block.store.num_tokens
            position = behind._replace(num_tokens=num_tokens, num_rows=position.num_rows + len(block.rows))
            rows_of_epoch += len(block.rows)
            buffer, characters = [], 0
            if document is None:
                if not rows_of_epoch:
                    raise InputError(
                        f"{self.name}: no text is left in the share of process {self.process_index} of "
                        f"{self.num_processes}; give more text or fewer processes"
                    )
                rows_of_epoch = 0

    def _documents(self, position: Position) -> Iterator[tuple[Document | None, Position]]:
        """Documents, each with the place behind it; None at the end of an epoch."""
        epoch, first_shard, first = position[:3]
        while True:
            for turn, shard in enumerate(self._share(epoch)):
                if turn < first_shard:
                    continue
                held_back = (self.held_back or {}).get(shard, 0)
                first = max(first, held_back)
                for number, document in enumerate(self.shards.documents(shard, first), start=first):
                    if self.is_dealt_by_shard or number % self.num_processes == self.process_index:
                        yield document, Position(epoch, turn, number + 1)
                first = 0
            epoch, first_shard, first = epoch + 1, 0, 0
            yield None, Position(epoch)

    def _share(self, epoch: int) -> list[int]:
        """The shards that this process reads in an epoch, in their order."""
        order = np.random.default_rng([self.seed, epoch]).permutation(len(self.shards)).tolist()
        return order[self.process_index :: self.num_processes] if self.is_dealt_by_shard else order

    def _build(self, texts: list[str], position: Position) -> Block:
        store = self.tokenize(texts)
        rows = self.cut(store)
        order = np.random.default_rng([self.seed, self.process_index, position.num_rows]).permutation(len(rows))
        first_place = self.process_index * PLACES_OF_A_PROCESS + position.num_tokens
        return Block(position, store, rows.take(order), first_place)


@dataclass(frozen=True)
class Mark:
    """Where a process stands: so many rows taken in all, the last of them in the block that begins at ``position``."""

    num_processes: int
    num_rows: int = 0
    position: Position = Position()
    digest: str | None = None  # of the block; None where none was read

    def save(self, checkpoint: str | Path, process_index: int) -> None:
        """Write it into a checkpoint."""
        write_json(_mark_path(checkpoint, process_index), {**asdict(self), "position": self.position._asdict()})

    @classmethod
    def load(cls, checkpoint: str | Path, process_index: int, num_processes: int) -> "Mark":
        """That of a process in a checkpoint. Raises ``InputError`` where other processes have shared the stream."""
        path = next(filter(Path.is_file, (_mark_path(checkpoint, number) for number in (process_index, 0))), None)
        if path is None:
            raise InputError(f"{checkpoint}: holds no place in a stream; give another --output_dir")
        saved = read_json(path)
        if saved["num_processes"] != num_processes:
            raise InputError(
                f"{checkpoint}: processes share the rows of a stream, and their number has changed "
                f"({saved['num_processes']} -> {num_processes}); go on with {saved['num_processes']}, or give another "
                "--output_dir"
            )
        return cls(**{**saved, "position": Position(**saved["position"])})


class StreamSampler(Sampler[list[StreamRow]]):
    """Batches of one process: rows of its stream, ``num_batches`` in all.

    ``begin`` is where a run goes on, behind its first ``num_done`` batches: they are counted, and not made again. The
    next block is read while rows of the one before are trained on.
    """

    def __init__(self, stream: RowStream, batch_size: int, num_batches: int, begin: Mark, num_done: int = 0):
        self.stream = stream
        self.batch_size = batch_size
        self.num_batches = num_batches
        self.begin = begin
        self.num_done = num_done
        self._blocks: deque[tuple[Position, str]] = deque()  # since the last mark

    def __len__(self) -> int:
        return self.num_batches

    def starting_at(self, num_done: int) -> "StreamSampler":
        """Itself: a stream is opened where it begins."""
        assert num_done == self.num_done, "a stream goes on at its checkpoint only"
        return self

    def __iter__(self) -> Iterator[list[StreamRow]]:
        self._blocks.clear()
        rows = self._rows()
        for batch in range(self.num_done, self.num_batches):
            places = np.arange(self.batch_size) / self.batch_size + batch
            yield [
                row._replace(progress=place / self.num_batches)
                for place, row in zip(places.tolist(), islice(rows, self.batch_size))
            ]

    def mark(self, num_batches: int) -> Mark:
        """The place behind so many batches; marks of places before it are not to be asked for any more."""
        if not self._blocks:
            return self.begin
        num_rows = self.begin.num_rows + (num_batches - self.num_done) * self.batch_size
        while len(self._blocks) > 1 and self._blocks[1][0].num_rows <= num_rows:
            self._blocks.popleft()
        position, digest = self._blocks[0]
        return Mark(self.begin.num_processes, num_rows, position, digest)

    def _rows(self) -> Iterator[StreamRow]:
        blocks = self.stream.blocks(self.begin.position)
        wanted, taken = self.begin.digest, self.begin.num_rows
        with ThreadPoolExecutor(1) as background:
            coming = background.submit(next, blocks)
            while True:
                block = coming.result()
                coming = background.submit(next, blocks)
                digest = block.digest
                if wanted not in (None, digest):
                    raise InputError(
                        f"{self.stream.name}: is not what this run has read before (epoch {block.position.epoch}, "
                        f"shard {block.position.shard}, document {block.position.document}); restore it, or give "
                        "another --output_dir"
                    )
                self._blocks.append((block.position, digest))
                yield from block.read(max(taken - block.position.num_rows, 0))
                wanted = None


def _mark_path(checkpoint: str | Path, process_index: int) -> Path:
    return Path(checkpoint, f"stream_{process_index}.json")
