"""Texts as token ids, each distinct word tokenized once: the tokenizer's own ids, at many times its speed.

A tokenizer that cuts a text at its blanks, and merges pieces within words only, gives a word the same ids wherever it
stands. So texts are cut at blanks, and only words not seen before are tokenized. A tokenizer that is not known to do
so gets every text as one piece.
"""

# T texts, P pieces of them all, N tokens

import json
import re
from array import array
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import Tokenizer

from pair_pkg.data.chinese import IDEOGRAPH, IDEOGRAPHS, ChineseWords
from pair_pkg.data.texts import ranges

MAX_KEPT_CHARACTERS = 1_000_000  # of the words that are kept with their ids: about 140,000 words, 30 MB
BLANKS = r"\t-\r\x{1c}-\x{20}\x{85}\p{Z}"  # what Unicode, Rust or Python calls white space
# Each of these changes a character whatever stands around it, or a letter with its accents; none of the first set
# removes a character, or ends one that is no blank in a blank.
LOCAL_NORMALIZERS = {"Lowercase", "NFC", "NFD", "NFKC", "NFKD"}
REMOVING_NORMALIZERS = {"BertNormalizer", "StripAccents", "Strip"}
BLANK_DROPPING_PRE_TOKENIZERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
MODELS = {"WordPiece", "WordLevel", "BPE", "Unigram"}

Cut = Callable[[pa.Array], pa.Array]  # texts (T,) -> the list of pieces of each (T,)


class TokenizedTexts(NamedTuple):
    """Token ids of texts, one text after the other, without special tokens."""

    ids: np.ndarray  # (N,) uint32
    word_starts: np.ndarray  # (N,) bool, True where a word of the tokenizer's own pre-tokenization begins
    lengths: np.ndarray  # (T,) int64


class WordTokenizer:
    """Tokenizes texts word by word, as the tokenizer of this state (its ``to_str``) does text by text.

    Truncation and padding are left out. Words keep their ids from call to call, as many as ``MAX_KEPT_CHARACTERS``.
    With ``chinese``, words begin in Chinese text where it says, not at every character. ``cuts_texts`` says whether
    this tokenizer can be used so; to one that cannot, every text goes as it is.
    """

    def __init__(self, state: dict[str, Any], chinese: ChineseWords | None = None):
        self._tokenizer = Tokenizer.from_str(json.dumps({**state, "truncation": None, "padding": None}))
        self._chinese = chinese
        self._cut = choose_cut(state, keep_chinese=chinese is not None)
        self.cuts_texts = self._cut is not _whole
        self._forget()

    def tokenize(self, texts: Sequence[str]) -> TokenizedTexts:
        """The ids and word starts of texts."""
        pieces = self._cut(pa.array(texts, pa.large_string()))
        distinct = pieces.flatten().dictionary_encode()
        numbers = self._learn(distinct.dictionary.to_pylist())[distinct.indices.to_numpy()]  # (P,)
        ends = np.frombuffer(self._ends, np.int64)
        begins = ends[numbers]
        counts = ends[numbers + 1] - begins
        places = ranges(begins, counts)
        ids, word_starts = np.frombuffer(self._ids, np.uint32)[places], np.frombuffer(self._starts, bool)[places]
        tokens_before = np.concatenate([[0], np.cumsum(counts)])
        return TokenizedTexts(ids, word_starts, np.diff(tokens_before[pieces.offsets.to_numpy()]))

    def _learn(self, words: list[str]) -> np.ndarray:
        """The numbers under which words are kept, tokenizing those that are new."""
        if self._characters > MAX_KEPT_CHARACTERS:
            self._forget()
        fresh = [word for word in words if word not in self._number_of]
        for word, encoding in zip(fresh, self._tokenizer.encode_batch(fresh, add_special_tokens=False)):
            self._number_of[word] = len(self._number_of)
            word_ids = encoding.word_ids
            self._ids.extend(encoding.ids)
            starts = [number != before for number, before in zip(word_ids, [-1, *word_ids])]
            if self._chinese is not None and IDEOGRAPH.search(word):
                starts = self._chinese.word_starts(word, [begin for begin, _ in encoding.offsets], starts)
            self._starts.extend(starts)
            self._ends.append(len(self._ids))
            self._characters += len(word)
        return np.fromiter(map(self._number_of.__getitem__, words), np.int64, len(words))

    def _forget(self) -> None:
        self._number_of: dict[str, int] = {}
        self._ids, self._starts, self._ends = array("I"), bytearray(), array("q", [0])
        self._characters = 0


def choose_cut(state: dict[str, Any], keep_chinese: bool = False) -> Cut:
    """Where texts may be cut without a change to any token of a tokenizer of this state.

    With ``keep_chinese`` Chinese text is cut at blanks only, so that its words can be seen.
    """
    normalizer, pre_tokenizer, model = state["normalizer"], state["pre_tokenizer"] or {}, state["model"]
    parts = normalizer["normalizers"] if normalizer and normalizer["type"] == "Sequence" else [normalizer]
    kinds = {part["type"] for part in parts if part}
    special = [token["content"] for token in state["added_tokens"]]
    looks_around = any(token["single_word"] or token["rstrip"] for token in state["added_tokens"])
    if model["type"] not in MODELS or model.get("dropout") or looks_around:
        return _whole
    if pre_tokenizer.get("type") in BLANK_DROPPING_PRE_TOKENIZERS and kinds <= LOCAL_NORMALIZERS | REMOVING_NORMALIZERS:
        apart = any(part and part.get("handle_chinese_chars") for part in parts)
        apart = apart and not keep_chinese and not any(map(IDEOGRAPH.search, special))
        return _whole if any(map(re.compile(r"\s").search, special)) else partial(_cut_at_blanks, ideographs=apart)
    if pre_tokenizer.get("type") == "ByteLevel" and pre_tokenizer["use_regex"] and kinds <= LOCAL_NORMALIZERS:
        return _whole if any(map(re.compile(r"\S\s").search, special)) else _cut_before_blanks
    return _whole


def _cut_at_blanks(texts: pa.Array, ideographs: bool) -> pa.Array:
    """For pre-tokenizers that end words at blanks and drop them; with ``ideographs``, each of these is a word too."""
    texts = pc.replace_substring(texts, "\n", " ")
    if ideographs:
        texts = pc.replace_substring_regex(texts, f"([{IDEOGRAPHS}])", r" \1 ")
    return pc.split_pattern(texts, " ")


def _cut_before_blanks(texts: pa.Array) -> pa.Array:
    """For GPT-2's regular expression: no match goes on from a character that is no blank to a blank."""
    if pc.any(pc.match_substring(texts, "\0")).as_py():  # it marks the cuts
        return _whole(texts)
    return pc.split_pattern(pc.replace_substring_regex(texts, f"([^{BLANKS}]) ", "\\1\0 "), "\0")


def _whole(texts: pa.Array) -> pa.Array:
    return pa.LargeListArray.from_arrays(np.arange(len(texts) + 1), texts)
