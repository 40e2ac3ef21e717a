"""From the flags of ``MaskingArguments`` to masks."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerFast, TrainingArguments

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.files import read_lines
from pair_pkg.data.tokens import ordinary_ids
from pair_pkg.errors import InputError
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.terms import Terms, tokenize_terms
from pair_pkg.mlm.units import TOKEN
from pair_pkg.records import fingerprint
from pair_pkg.stages.arguments.masking import MaskingArguments

logger = logging.getLogger("pair_pkg")


def masking_identity(flags: MaskingArguments) -> dict[str, Any]:
    """What of the flags decides on the masks: files by their content."""
    files = {"word_dictionary": flags.word_dictionary, "term_list": flags.term_list}
    words = {name: fingerprint(read_words(path, f"--{name}")) for name, path in files.items() if path}
    return flags.given() | words


def build_chinese_words(flags: MaskingArguments) -> ChineseWords | None:
    """The segmenter of Chinese text, which knows the terms too; None where words do not matter."""
    if flags.masking == TOKEN:
        return None
    words = read_words(flags.word_dictionary, "--word_dictionary") if flags.word_dictionary else []
    return ChineseWords([*words, *(read_words(flags.term_list, "--term_list") if flags.term_list else [])])


def build_masking(
    flags: MaskingArguments,
    tokenizer: PreTrainedTokenizerFast,
    probability: float,
    seed: int,
    num_epochs: float,
    mined: Sequence[Sequence[int]] = (),
) -> tuple[Masking, Masking]:
    """The masks of training, and those of evaluation: single tokens at one rate, whatever training does.

    ``mined`` are the ids of terms that were found in the corpus.
    """
    plain = Masking(seed, tokenizer.mask_token_id, ordinary_ids(tokenizer), probability)
    terms = Terms(mined) if mined else None
    if flags.term_list:
        words = read_words(flags.term_list, "--term_list")
        terms, unknown = tokenize_terms(words, tokenizer)
        if not len(terms):
            raise InputError(f"{flags.term_list}: the tokenizer knows none of its {len(words):,} terms; check the file")
        if unknown:
            logger.warning("%s: %d of %d terms are unknown to the tokenizer", flags.term_list, unknown, len(words))
    training = replace(
        plain,
        mode=flags.masking,
        terms=terms,
        term_weight=flags.given().get("term_weight", 1.0),
        start_probability=flags.mlm_probability_start,
        num_epochs=num_epochs,
    )
    return training, plain


def training_epochs(args: TrainingArguments, num_rows: int) -> float:
    """How often training goes through its rows."""
    if args.max_steps <= 0:
        return args.num_train_epochs
    rows_a_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return args.max_steps * rows_a_step / num_rows


def read_words(path: str, flag: str) -> list[str]:
    """The words of a file, one a line; jieba's own format, with a frequency and a tag behind a word, has those cut off.

    Raises ``InputError`` where there is none.
    """
    words = [line.strip() for _, line in read_lines(path)]
    words = [_without_frequency(word) for word in words if word]
    if not words:
        raise InputError(f"{path}: holds no word; write one a line, or leave out {flag}")
    return words


def _without_frequency(line: str) -> str:
    """The word of a line of jieba's dictionaries.

    >>> _without_frequency("糖尿病 30 n"), _without_frequency("blood pressure"), _without_frequency("vitamin 12")
    ('糖尿病', 'blood pressure', 'vitamin 12')
    """
    word, *rest = line.split()
    return word if rest and rest[0].isdigit() and not word.isascii() else line
