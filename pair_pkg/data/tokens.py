"""A corpus as token ids on disk: tokenized once, memory-mapped ever after.

A store is a folder: ``ids.bin`` (uint16 or uint32), ``word_starts.bin`` (one byte a token), ``offsets.npy`` (start of
each document and the end of the last) and ``store.json`` (what went in). It is written beside its place, flushed to the
disk and renamed, so a store that exists is whole; its sizes are checked when it is opened, all the same.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from tqdm.auto import tqdm
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.arrays import append, find_wrong_size, map_array, write_npy_head
from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.once import build_once
from pair_pkg.data.word_processes import tokenize_chunks
from pair_pkg.data.words import TokenizedTexts, WordTokenizer
from pair_pkg.errors import InputError
from pair_pkg.records import fingerprint, read_json, write_json

CHUNK_CHARACTERS = 2_000_000  # tokenized at a time: large enough for speed, small enough for flat memory
STORE_NAME = "store.json"


@dataclass(frozen=True)
class TokenStore:
    """Token ids of D documents, N tokens in all, without special tokens."""

    ids: np.ndarray  # (N,) uint16 or uint32
    word_starts: np.ndarray  # (N,) bool, True where a word begins: of the pre-tokenization, or a Chinese one
    offsets: np.ndarray  # (D + 1,) int64
    accounting: dict[str, Any]  # counts of the reading and of the tokenization
    folder: Path | None = None  # where it lies, if it is kept

    @property
    def num_documents(self) -> int:
        return len(self.offsets) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.offsets[-1])


def load_or_build_store(
    cache_dir: str | Path,
    source_fingerprint: str,
    tokenizer: PreTrainedTokenizerFast,
    read_texts: Callable[[], Iterable[str]],
    read_accounting: Callable[[], dict[str, Any]],
    *,
    chinese: ChineseWords | None = None,
    overwrite: bool = False,
    quiet: bool = False,
) -> TokenStore:
    """The token store of a corpus, from the cache where content, tokenizer and settings are the same.

    ``read_texts`` yields the cleaned documents; ``read_accounting`` is asked after the last of them for the counts
    of the reading. Both are called only where the store has to be built. Chinese words begin where ``chinese`` says,
    at every character without it. A damaged store is built anew, with a warning.
    """
    segmentation = [] if chinese is None else [chinese.fingerprint]
    key = fingerprint([source_fingerprint, tokenizer_fingerprint(tokenizer), *segmentation])
    store_dir = open_cache(cache_dir) / f"tokens-{key}"
    build = partial(_build_store, tokenizer, read_texts, read_accounting, chinese, quiet)
    build_once(store_dir, build, find_damage=find_damage, anew=overwrite)
    return load_store(store_dir)


def tokenize_in_memory(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerFast, chinese: ChineseWords | None = None
) -> TokenStore:
    """A store of a few texts, which is not kept on disk."""
    return memory_tokenizer(tokenizer, chinese)(texts)


def memory_tokenizer(
    tokenizer: PreTrainedTokenizerFast, chinese: ChineseWords | None = None
) -> Callable[[Sequence[str]], TokenStore]:
    """Makes stores of texts that are not kept on disk; words that were met keep their ids from call to call."""
    words = WordTokenizer(_state(tokenizer), chinese)

    def tokenize(texts: Sequence[str]) -> TokenStore:
        parts = [words.tokenize(chunk) for chunk in _chunks(texts)] or [words.tokenize([])]
        ids, word_starts, lengths = map(np.concatenate, zip(*parts))
        accounting = {"tokens": len(ids), "unknown_tokens": _count_unknown(ids, tokenizer)}
        return TokenStore(ids, word_starts, np.concatenate([[0], np.cumsum(lengths)]), accounting)

    return tokenize


def join_pairs(texts: TokenStore, pairs: np.ndarray, middle: Sequence[int]) -> TokenStore:
    """Pairs of documents (P, 2) as documents themselves, with the special tokens ``middle`` between the two."""
    separator = np.array(middle, dtype=texts.ids.dtype)
    ids, word_starts = [], []
    for pair in pairs:
        left, right = (slice(texts.offsets[number], texts.offsets[number + 1]) for number in pair)
        ids.append(np.concatenate([texts.ids[left], separator, texts.ids[right]]))
        apart = np.ones(len(separator), dtype=bool)
        word_starts.append(np.concatenate([texts.word_starts[left], apart, texts.word_starts[right]]))
    offsets = np.cumsum([0, *map(len, ids)])
    return TokenStore(np.concatenate(ids), np.concatenate(word_starts), offsets, {"tokens": int(offsets[-1])})


def open_cache(cache_dir: str | Path) -> Path:
    """The cache folder, made where it is missing. Raises ``InputError`` where it cannot be."""
    path = Path(cache_dir).expanduser()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be made ({error.strerror}); give another --token_cache_dir") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: may not be written; give another --token_cache_dir, or change its permissions")
    return path


def load_store(store_dir: Path) -> TokenStore:
    """Map a store into memory; nothing is read until it is used."""
    meta = read_json(store_dir / STORE_NAME)
    ids = map_array(store_dir / "ids.bin", np.dtype(meta["dtype"]))
    word_starts = map_array(store_dir / "word_starts.bin", np.dtype(bool))
    offsets = np.load(store_dir / "offsets.npy", mmap_mode="r")
    return TokenStore(ids, word_starts, offsets, meta["accounting"], store_dir)


def find_damage(store_dir: Path) -> str | None:
    """What is wrong with a store, in words; None where each file has the length that its counts ask for."""
    try:
        meta = read_json(store_dir / STORE_NAME)
        num_tokens, token_bytes = meta["accounting"]["tokens"], np.dtype(meta["dtype"]).itemsize
        offsets = np.load(store_dir / "offsets.npy", mmap_mode="r")
        wrong = find_wrong_size(store_dir, {"ids.bin": num_tokens * token_bytes, "word_starts.bin": num_tokens})
        if wrong:
            return wrong
        return None if offsets[-1] == num_tokens else f"offsets.npy ends at {offsets[-1]:,} in place of {num_tokens:,}"
    except OSError as error:
        return f"{Path(error.filename or store_dir).name} cannot be read ({error.strerror})"
    except Exception as error:  # another shape, or a head of offsets.npy that numpy does not survive
        return f"{STORE_NAME} or offsets.npy is damaged ({error})"


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerFast) -> str:
    """A short sha256 of everything that decides how the tokenizer cuts a text; a length limit is not of it."""
    return fingerprint({**_state(tokenizer), "truncation": None, "padding": None})  # left by whoever called it last


def num_ids(tokenizer: PreTrainedTokenizerFast) -> int:
    """Rows that an embedding needs for a tokenizer: its largest id + 1.

    ``len(tokenizer)`` is fewer where a vocabulary file names an entry twice, as published Chinese ones do.
    """
    return max(tokenizer.get_vocab().values()) + 1


def ordinary_ids(tokenizer: PreTrainedTokenizerFast) -> np.ndarray:
    """Ids of all entries but the special tokens, ascending."""
    return np.setdiff1d(np.fromiter(tokenizer.get_vocab().values(), np.int64), tokenizer.all_special_ids)


def special_affixes(tokenizer: PreTrainedTokenizerFast) -> tuple[list[int], list[int]]:
    """The special tokens before and after a single sentence, such as ([CLS], [SEP])."""
    plain = tokenizer("a", add_special_tokens=False)["input_ids"]
    dressed = tokenizer("a")["input_ids"]
    for start in range(len(dressed) - len(plain) + 1):
        if dressed[start : start + len(plain)] == plain:
            return dressed[:start], dressed[start + len(plain) :]
    raise AssertionError("a tokenizer changes a sentence when it adds special tokens")


def pair_middle(tokenizer: PreTrainedTokenizerFast) -> list[int]:
    """The special tokens between the sentences of a pair, such as [SEP]."""
    plain = len(tokenizer("a", add_special_tokens=False)["input_ids"])
    prefix, suffix = special_affixes(tokenizer)
    dressed = tokenizer("a", "a")["input_ids"]
    return dressed[len(prefix) + plain : len(dressed) - len(suffix) - plain]


def _build_store(
    tokenizer: PreTrainedTokenizerFast,
    read_texts: Callable[[], Iterable[str]],
    read_accounting: Callable[[], dict[str, Any]],
    chinese: ChineseWords | None,
    quiet: bool,
    folder: Path,
) -> None:
    dtype = np.dtype(np.uint16 if num_ids(tokenizer) <= 1 << 16 else np.uint32)
    num_documents = num_tokens = unknown = 0
    folder.mkdir()
    with (
        open(folder / "ids.bin", "wb") as ids_file,
        open(folder / "word_starts.bin", "wb") as starts_file,
        tempfile.TemporaryFile(dir=folder) as offsets_file,
    ):
        append(offsets_file, np.zeros(1, np.int64))
        for ids, starts, lengths in _tokenize(read_texts(), tokenizer, chinese, quiet):
            append(ids_file, ids.astype(dtype))
            append(starts_file, starts)
            append(offsets_file, num_tokens + np.cumsum(lengths))
            num_documents += len(lengths)
            num_tokens += len(ids)
            unknown += _count_unknown(ids, tokenizer)
        offsets_file.seek(0)
        with open(folder / "offsets.npy", "wb") as file:
            write_npy_head(file, np.dtype(np.int64), (num_documents + 1,))
            shutil.copyfileobj(offsets_file, file)
    accounting = {**read_accounting(), "tokens": num_tokens, "unknown_tokens": unknown}
    write_json(folder / STORE_NAME, {"dtype": dtype.name, "accounting": accounting})


def _tokenize(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerFast, chinese: ChineseWords | None, quiet: bool
) -> Iterator[TokenizedTexts]:
    """The tokens of the texts, a chunk at a time; chunks are read while those before them are tokenized."""
    with tqdm(desc="tokenizing", unit=" characters", unit_scale=True, disable=quiet) as progress:

        def read() -> Iterator[list[str]]:
            for chunk in _chunks(texts):
                yield chunk
                progress.update(sum(map(len, chunk)))

        yield from tokenize_chunks(read(), _state(tokenizer), chinese)


def _chunks(texts: Iterable[str]) -> Iterator[list[str]]:
    """Lists of texts of about ``CHUNK_CHARACTERS`` each."""
    chunk: list[str] = []
    size = 0
    for text in chain(texts, [None]):
        if chunk and (text is None or size + len(text) > CHUNK_CHARACTERS):
            yield chunk
            chunk, size = [], 0
        if text is not None:
            chunk.append(text)
            size += len(text)


def _count_unknown(ids: np.ndarray, tokenizer: PreTrainedTokenizerFast) -> int:
    return 0 if tokenizer.unk_token_id is None else int((ids == tokenizer.unk_token_id).sum())


def _state(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    return json.loads(tokenizer.backend_tokenizer.to_str())
