"""Documents of a corpus, from files or from the Hub, and what cleaning did to them."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from types import ModuleType
from typing import Any

from pair_pkg.columns import TEXT_SYNONYMS
from pair_pkg.data.digests import DigestSet
from pair_pkg.data.files import read_lines
from pair_pkg.data.tables import TABLE_SUFFIXES, pick_column, read_table, table_suffix
from pair_pkg.errors import InputError

CORPUS_SUFFIXES = (".txt", *TABLE_SUFFIXES)
DOCUMENT_PER = ("auto", "line", "blank_line")
AUTO_LINES = 1000  # lines that "auto" looks at


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where a user finds it, such as ``corpus.txt:17``; ``id`` where a column of ids was asked for."""

    text: str
    place: str
    id: str | None = None


@dataclass
class CorpusAudit:
    """What :func:`clean_documents` counted; ``characters`` are those of the documents kept.

    ``near_duplicates`` and ``held_out_texts`` are what later filters dropped of these.
    """

    documents_read: int = 0
    empty: int = 0
    duplicates: int = 0
    documents_kept: int = 0
    characters: int = 0
    near_duplicates: int = 0
    held_out_texts: int = 0


def read_documents(
    paths: Sequence[Path],
    *,
    text_column: str | None = None,
    id_column: str | None = None,
    encoding: str | None = None,
    document_per: str = "auto",
) -> Iterator[Document]:
    """Documents of text files and of the text column of tables, in the order of ``paths``.

    With ``id_column`` every document carries the id of its row; text files have none, and are refused.

    In a ``.txt`` file a document is a line, or the lines between blank lines joined by LF; "auto" takes blank lines
    where they separate at least two blocks of several lines within the first 1,000 lines. Raises ``InputError``.
    """
    if document_per not in DOCUMENT_PER:
        raise InputError(f"--document_per {document_per}: unknown; use one of {', '.join(DOCUMENT_PER)}")
    for path in map(Path, paths):
        if table_suffix(path) != ".txt":
            yield from _table_documents(path, encoding, text_column, id_column)
        elif id_column is not None:
            raise InputError(f"{path}: a text file has no column {id_column!r}; give a table, or leave out --id_column")
        else:
            yield from _text_documents(path, encoding, document_per)


def clean_documents(
    documents: Iterable[Document],
    audit: CorpusAudit,
    drop_duplicates: bool = True,
    digest_dir: Path | None = None,
) -> Iterator[Document]:
    """Strip surrounding whitespace, drop empty documents and exact duplicates, count everything in ``audit``.

    Duplicates are told by 64 bits of BLAKE2b, which lie on the disk in ``digest_dir`` where it is given: among 10
    million different documents the chance that one is lost to a collision is 3 in a million. Raises ``InputError`` with
    the place at a lone surrogate.
    """
    seen = DigestSet(digest_dir)
    for document in documents:
        audit.documents_read += 1
        text = document.text.strip()
        digest = text_digest(text, document.place)
        if not text:
            audit.empty += 1
        elif drop_duplicates and digest in seen:
            audit.duplicates += 1
        else:
            if drop_duplicates:
                seen.add(digest)
            audit.documents_kept += 1
            audit.characters += len(text)
            yield Document(text, document.place)


def from_hub(
    dataset_name: str, config_name: str | None, split: str, text_column: str | None, token: str | None = None
) -> Iterator[Document]:
    """Documents of one split of a Hub data set; the place is ``name[split]:row``. Raises ``InputError``."""
    place = f"{dataset_name}[{split}]"
    with hub_errors(place) as datasets:
        rows = datasets.load_dataset(dataset_name, config_name, split=split, token=token)
        column = text_column_of(rows, text_column, place)
        for number, row in enumerate(rows.select_columns([column]), start=1):
            yield as_document(row[column], f"{place}:{number}")


def text_column_of(rows: Any, wanted: str | None, place: str) -> str:
    """The column of the text in rows of the library ``datasets``. Raises ``InputError``."""
    columns = list(rows.features or next(iter(rows), {}))  # a stream may not know its columns before its first row
    return pick_column(columns, TEXT_SYNONYMS, wanted, "--text_column", place)


def hub_splits(dataset_name: str, config_name: str | None, token: str | None = None) -> list[str]:
    """Names of the splits of a Hub data set. Raises ``InputError``."""
    with hub_errors(dataset_name) as datasets:
        return datasets.get_dataset_split_names(dataset_name, config_name, token=token)


def hub_version(dataset_name: str, config_name: str | None, token: str | None = None) -> str:
    """What changes when a Hub data set's files or configuration change. Raises ``InputError``."""
    with hub_errors(dataset_name) as datasets:
        builder = datasets.load_dataset_builder(dataset_name, config_name, token=token)
        return f"{dataset_name}/{builder.config_id}/{builder.hash}"


def as_document(text: Any, place: str, document_id: str | None = None) -> Document:
    """A text with its place. Raises ``InputError`` where it is none."""
    if not isinstance(text, str):
        kind = "null" if text is None else f"{type(text).__name__} {text!r:.40}"
        raise InputError(f"{place}: the text is {kind}, not a string; mend or remove the row, or give --text_column")
    return Document(text, place, document_id)


@contextmanager
def hub_errors(place: str) -> Iterator[ModuleType]:
    """The library ``datasets``, its errors about the Hub as ``InputError``, one line with the cure."""
    import datasets  # seconds of import that a corpus of files does not need

    try:
        yield datasets
    except InputError:
        raise
    except datasets.exceptions.DatasetNotFoundError as error:
        cure = "check the name, and log in with `hf auth login` if it is private or gated"
        raise InputError(f"{place}: no such data set on the Hub; {cure}") from error
    except ConnectionError as error:
        cure = "connect to the network, or give the corpus as files"
        raise InputError(f"{place}: the Hub cannot be reached ({error}); {cure}") from error
    except (ValueError, OSError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        cure = "check the configuration's and the split's names"
        raise InputError(f"{place}: cannot be loaded ({error}); {cure}") from error


def text_digest(text: str, place: str) -> int:
    """64 bits of BLAKE2b that tell texts apart. Raises ``InputError`` with the place at a lone surrogate."""
    try:
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: a lone surrogate, half a character; mend or remove the document") from error


def _text_documents(path: Path, encoding: str | None, document_per: str) -> Iterator[Document]:
    if document_per == "auto":
        top = islice(read_lines(path, encoding), AUTO_LINES)
        document_per = "blank_line" if _has_blocks(line for _, line in top) else "line"
    if document_per == "line":
        for number, line in read_lines(path, encoding):
            yield Document(line, f"{path}:{number}")
    else:
        yield from _blocks(path, encoding)


def _has_blocks(lines: Iterable[str]) -> bool:
    """Whether blank lines separate at least two blocks of several lines.

    >>> _has_blocks(["a", "b", "", "c", "d"]), _has_blocks(["a", "b", "", "c"])
    (True, False)
    """
    blocks = (list(block) for filled, block in groupby(lines, key=lambda line: bool(line.strip())) if filled)
    return sum(len(block) > 1 for block in blocks) > 1


def _blocks(path: Path, encoding: str | None) -> Iterator[Document]:
    for filled, block in groupby(read_lines(path, encoding), key=lambda numbered: bool(numbered[1].strip())):
        if filled:
            numbers, lines = zip(*block)
            yield Document("\n".join(lines), f"{path}:{numbers[0]}")


def _table_documents(
    path: Path, encoding: str | None, text_column: str | None, id_column: str | None
) -> Iterator[Document]:
    # A column that is named, not numbered, says that the file has a header.
    header = None if text_column is None or text_column.isdigit() else True
    table = read_table(path, encoding=encoding, header=header)
    column = pick_column(table.columns, TEXT_SYNONYMS, text_column, "--text_column", path)
    id_column = id_column and pick_column(table.columns, (), id_column, "--id_column", path)
    for row in table:
        yield as_document(row.values[column], row.place, id_column and _id(row.values[id_column], row.place))


def _id(value: Any, place: str) -> str:
    if not isinstance(value, (str, int)) or isinstance(value, bool) or not str(value).strip():
        raise InputError(f"{place}: the id is {value!r:.40}; every row needs a text or a whole number as its id")
    return str(value)
