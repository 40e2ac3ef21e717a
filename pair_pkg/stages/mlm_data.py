"""What stage 1 reads: rows of the corpus, and general text beside it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.corpus import CORPUS_SUFFIXES
from pair_pkg.data.files import expand_paths
from pair_pkg.data.mixture import Part, mix, quota_of
from pair_pkg.data.rows import Documents
from pair_pkg.data.stream import RowStream
from pair_pkg.data.tokens import TokenStore, join_pairs, pair_middle, tokenize_in_memory, tokenizer_fingerprint
from pair_pkg.mlm.word_counts import mine_terms
from pair_pkg.records import fingerprint, fingerprint_model
from pair_pkg.stages.arguments.mlm import CorpusArguments, MlmFlags
from pair_pkg.stages.corpus import CorpusRows, Source, StoredRows, cut_rows, describe, load_rows
from pair_pkg.stages.masking import build_chinese_words
from pair_pkg.stages.selection import Select, build_selection
from pair_pkg.stages.streaming import describe_stream, open_stream
from pair_pkg.stages.task_pairs import TaskPairs


@dataclass(frozen=True)
class MlmData:
    """What is trained on, a stream or rows that are kept, of the corpus and of what is mixed in; and the rest.

    ``general`` is general text, ``corpus_store`` the whole corpus, which nobody has of a stream.
    """

    train: StoredRows | RowStream
    validation: StoredRows
    counts: dict[str, Any]  # of the corpus
    general: CorpusRows | None
    corpus_store: TokenStore | None = None
    quotas: dict[str, int] = field(default_factory=dict)  # rows beside the corpus's that an epoch takes
    mined_terms: Sequence[tuple[int, ...]] = ()

    @property
    def accounting(self) -> dict[str, Any]:
        """Counts for the record."""
        general = {"general": self.general.accounting} if self.general else {}
        return {"corpus": self.counts | {"mixed_rows": self.quotas}, **general}


def general_source(flags: MlmFlags) -> Source | None:
    """The general text that is named, not read; its columns and its encoding are found anew."""
    if not flags.forgetting.replay_file:
        return None
    files = tuple(expand_paths(flags.forgetting.replay_file, CORPUS_SUFFIXES))
    corpus: CorpusArguments = replace(
        flags.corpus,
        train_file=flags.forgetting.replay_file,
        dataset_name=None,
        text_column=None,
        encoding=None,
        document_per="auto",
        max_train_samples=None,
        streaming=False,
        stream_buffer=None,
        stream_validation=None,
    )
    return Source(corpus, files)


def load_data(
    flags: MlmFlags,
    source: Source,
    validation: Source | None,
    general: Source | None,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    num_special: int,
    pairs: TaskPairs | None = None,
) -> MlmData:
    """Tokenize what is named, cut it into rows, and mix those to train on; or open a stream. Raises ``InputError``."""
    args = flags.training
    chinese = build_chinese_words(flags.masking)
    quiet = bool(args.disable_tqdm) or not args.should_log

    shape: dict[str, Any] = {"max_seq_length": max_seq_length, "num_special": num_special}
    select = None
    if flags.task.select_top is not None:
        model = fingerprint_model(flags.model.model_name_or_path)
        identity = fingerprint([model, tokenizer_fingerprint(tokenizer), source.fingerprint()])
        cache_dir = flags.corpus.token_cache_dir
        select = build_selection(
            flags.model,
            args,
            tokenizer,
            pairs.texts_to_learn(),
            flags.task.select_top,
            max_seq_length,
            cache_dir,
            identity,
        )

    def load(train: Source, held_out: Source | None, select: Select | None = None) -> CorpusRows:
        settings: dict[str, Any] = {"seed": args.seed, "chinese": chinese, "select": select, "quiet": quiet}
        return load_rows(train, held_out, tokenizer, **shape, **settings)

    with args.main_process_first(desc="tokenizing the corpus"):
        beside = load(general, None) if general else None
        if source.is_stream:
            opened = open_stream(source, validation, tokenizer, chinese, args, **shape, quiet=quiet)
            return MlmData(*opened, beside)
        rows = load(source, validation, select)
    parts = {}
    if beside is not None and flags.forgetting.share:
        quota = quota_of(flags.forgetting.share, len(rows.train.rows))
        parts["general"] = Part(*beside.train, quota)
    if flags.task.include_pair_text:
        parts["pair_text"] = _pair_text(pairs, tokenizer, chinese, flags, len(rows.train.rows), **shape)
    mixed = StoredRows(*mix(*rows.train, list(parts.values()), args.seed))
    terms: Sequence[tuple[int, ...]] = ()
    if flags.masking.mine_terms is not None:
        terms = mine_terms(rows.train.store, beside.train.store, tokenizer, flags.masking.mine_terms)
    quotas = {name: part.quota for name, part in parts.items()}
    return MlmData(mixed, rows.validation, rows.accounting, beside, rows.train.store, quotas, terms)


def _pair_text(
    pairs: TaskPairs,
    tokenizer: PreTrainedTokenizerFast,
    chinese: ChineseWords | None,
    flags: MlmFlags,
    num_own: int,
    *,
    max_seq_length: int,
    num_special: int,
) -> Part:
    """The task's sentences, or its pairs, as rows; one of them a document."""
    texts = pairs.texts_to_learn()
    store = tokenize_in_memory(texts, tokenizer, chinese)
    if flags.task.pair_text_format == "pairs":
        number = {text: index for index, text in enumerate(texts)}
        numbers = np.array([[number[left], number[right]] for left, right in pairs.pairs_to_learn()])
        store = join_pairs(store, numbers, pair_middle(tokenizer))
    everything = Documents(store.num_documents)
    rows = cut_rows(store, everything, max_seq_length, num_special, flags.corpus.line_by_line)
    share = flags.task.pair_text_share
    return Part(store, rows, len(rows) if share is None else quota_of(share, num_own))


def describe_data(data: MlmData) -> list[str]:
    """The rows in words, a line each."""
    lines = describe_stream(data.counts) if isinstance(data.train, RowStream) else describe(data.counts)
    if data.general is not None:
        counts = data.general.accounting
        lines.append(
            f"general text: {counts['train_tokens']:,} tokens to replay, {counts['validation_tokens']:,} to validate on"
        )
    if data.quotas:
        mixed = ", ".join(f"{quota:,} of {name.replace('_', ' ')}" for name, quota in data.quotas.items())
        lines.append(f"rows that an epoch mixes in: {mixed}")
    return lines
