"""Words of the domain as entries of their own: mined from the corpus, put into a WordPiece tokenizer and its model."""

# N tokens of the corpus, K new words, V entries, D width of an embedding

import copy
import json
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pair_pkg.data.chinese import IDEOGRAPH
from pair_pkg.data.tokens import TokenStore, num_ids
from pair_pkg.errors import InputError
from pair_pkg.mlm.chinese_terms import mine_chinese_terms
from pair_pkg.mlm.word_counts import MIN_COUNT, count_words

UNUSED = re.compile(r"\[unused\d+\]")


class MinedWord(NamedTuple):
    """A word that a tokenizer breaks up, how often it stands in the corpus, and the ids of its pieces."""

    word: str
    count: int  # type: ignore[assignment]  # the tuple's own method of this name is not needed
    pieces: tuple[int, ...]

    @property
    def tokens_saved(self) -> int:
        """Tokens of the corpus that one entry for the word would save: frequency x fragmentation."""
        return self.count * (len(self.pieces) - 1)


def mine_words(store: TokenStore, tokenizer: PreTrainedTokenizerFast, limit: int) -> list[MinedWord]:
    """The words whose entries would save most tokens, the most first: letters only, or Chinese terms.

    ``store`` has the Chinese words of a segmenter. Raises ``InputError``.
    """
    prefix = _continuing_prefix(tokenizer)
    mined: list[MinedWord] = []
    for length, _, counts, places in count_words(store):
        often = (counts >= MIN_COUNT) & (length > 1)
        for place, count in zip(places[often].tolist(), counts[often].tolist()):
            pieces = tuple(store.ids[place : place + length].tolist())
            word = _word(tokenizer.convert_ids_to_tokens(list(pieces)), prefix)
            if word is not None:
                mined.append(MinedWord(word, count, pieces))
    for run in mine_chinese_terms(store, tokenizer):
        mined.append(MinedWord(run.text, run.count, tuple(store.ids[run.place : run.place + len(run.text)].tolist())))
    mined.sort(key=lambda part: (-part.tokens_saved, part.word))
    return mined[:limit]


def extend_tokenizer(
    tokenizer: PreTrainedTokenizerFast, words: Sequence[str]
) -> tuple[PreTrainedTokenizerFast, list[list[int]], list[int]]:
    """A copy of a WordPiece tokenizer that knows ``words``, the old pieces of each, and the id of each.

    Ids of ``[unused]`` entries are taken first, then new ones at the end. Words are plain entries of the vocabulary,
    so that the copy is saved, loaded and runs as the original does. Words with Chinese characters, which BERT's
    pre-tokenization would set apart, are added tokens besides, found before it. Raises ``InputError`` for another
    kind of tokenizer, and for a word that it does not keep whole.
    """
    _continuing_prefix(tokenizer)
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary: dict[str, int] = state["model"]["vocab"]
    special = set(tokenizer.all_special_tokens)
    unused = sorted((entry for entry in vocabulary if UNUSED.fullmatch(entry)), key=vocabulary.__getitem__)
    free = iter([entry for entry in unused if entry not in special])
    largest, ids = num_ids(tokenizer), []
    pieces = [tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    for word in words:
        entry = next(free, None)
        number = vocabulary.pop(entry) if entry else largest
        largest += entry is None
        vocabulary[word] = number
        ids.append(number)
        if IDEOGRAPH.search(word):
            state["added_tokens"].append(_added_token(word, number))
    state["added_tokens"].sort(key=lambda token: token["id"])
    extended = copy.deepcopy(tokenizer)
    extended._tokenizer = Tokenizer.from_str(json.dumps(state))
    for word, number in zip(words, ids):
        if extended(word, add_special_tokens=False)["input_ids"] != [number]:
            raise InputError(
                f"--new_words: the tokenizer does not keep {word!r} whole; write it as it normalizes words"
            )
    return extended, pieces, ids


def _added_token(word: str, number: int) -> dict[str, Any]:
    """A token as a tokenizer's state holds it, found in the text as it is written."""
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    return {"id": number, "content": word, **flags}


def extend_embeddings(model: PreTrainedModel, pieces: Sequence[Sequence[int]], ids: Sequence[int]) -> None:
    """Give the rows ``ids`` of a masked-language model, in place, the mean of the old rows of their pieces.

    Input embeddings (V, D) and, where the prediction head has some of its own, output rows and bias; more rows are made
    where there are too few.
    """
    if max(ids) >= model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(max(ids) + 1, mean_resizing=False)
    for values in _vocabulary_parameters(model):
        old = values.detach().clone()
        with torch.no_grad():
            for number, part in zip(ids, pieces):
                values[number] = old[list(part)].mean(0)


def _vocabulary_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """Weights with a row (or a number) for each entry, each once: tied ones are one."""
    rows = model.get_input_embeddings().num_embeddings
    output = model.get_output_embeddings()
    found = {model.get_input_embeddings().weight: None}
    for parameter in output.parameters() if output is not None else ():
        if len(parameter) == rows:
            found[parameter] = None
    return list(found)


def _continuing_prefix(tokenizer: PreTrainedTokenizerFast) -> str:
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    if model["type"] != "WordPiece":
        raise InputError(
            f"--extend_vocab: {tokenizer.name_or_path} is a {model['type']} tokenizer, whose words are merges or "
            "scores and no entries; it is for WordPiece (BERT's)"
        )
    return model["continuing_subword_prefix"]


def _word(pieces: Sequence[str], prefix: str) -> str | None:
    """The word that pieces make; None where it is none of letters, or of characters that are always apart."""
    first, *rest = pieces
    if not all(piece.startswith(prefix) for piece in rest):
        return None
    word = first + "".join(piece.removeprefix(prefix) for piece in rest)
    return word if word.isalpha() and not IDEOGRAPH.search(word) else None
