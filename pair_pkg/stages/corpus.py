"""From what the user calls the corpus to rows of tokens on disk."""

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.corpus import (
    CORPUS_SUFFIXES,
    CorpusAudit,
    Document,
    clean_documents,
    from_hub,
    hub_splits,
    hub_version,
    read_documents,
)
from pair_pkg.data.files import expand_paths
from pair_pkg.data.held_out import HeldOutTexts, drop_held_out
from pair_pkg.data.near_duplicates import drop_near_duplicates
from pair_pkg.data.row_files import load_or_build_rows
from pair_pkg.data.rows import Documents, Rows, cut_in_parts, join_rows, rows_line_by_line, rows_packed, split_documents
from pair_pkg.data.shards import FileShards, HubShards, Shards
from pair_pkg.data.tokens import TokenStore, load_or_build_store, open_cache
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import check_unknown_fraction
from pair_pkg.processes import local_index
from pair_pkg.records import fingerprint, fingerprint_files
from pair_pkg.stages.arguments.mlm import CorpusArguments

logger = logging.getLogger("pair_pkg")


@dataclass(frozen=True)
class Source:
    """One corpus, named but not read: files, or a split of a data set on the Hub."""

    corpus: CorpusArguments
    files: tuple[Path, ...] = ()
    split: str = "train"
    token: str | None = field(default=None, repr=False)
    held_out: HeldOutTexts | None = None  # cut out of its documents
    is_stream: bool = False  # read while training, and not kept

    @property
    def name(self) -> str:
        return self.corpus.dataset_name or ", ".join(map(str, self.files[:3])) + (" ..." if len(self.files) > 3 else "")

    def fingerprint(self) -> str:
        """Changes with the content and with every setting that decides what a document is."""
        corpus = self.corpus
        settings = [corpus.text_column, corpus.encoding, corpus.document_per, corpus.keep_duplicates]
        if not self.files:
            content: Any = [hub_version(corpus.dataset_name, corpus.dataset_config_name, self.token), self.split]
        elif self.is_stream:  # too much to be read before it is needed; what is read again is compared then
            content = [[path.name, path.stat().st_size] for path in self.files]
        else:
            content = fingerprint_files(self.files)
        filters = [corpus.near_duplicates, self.held_out and self.held_out.fingerprint]
        return fingerprint([content, [path.suffix for path in self.files], settings, *filter(None, filters)])

    def documents(self, audit: CorpusAudit) -> Iterator[Document]:
        """The cleaned documents, counted into ``audit``. Raises ``InputError`` after the last where none was left."""
        corpus = self.corpus
        if self.files:
            read = read_documents(
                self.files,
                text_column=corpus.text_column,
                encoding=corpus.encoding,
                document_per=corpus.document_per,
            )
        else:
            read = from_hub(corpus.dataset_name, corpus.dataset_config_name, self.split, corpus.text_column, self.token)
        yield from self.clean(read, audit, open_cache(corpus.token_cache_dir))
        if audit.documents_kept == 0:
            raise InputError(f"{self.name}: no text is left of {audit.documents_read:,} documents; check the corpus")

    def clean(
        self, documents: Iterable[Document], audit: CorpusAudit, digest_dir: Path | None = None
    ) -> Iterator[Document]:
        """What the flags leave of some documents, counted into ``audit``."""
        corpus = self.corpus
        documents = clean_documents(documents, audit, not corpus.keep_duplicates, digest_dir)
        if corpus.near_duplicates is not None:
            documents = drop_near_duplicates(documents, corpus.near_duplicates, audit)
        return documents if self.held_out is None else drop_held_out(documents, self.held_out, audit)

    def shards(self) -> Shards:
        """The documents as they stand, to be read while training. Raises ``InputError``."""
        corpus = self.corpus
        if self.files:
            return FileShards(self.files, corpus.text_column, corpus.encoding, corpus.document_per)
        return HubShards(corpus.dataset_name, corpus.dataset_config_name, self.split, corpus.text_column, self.token)

    def __iter__(self) -> Iterator[str]:
        """The texts of the documents; each pass reads the corpus anew."""
        return (document.text for document in self.documents(CorpusAudit()))

    def store(self, tokenizer: PreTrainedTokenizerFast, chinese: ChineseWords | None, quiet: bool) -> TokenStore:
        """The corpus as token ids, from the cache where nothing has changed; ``chinese`` tells Chinese words apart."""
        audit = CorpusAudit()
        states = self._states()  # looked at before the fingerprint is taken

        def texts() -> Iterator[str]:
            yield from (document.text for document in self.documents(audit))
            changed = [path for path, before, now in zip(self.files, states, self._states()) if before != now]
            if changed:
                raise InputError(f"{changed[0]}: changed while it was read; run again when nothing writes to it")

        store = load_or_build_store(
            self.corpus.token_cache_dir,
            self.fingerprint(),
            tokenizer,
            texts,
            lambda: asdict(audit),
            chinese=chinese,
            overwrite=self.corpus.overwrite_cache and local_index() == 0,  # the others come when it is done
            quiet=quiet,
        )
        accounting = store.accounting
        check_unknown_fraction(accounting["unknown_tokens"], accounting["tokens"], tokenizer.name_or_path)
        return store

    def _states(self) -> list[tuple[int, int, int]]:
        """What changes when a file is written to or replaced."""
        return [(state.st_ino, state.st_size, state.st_mtime_ns) for state in (path.stat() for path in self.files)]


def training_source(corpus: CorpusArguments, token: str | None, held_out: HeldOutTexts | None = None) -> Source:
    """The corpus to train on, without ``held_out``; ``token`` opens a private data set on the Hub."""
    files = tuple(expand_paths(corpus.train_file, CORPUS_SUFFIXES)) if corpus.train_file else ()
    return Source(corpus, files, token=token, held_out=held_out, is_stream=corpus.streaming)


def validation_source(corpus: CorpusArguments, token: str | None) -> Source | None:
    """The corpus to validate on, where it is one of its own: files, or the Hub data set's validation split."""
    if corpus.validation_file:
        return Source(corpus, tuple(expand_paths(corpus.validation_file, CORPUS_SUFFIXES)))
    if corpus.dataset_name and "validation" in hub_splits(corpus.dataset_name, corpus.dataset_config_name, token):
        return Source(corpus, split="validation", token=token, is_stream=corpus.streaming)
    return None


class StoredRows(NamedTuple):
    """Rows over the tokens that they are cut from."""

    store: TokenStore
    rows: Rows


@dataclass(frozen=True)
class CorpusRows:
    """Training and validation rows, and what became of every token."""

    train: StoredRows
    validation: StoredRows
    accounting: dict[str, Any]


def load_rows(
    train: Source,
    validation: Source | None,
    tokenizer: PreTrainedTokenizerFast,
    *,
    max_seq_length: int,
    num_special: int,
    seed: int,
    quiet: bool,
    chinese: ChineseWords | None = None,
    select: Callable[[TokenStore, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> CorpusRows:
    """Tokenize, split by document and cut into rows; ``select`` says which windows to train on, all without it.

    Raises ``InputError`` where one side is left empty.
    """
    corpus = train.corpus
    store = train.store(tokenizer, chinese, quiet)
    if not store.num_tokens:
        raise InputError(
            f"{train.name}: the tokenizer leaves no token of {store.num_documents:,} documents; check --encoding, or "
            "take a model of the text's language"
        )
    if validation is None:
        fraction = corpus.validation_percentage / 100
        documents, held_out = split_documents(store.num_documents, fraction, seed)
        validation_store = store
    else:
        validation_store = validation.store(tokenizer, chinese, quiet)
        documents, held_out = Documents(store.num_documents), Documents(validation_store.num_documents)

    shape = (max_seq_length, num_special, corpus.line_by_line)
    train_rows = cut_rows(store, documents, *shape, select)
    validation_rows = cut_rows(validation_store, held_out, *shape)
    if not len(train_rows) or not len(validation_rows):
        raise InputError(
            f"{train.name}: {store.num_documents} documents are too few to train and to validate; "
            "give --validation_file, or a corpus of two documents or more"
        )
    accounting = _account(
        store, validation_store, train_rows, validation_rows, num_special, max_seq_length, select is not None
    )
    limited = train_rows.sample(corpus.max_train_samples or len(train_rows), seed)
    limited_validation = validation_rows.sample(corpus.max_eval_samples or len(validation_rows), seed)
    return CorpusRows(StoredRows(store, limited), StoredRows(validation_store, limited_validation), accounting)


def cut_rows(
    store: TokenStore,
    documents: Documents,
    max_seq_length: int,
    num_special: int,
    line_by_line: bool,
    select: Callable[[TokenStore, np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> Rows:
    """Documents as rows, packed full or a window each; ``select`` says which windows to take.

    Those of a store on disk are laid beside it, once, and mapped.
    """
    windows = cut_in_parts(store.offsets, documents, max_seq_length - num_special)
    lay = rows_line_by_line
    if not line_by_line:
        lay = partial(rows_packed, num_special=num_special, capacity=max_seq_length)
    if select is not None:  # their vectors are in memory at a time, which is a hundred times as much
        starts, lengths = map(np.concatenate, zip(*windows))
        near = select(store, starts, lengths) if len(starts) else slice(None)
        return lay(starts[near], lengths[near])
    rows = (lay(*some) for some in windows)
    if store.folder is None:
        return join_rows(rows)
    settings = [asdict(documents), max_seq_length, num_special, line_by_line]
    return load_or_build_rows(store.folder, settings, rows)


def _account(
    store: TokenStore,
    validation_store: TokenStore,
    train: Rows,
    validation: Rows,
    num_special: int,
    max_seq_length: int,
    selected: bool,
) -> dict[str, Any]:
    """Counts of a corpus, which must add up: no token is dropped, none counted twice."""
    total = store.num_tokens + (validation_store.num_tokens if validation_store is not store else 0)
    unselected = total - train.num_tokens - validation.num_tokens
    assert unselected == 0 or (selected and unselected > 0), "a token was lost or counted twice"
    inputs = train.num_tokens + num_special * len(train.starts)
    reading = store.accounting if validation_store is store else {
        name: store.accounting[name] + validation_store.accounting.get(name, 0) for name in store.accounting
    }  # fmt: skip
    return {
        **reading,
        "unknown_fraction": reading["unknown_tokens"] / max(total, 1),
        **({"unselected_tokens": unselected} if selected else {}),
        "train_tokens": train.num_tokens,
        "validation_tokens": validation.num_tokens,
        "train_rows": len(train),
        "validation_rows": len(validation),
        "train_windows": len(train.starts),
        "row_fill_fraction": inputs / (len(train) * max_seq_length),
    }


def describe(accounting: dict[str, Any]) -> list[str]:
    """The accounting in words, a line each."""
    a = accounting
    found = [
        f"{a[name]:,} {what}"
        for name, what in (
            ("near_duplicates", "near duplicates dropped"),
            ("held_out_texts", "texts of validation or test pairs cut out"),
            ("unselected_tokens", "tokens of passages that are far from the task left out"),
        )
        if a.get(name)
    ]
    return [
        f"documents: {a['documents_read']:,} read, {a['empty']:,} empty, {a['duplicates']:,} exact duplicates dropped, "
        f"{a['documents_kept']:,} kept ({a['characters']:,} characters)",
        f"tokens: {a['tokens']:,} = {a['train_tokens']:,} to train on + {a['validation_tokens']:,} to validate on; "
        f"{a['unknown_fraction']:.2%} unknown",
        f"rows: {a['train_rows']:,} to train on, {a['validation_rows']:,} to validate on; "
        f"{a['row_fill_fraction']:.1%} of the places filled",
        *(["; ".join(found)] if found else []),
    ]
