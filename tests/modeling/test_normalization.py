"""The normalization lives in the saved tokenizer: plain transformers loads it, for every kind of tokenizer."""

import json
import unicodedata

import pytest
from tokenizers import ByteLevelBPETokenizer, SentencePieceUnigramTokenizer, Tokenizer, models, normalizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertTokenizer,
    ModernBertConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaTokenizer,
    XLMRobertaConfig,
    XLMRobertaTokenizer,
)

from pair_pkg.modeling.loading import load_tokenizer
from pair_pkg.modeling.normalization import with_nfkc
from pair_pkg.modeling.scratch import train_tokenizer

TEXTS = ["how to treat a cold", "a big dog leads the way", "花呗,怎么还款", "été trailing", "Big Dog"] * 4


def word_piece(folder, lowercase=True):
    vocabulary = dict(train_tokenizer([*TEXTS, "big dog Big Dog"], 300).get_vocab())
    for letter in "BDigo":
        for piece in (letter, f"##{letter}"):
            vocabulary.setdefault(piece, len(vocabulary))
    BertTokenizer(vocab=vocabulary, do_lower_case=lowercase, strip_accents=False).save_pretrained(folder)
    BertConfig().save_pretrained(folder)


def cased_word_piece(folder):
    word_piece(folder, lowercase=False)


def byte_level(folder):
    trained = ByteLevelBPETokenizer()
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(TEXTS, 400, special_tokens=names, show_progress=False)
    trained.save_model(str(folder))
    RobertaTokenizer.from_pretrained(folder).save_pretrained(folder)
    RobertaConfig().save_pretrained(folder)


def sentence_piece(folder):
    trained = SentencePieceUnigramTokenizer()
    names = ["<s>", "<pad>", "</s>", "<unk>"]
    trained.train_from_iterator(TEXTS, 90, special_tokens=names, unk_token="<unk>", show_progress=False)
    pieces = json.loads(trained.to_str())["model"]["vocab"]
    XLMRobertaTokenizer(vocab=[tuple(piece) for piece in pieces]).save_pretrained(folder)
    XLMRobertaConfig().save_pretrained(folder)


def general_class(folder):
    """A tokenizer of the general class with a normalizer of several steps, as ModernBERT's kind may have."""
    backend = Tokenizer(models.WordLevel({"[UNK]": 0, "[PAD]": 1, "how": 2}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Sequence([normalizers.Replace("x", "how"), normalizers.Lowercase()])
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    ModernBertConfig().save_pretrained(folder)


BUILDERS = [word_piece, cased_word_piece, byte_level, sentence_piece, general_class]


@pytest.fixture(params=BUILDERS, ids=lambda builder: builder.__name__)
def folders(request, tmp_path):
    """(the folder of a stock tokenizer, the folder of the same with the normalization)."""
    stock, normalized = tmp_path / "stock", tmp_path / "normalized"
    stock.mkdir()
    request.param(stock)
    with_nfkc(load_tokenizer(str(stock))).save_pretrained(normalized)
    (normalized / "config.json").write_bytes((stock / "config.json").read_bytes())
    return str(stock), str(normalized)


def wide(text):
    return "".join(chr(ord(letter) + 0xFEE0) if "!" <= letter <= "~" else letter for letter in text)


def test_plain_loading_reads_texts_that_look_alike_alike(folders):
    stock, normalized = map(AutoTokenizer.from_pretrained, folders)
    for text in TEXTS[:5]:
        expected = stock(text)["input_ids"]
        for variant in (text, f" \t{text}\n", f"\u3000{text}", wide(text), unicodedata.normalize("NFD", text)):
            assert normalized(variant)["input_ids"] == expected, repr(variant)


def test_nothing_else_changes(folders):
    stock, normalized = map(AutoTokenizer.from_pretrained, folders)
    pair, batch = ("a big dog", "how to treat a cold"), ["a big dog", "how"]
    assert normalized(*pair, truncation=True, max_length=9) == stock(*pair, truncation=True, max_length=9)
    assert normalized(batch, padding=True) == stock(batch, padding=True)
    for trait in (
        "special_tokens_map",
        "model_max_length",
        "model_input_names",
        "padding_side",
        "added_tokens_decoder",
    ):
        assert getattr(normalized, trait) == getattr(stock, trait), trait


def test_it_is_never_put_in_twice(folders, tmp_path):
    _, normalized = folders
    again = with_nfkc(load_tokenizer(normalized))
    steps = json.loads(again.backend_tokenizer.to_str())["normalizer"]["normalizers"]
    assert [step["type"] for step in steps].count("NFKC") == 1
    again.save_pretrained(tmp_path / "again")
    first, second = (json.loads((tmp_path / name / "tokenizer.json").read_text()) for name in ("normalized", "again"))
    assert first["normalizer"] == second["normalizer"]


def test_case_counts_where_the_tokenizer_is_cased(tmp_path):
    for name, lowercase in (("uncased", True), ("cased", False)):
        (tmp_path / name).mkdir()
        word_piece(tmp_path / name, lowercase)
        tokenizer = with_nfkc(load_tokenizer(str(tmp_path / name)))
        assert (tokenizer("big dog")["input_ids"] == tokenizer("Ｂig Dog")["input_ids"]) is lowercase
