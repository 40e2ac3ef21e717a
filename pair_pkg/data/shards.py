"""A corpus that is read and not kept: shards of documents, the files of a list or those of a data set on the Hub."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

from pair_pkg.data.corpus import Document, as_document, hub_errors, read_documents, text_column_of


class Shards(Protocol):
    """Parts of a corpus, each of which can be read from any of its documents on, always in the same order."""

    def __len__(self) -> int: ...

    def documents(self, shard: int, first: int = 0) -> Iterator[Document]:
        """The documents of a shard without its first ones. Raises ``InputError``."""


@dataclass(frozen=True)
class FileShards:
    """Files, each a shard; see :func:`pair_pkg.data.corpus.read_documents`."""

    paths: Sequence[Path]
    text_column: str | None = None
    encoding: str | None = None
    document_per: str = "auto"

    def __len__(self) -> int:
        return len(self.paths)

    def documents(self, shard: int, first: int = 0) -> Iterator[Document]:
        read = read_documents(
            [self.paths[shard]],
            text_column=self.text_column,
            encoding=self.encoding,
            document_per=self.document_per,
        )
        return islice(read, first, None)


class HubShards:
    """One split of a data set on the Hub, read over the network by ``datasets``' streaming; none of it is stored.

    Raises ``InputError`` where it cannot be opened or read.
    """

    def __init__(
        self, dataset_name: str, config_name: str | None, split: str, text_column: str | None, token: str | None
    ):
        self.place = f"{dataset_name}[{split}]"
        with hub_errors(self.place) as datasets:
            rows = datasets.load_dataset(dataset_name, config_name, split=split, streaming=True, token=token)
            self.column = text_column_of(rows, text_column, self.place)
            self._rows = rows.select_columns([self.column])

    def __len__(self) -> int:
        return self._rows.num_shards

    def documents(self, shard: int, first: int = 0) -> Iterator[Document]:
        with hub_errors(self.place):
            rows = self._rows.shard(num_shards=len(self), index=shard).skip(first)
            for number, row in enumerate(rows, start=first + 1):
                yield as_document(row[self.column], f"{self.place}: shard {shard}, row {number}")


def read_head(shards: Shards, num_documents: int) -> tuple[list[Document], dict[int, int]]:
    """The first documents of a corpus in the order of its shards, and how many of each shard they are."""
    documents: list[Document] = []
    taken: dict[int, int] = {}
    for shard in range(len(shards)):
        before = len(documents)
        documents.extend(islice(shards.documents(shard), num_documents - before))
        taken[shard] = len(documents) - before
        if len(documents) == num_documents:
            break
    return documents, taken
