"""Chinese words in the token store: where they begin, with a user's words, for every kind of tokenizer."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.tokens import load_or_build_store

TEXT = "花呗 怎么还款？2型糖尿病患者的 old pump-valve 南京市长江大桥。"


def store_of(cache_dir, tokenizer, chinese, texts=(TEXT,)):
    return load_or_build_store(cache_dir, "corpus", tokenizer, lambda: iter(texts), dict, chinese=chinese, quiet=True)


def words_of(tokenizer, store):
    pieces = [tokenizer.decode([number]) for number in store.ids]
    begins = np.flatnonzero(store.word_starts)
    return ["".join(pieces[begin:end]) for begin, end in zip(begins, [*begins[1:], len(pieces)])]


@pytest.fixture
def character_tokenizer():
    """A WordPiece tokenizer of single characters and whole Latin words, as Chinese BERTs have."""
    entries = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(TEXT) - {" "}), "old", "pump", "valve"]
    vocabulary = {entry: number for number, entry in enumerate(dict.fromkeys(entries))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]")


def test_characters_of_a_word_are_one_word(tmp_path, character_tokenizer):
    store = store_of(tmp_path, character_tokenizer, ChineseWords())
    found = words_of(character_tokenizer, store)
    assert found[:5] == ["花", "呗", "怎么", "还款", "？"]
    assert found[-7:] == ["old", "pump", "-", "valve", "南京市", "长江大桥", "。"]


def test_a_users_words_are_whole(tmp_path, character_tokenizer):
    store = store_of(tmp_path, character_tokenizer, ChineseWords(["花呗", "2型糖尿病"]))
    assert words_of(character_tokenizer, store)[:4] == ["花呗", "怎么", "还款", "？"]
    plain = store_of(tmp_path, character_tokenizer, None)
    assert np.array_equal(plain.ids, store.ids) and plain.word_starts.sum() > store.word_starts.sum()


def test_each_segmentation_has_its_own_store(tmp_path, character_tokenizer):
    for chinese in (None, ChineseWords(), ChineseWords(["花呗"])):
        store_of(tmp_path, character_tokenizer, chinese)
    assert len(list(tmp_path.glob("tokens-*"))) == 3


def test_text_without_chinese_has_the_words_of_the_pre_tokenization(tmp_path, tiny_tokenizer):
    texts = ["the old pump-valve leaks, twice", "a small hose"]
    with_words, without = (store_of(tmp_path, tiny_tokenizer, chinese, texts) for chinese in (ChineseWords(), None))
    assert np.array_equal(with_words.word_starts, without.word_starts)


def test_tokens_of_parts_of_a_character_are_one_word(tmp_path):
    """Byte-level BPE of 256 bytes: each Chinese character is three tokens, and a word still begins once."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([], trainers.BpeTrainer(vocab_size=260, initial_alphabet=alphabet))
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>")
    store = store_of(tmp_path, fast, ChineseWords(), ["怎么还款"])
    assert len(store.ids) == 12 and np.flatnonzero(store.word_starts).tolist() == [0, 6]
