"""``--extend_vocab``: from the flags of ``VocabularyArguments`` to a tokenizer and a model that know new words."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.files import read_lines
from pair_pkg.data.tokens import TokenStore
from pair_pkg.errors import InputError
from pair_pkg.mlm.vocabulary import MinedWord, extend_tokenizer, mine_words
from pair_pkg.stages.arguments.mlm import MlmFlags
from pair_pkg.stages.corpus import Source
from pair_pkg.stages.masking import build_chinese_words

PREVIEW_NAME = "new_words.tsv"


@dataclass(frozen=True)
class Extension:
    """New words, the tokenizer that has them, the ids of their old pieces and their own, and the corpus before."""

    words: list[MinedWord]
    tokenizer: PreTrainedTokenizerFast
    pieces: list[list[int]]
    ids: list[int]
    before: TokenStore

    def write_preview(self, folder: Path) -> None:
        """``new_words.tsv``: what was added, most tokens saved first; edited, it is a ``--new_words``."""
        with open(folder / PREVIEW_NAME, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, delimiter="\t", lineterminator="\n")
            writer.writerow(["word", "count", "pieces", "tokens_saved"])
            writer.writerows([part.word, part.count, len(part.pieces), part.tokens_saved] for part in self.words)

    def describe(self, accounting: dict[str, Any]) -> dict[str, Any]:
        """What the words did to the corpus, whose new ``accounting`` is given."""
        number_of_words = int(self.before.word_starts.sum())
        counts = {"before": self.before.accounting, "after": accounting}
        return {
            "words": len(self.words),
            "tokens_per_word": {when: part["tokens"] / number_of_words for when, part in counts.items()},
            "unknown_fraction": {when: part["unknown_tokens"] / part["tokens"] for when, part in counts.items()},
        }


def extend_vocabulary(flags: MlmFlags, source: Source, tokenizer: PreTrainedTokenizerFast) -> Extension | None:
    """The new words of the flags, mined from the corpus or read from a file; None where there are none."""
    wanted, args = flags.vocabulary, flags.training
    if not (wanted.extend_vocab or wanted.new_words):
        return None
    with args.main_process_first(desc="counting words"):
        chinese = build_chinese_words(flags.masking) or ChineseWords()
        store = source.store(tokenizer, chinese, bool(args.disable_tqdm) or not args.should_log)
    if wanted.new_words:
        words = [MinedWord(word, 0, ()) for word in _read_new_words(wanted.new_words)]
    else:
        words = mine_words(store, tokenizer, wanted.extend_vocab)
    if not words:
        raise InputError(f"{source.name}: no word of it is broken up often enough; leave out --extend_vocab")
    return Extension(words, *extend_tokenizer(tokenizer, [part.word for part in words]), store)


def _read_new_words(path: str) -> list[str]:
    """The words of a preview or a plain list. Raises ``InputError`` where there is none."""
    words = [line.split("\t")[0].strip() for _, line in read_lines(path)]
    words = [word for word in dict.fromkeys(words) if word and word != "word"]
    if not words:
        raise InputError(f"{path}: holds no word; write one a line, or leave out --new_words")
    return words
