"""``--select_top``: the passages of a corpus that are nearest to the task's sentences (kNN-TAPT)."""

# W windows of the corpus, Q sentences of the task, D width of a vector

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from tqdm.auto import tqdm
from transformers import AutoModel, PreTrainedTokenizerFast, TrainingArguments

from pair_pkg.data.once import build_once
from pair_pkg.data.texts import TextTokens, ranges
from pair_pkg.data.tokens import TokenStore, open_cache, special_affixes
from pair_pkg.modeling.embedding import SentenceEncoder, encode_texts, encode_tokens
from pair_pkg.modeling.loading import load_model
from pair_pkg.records import fingerprint
from pair_pkg.search.faiss_index import build_index, choose_index_type, search_rows
from pair_pkg.stages.arguments.model import ModelArguments
from pair_pkg.stages.lifecycle import load_named_config

CHUNK_WINDOWS = 2_000  # encoded at a time, sorted by length within

Select = Callable[[TokenStore, np.ndarray, np.ndarray], np.ndarray]


def build_selection(
    model: ModelArguments,
    args: TrainingArguments,
    tokenizer: PreTrainedTokenizerFast,
    sentences: Sequence[str],
    top_k: int,
    max_seq_length: int,
    cache_dir: str,
    identity: str,
) -> Select:
    """``select(store, starts, lengths)``: which windows (W,) are among the ``top_k`` nearest ones of some sentence.

    By the cosine of the base encoder's mean vectors. What was chosen is kept in the cache under ``identity``, so that
    a continued run, and every other process, has the same rows.
    """

    def select(store: TokenStore, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        windows = hashlib.sha256(starts.tobytes() + lengths.tobytes()).hexdigest()
        key = fingerprint([identity, top_k, list(sentences), windows])
        path = Path(open_cache(cache_dir), f"selection-{key}.npy")

        def build(place: Path) -> None:
            encoder = load_model(AutoModel, model.model_name_or_path, load_named_config(model), **model.hub())
            encoder = SentenceEncoder(encoder.to(args.device), tokenizer, "mean", max_seq_length)
            quiet = bool(args.disable_tqdm)
            np.save(place, nearest_windows(encoder, store, starts, lengths, sentences, top_k, quiet=quiet))

        build_once(path, build)
        return np.load(path)

    return select


def nearest_windows(
    encoder: SentenceEncoder,
    store: TokenStore,
    starts: np.ndarray,
    lengths: np.ndarray,
    sentences: Sequence[str],
    top_k: int,
    *,
    quiet: bool = True,
) -> np.ndarray:
    """Which windows are among the ``top_k`` nearest of at least one sentence: (W,) bool."""
    vectors = np.empty((len(starts), encoder.model.config.hidden_size), dtype=np.float32)
    affixes = special_affixes(encoder.tokenizer)
    with tqdm(total=len(starts), desc="encoding passages", unit=" passages", disable=quiet) as progress:
        for begin in range(0, len(starts), CHUNK_WINDOWS):
            part = slice(begin, begin + CHUNK_WINDOWS)
            for numbers, found in encode_tokens(encoder, _dress(store, starts[part], lengths[part], affixes)):
                vectors[begin + numbers] = found
                progress.update(len(numbers))
    index, _ = build_index(vectors, choose_index_type(*vectors.shape)[0])
    _, rows = search_rows(index, encode_texts(encoder, sentences), min(top_k, len(starts)))
    chosen = np.zeros(len(starts), dtype=bool)
    chosen[rows[rows >= 0]] = True
    return chosen


def _dress(
    store: TokenStore, starts: np.ndarray, lengths: np.ndarray, affixes: tuple[Sequence[int], Sequence[int]]
) -> TextTokens:
    """Windows as texts with their special tokens."""
    prefix, suffix = affixes
    full = lengths + len(prefix) + len(suffix)
    begins = np.cumsum(full) - full
    ids = np.empty(full.sum(), dtype=np.int32)
    ids[ranges(begins + len(prefix), lengths)] = store.ids[ranges(starts, lengths)]
    for affix, at in ((prefix, begins), (suffix, begins + len(prefix) + lengths)):
        ids[at[:, None] + np.arange(len(affix))] = affix
    return TextTokens(ids, np.zeros(len(ids), np.int8), full, num_truncated=0)
