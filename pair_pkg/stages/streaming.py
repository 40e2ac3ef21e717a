"""``--streaming``: stage 1 on a corpus that is read while training and never kept."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.corpus import CorpusAudit, Document, text_digest
from pair_pkg.data.rows import Documents, Rows
from pair_pkg.data.shards import read_head
from pair_pkg.data.stream import RowStream
from pair_pkg.data.tokens import TokenStore, memory_tokenizer
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import check_unknown_fraction
from pair_pkg.stages.arguments.mlm import CorpusArguments, MlmFlags, MlmTrainingArguments
from pair_pkg.stages.corpus import Source, StoredRows, cut_rows

DEFAULT_BUFFER = 8_000_000  # characters: seconds of tokenizing, and tens of megabytes
DEFAULT_VALIDATION = 1_000  # documents


def refuse_unstreamable(flags: MlmFlags) -> None:
    """Refuse what needs the whole corpus beside ``--streaming``. Raises ``InputError`` with the flag and the cure."""
    corpus, args, task, vocabulary = flags.corpus, flags.training, flags.task, flags.vocabulary
    if not corpus.streaming:
        return
    if args.max_steps <= 0:
        raise InputError("--streaming: a stream has no end, so training needs one; give --max_steps")
    if corpus.validation_file and corpus.stream_validation is not None:
        raise InputError("--stream_validation and --validation_file both say what to validate on; give one of them")
    wants_whole = (
        ("near_duplicates", corpus.near_duplicates, "leave it out, or thin the corpus before"),
        ("validation_split_percentage", corpus.validation_split_percentage, "give --stream_validation N"),
        ("max_train_samples", corpus.max_train_samples, "leave it out; --max_steps bounds the run"),
        ("select_top", task.select_top, "leave it out, or select from files that are kept"),
        ("include_pair_text", task.include_pair_text, "leave it out, or name the texts among the files to train on"),
        ("replay_share", flags.forgetting.share, "give 0 to measure only, and name the text among the files"),
        ("mine_terms", flags.masking.mine_terms, "give the terms as --term_list"),
        (
            "extend_vocab",
            vocabulary.extend_vocab,
            "extend the model on a kept part first, and stream to what comes out",
        ),
        ("new_words", vocabulary.new_words, "extend the model on a kept part first, and stream to what comes out"),
        ("model_type", flags.scratch.model_type and not flags.model.tokenizer_name, "give it a --tokenizer_name"),
    )
    for name, given, cure in wants_whole:
        if given:
            raise InputError(f"--{name} asks for the corpus as a whole, which --streaming never has; {cure}")
    for name in ("eval_strategy", "save_strategy", "logging_strategy"):
        if getattr(args, name) == "epoch":
            raise InputError(f"--{name} epoch: the run of a stream is one epoch from end to end; give steps")


def stream_identity(corpus: CorpusArguments) -> dict[str, Any]:
    """What of a stream's flags decides on the result; nothing for a corpus that is kept."""
    if not corpus.streaming:
        return {}
    validation = None if corpus.validation_file else corpus.stream_validation or DEFAULT_VALIDATION
    buffer = corpus.stream_buffer or DEFAULT_BUFFER
    return {"streaming": True, "stream_buffer": buffer, "stream_validation": validation}


def open_stream(
    source: Source,
    validation: Source | None,
    tokenizer: PreTrainedTokenizerFast,
    chinese: ChineseWords | None,
    args: MlmTrainingArguments,
    *,
    max_seq_length: int,
    num_special: int,
    quiet: bool,
) -> tuple[RowStream, StoredRows, dict[str, Any]]:
    """This process's rows to train on, the rows to validate on, and counts for the record.

    The corpus's first documents are read at once, so that what is wrong with it shows. They are validated on, and
    neither they nor other documents of the same text are trained on, unless ``validation`` is a corpus of its own.
    Raises ``InputError``.
    """
    corpus, shards, tokenize = source.corpus, source.shards(), memory_tokenizer(tokenizer, chinese)
    cut = partial(_cut_all, max_seq_length=max_seq_length, num_special=num_special, line_by_line=corpus.line_by_line)
    wanted = corpus.stream_validation or DEFAULT_VALIDATION
    head, held_back = read_head(shards, wanted)
    if validation is None and len(head) < wanted:
        raise InputError(
            f"{source.name}: holds {len(head):,} documents, fewer than the {wanted:,} to validate on; give a lower "
            "--stream_validation, or --validation_file"
        )
    texts = _texts(source, head)
    store = tokenize(texts)
    check_unknown_fraction(store.accounting["unknown_tokens"], store.num_tokens, tokenizer.name_or_path)
    if validation is not None:
        held_back = {}
        texts = _texts(validation, read_head(validation.shards(), wanted)[0]) if validation.is_stream else []
        store = tokenize(texts) if validation.is_stream else validation.store(tokenizer, chinese, quiet)
    rows = cut(store)
    if not len(rows):
        raise InputError(f"{(validation or source).name}: no text to validate on; give --validation_file")
    rows = rows.sample(corpus.max_eval_samples or len(rows), args.seed)
    stream = RowStream(
        name=source.name,
        shards=shards,
        clean=partial(_texts, source, held_out=frozenset(text_digest(text, "") for text in texts)),
        tokenize=tokenize,
        cut=cut,
        seed=args.seed if args.data_seed is None else args.data_seed,
        buffer_characters=corpus.stream_buffer or DEFAULT_BUFFER,
        process_index=args.process_index,
        num_processes=args.world_size,
        held_back=held_back,
    )
    counts = {
        "shards": len(shards),
        "dealt_by": "shard" if stream.is_dealt_by_shard else "document",
        "buffer_characters": stream.buffer_characters,
        "validation_documents": store.num_documents,
        "validation_tokens": store.num_tokens,
        "validation_rows": len(rows),
    }
    return stream, StoredRows(store, rows), counts


def describe_stream(counts: dict[str, Any]) -> list[str]:
    """A stream in words, a line each."""
    return [
        f"a stream of {counts['shards']:,} shards, dealt out to processes by {counts['dealt_by']}; nothing is kept, "
        f"and duplicates are dropped within {counts['buffer_characters']:,} characters only",
        f"to validate on: {counts['validation_documents']:,} documents, {counts['validation_tokens']:,} tokens, "
        f"{counts['validation_rows']:,} rows",
    ]


def _texts(source: Source, documents: Sequence[Document], held_out: frozenset[int] = frozenset()) -> list[str]:
    """The cleaned texts of some documents, without those that are held out."""
    kept = source.clean(documents, CorpusAudit())
    return [part.text for part in kept if not held_out or text_digest(part.text, part.place) not in held_out]


def _cut_all(store: TokenStore, **shape: Any) -> Rows:
    return cut_rows(store, Documents(store.num_documents), **shape)
