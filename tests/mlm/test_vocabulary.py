"""New words: those that save most, whole in the tokenizer, the mean of their pieces in the model, loaded as ever."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.tokens import num_ids, tokenize_in_memory
from pair_pkg.errors import InputError
from pair_pkg.mlm.vocabulary import extend_embeddings, extend_tokenizer, mine_words
from pair_pkg.modeling.scratch import train_tokenizer

TEXTS = ["the pumphouse leaks"] * 6 + ["valvehose and valvehose"] * 5 + ["rattlepump 滤网滤网 x9z"] * 4


def test_the_words_that_save_most_come_first(tiny_tokenizer):
    store = tokenize_in_memory(TEXTS, tiny_tokenizer)
    words = mine_words(store, tiny_tokenizer, 10)
    found = {part.word: part for part in words}
    assert "rattlepump" not in found and found["滤网"].count == 8  # four times
    assert found["valvehose"].count == 10 and found["pumphouse"].count == 6
    for part in words:
        assert list(part.pieces) == tiny_tokenizer(part.word, add_special_tokens=False)["input_ids"]
        assert part.tokens_saved == part.count * (len(part.pieces) - 1)
    savings = [part.tokens_saved for part in words]
    assert savings == sorted(savings, reverse=True)
    assert mine_words(store, tiny_tokenizer, 1) == words[:1]


def test_a_new_word_is_one_token_and_nothing_else_changes(tiny_tokenizer, tiny_documents, tmp_path):
    extended, pieces, ids = extend_tokenizer(tiny_tokenizer, ["pumphouse", "valvehose"])
    assert ids == [num_ids(tiny_tokenizer), num_ids(tiny_tokenizer) + 1]
    assert extended("Pumphouse-valvehose", add_special_tokens=False)["input_ids"][::2] == ids
    assert pieces[0] == tiny_tokenizer("pumphouse", add_special_tokens=False)["input_ids"]
    assert extended(tiny_documents)["input_ids"] == tiny_tokenizer(tiny_documents)["input_ids"]
    extended.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    texts = [*TEXTS, *tiny_documents]
    assert loaded(texts)["input_ids"] == extended(texts)["input_ids"]
    assert not [token for token in loaded.added_tokens_decoder.values() if not token.special]


def test_unused_entries_are_taken_first():
    tokenizer = train_tokenizer(["the old pump leaks at full load"] * 3, 60)
    first = num_ids(tokenizer)
    assert extend_tokenizer(tokenizer, ["pumpload"])[2] == [first]
    vocabulary = tokenizer.backend_tokenizer.to_str().replace('"leaks"', '"[unused3]"')
    tokenizer._tokenizer = Tokenizer.from_str(vocabulary)
    place = tokenizer.get_vocab()["[unused3]"]
    extended, _, ids = extend_tokenizer(tokenizer, ["pumpload", "leakpump"])
    assert ids == [place, first] and "[unused3]" not in extended.get_vocab()


CHINESE = [f"{front}花呗{back}" for front in "我用开关的" for back in ("怎么", "还款", "", "能")] * 2
CHINESE += ["怎么还款", "能怎么", "还款吗", "怎么开", "关还款"] * 6


def test_chinese_terms_hold_together_and_stand_alone():
    """Without a segmenter every character is a word: counts alone find the terms, and no part of a longer run."""
    tokenizer = train_tokenizer(CHINESE, 300)
    words = {part.word: part for part in mine_words(tokenize_in_memory(CHINESE, tokenizer), tokenizer, 50)}
    assert {"花呗", "怎么", "还款"} <= set(words) and words["花呗"].count == 40
    assert not {"用花", "呗能", "呗怎", "呗还"} & set(words)
    assert words["花呗"].pieces == tuple(tokenizer("花呗", add_special_tokens=False)["input_ids"])


def test_a_term_ends_where_the_segmenter_ends_a_word(tiny_tokenizer):
    texts = ["旧水泵漏水", "小水泵停机", "看水泵卡住"] * 4
    for chinese, found in ((ChineseWords(["水泵"]), True), (ChineseWords(["旧水泵", "小水泵", "看水泵"]), False)):
        store = tokenize_in_memory(texts, tiny_tokenizer, chinese)
        assert ("水泵" in {part.word for part in mine_words(store, tiny_tokenizer, 50)}) == found


def test_chinese_words_are_whole_wherever_they_stand(tiny_tokenizer, tmp_path):
    extended, pieces, ids = extend_tokenizer(tiny_tokenizer, ["水泵", "pumphouse", "备用软管"])
    text = "这个水泵pumphouse漏水备用软管水 泵"
    split = ["这", "个", "水泵", "pumphouse", "漏", "水", "备用软管", "水", "泵"]
    assert extended.tokenize(text) == split and pieces[2] == [
        *tiny_tokenizer("备用软管", add_special_tokens=False)["input_ids"]
    ]
    extended.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.tokenize(text) == split and loaded.convert_tokens_to_ids(["水泵", "备用软管"]) == [ids[0], ids[2]]
    store = tokenize_in_memory([text, *CHINESE], extended, ChineseWords())
    assert store.ids.tolist() == [
        number for row in extended([text, *CHINESE], add_special_tokens=False)["input_ids"] for number in row
    ]
    assert not set(ids) & set(loaded.all_special_ids)


@pytest.mark.parametrize("tied", [True, False])
def test_rows_begin_as_the_mean_of_their_pieces(tiny_tokenizer, tied):
    size = num_ids(tiny_tokenizer)
    config = BertConfig(vocab_size=size, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
                        intermediate_size=16, tie_word_embeddings=tied)  # fmt: skip
    model = BertForMaskedLM(config)
    with torch.no_grad():
        model.cls.predictions.bias.normal_()
        model.cls.predictions.decoder.bias.copy_(model.cls.predictions.bias)  # two where weights are not tied
    before = {name: values.clone() for name, values in model.state_dict().items()}
    extended, pieces, ids = extend_tokenizer(tiny_tokenizer, ["pumphouse", "valvehose"])
    extend_embeddings(model, pieces, ids)
    assert model.config.vocab_size == size + 2
    names = ["bert.embeddings.word_embeddings.weight", "cls.predictions.decoder.weight", "cls.predictions.bias"]
    for name in names:
        values = model.state_dict()[name]
        assert torch.equal(values[:size], before[name])
        for number, part in zip(ids, pieces):
            torch.testing.assert_close(values[number], before[name][part].mean(0))
    batch = extended("the pumphouse leaks", return_tensors="pt")
    assert model(**batch).logits.shape[-1] == size + 2


def test_other_tokenizers_are_refused(tiny_tokenizer):
    bpe = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    with pytest.raises(InputError, match="it is for WordPiece"):
        extend_tokenizer(bpe, ["pump"])
    with pytest.raises(InputError, match="does not keep 'two words' whole"):
        extend_tokenizer(tiny_tokenizer, ["two words"])


def test_the_saved_model_and_tokenizer_go_together(tiny_bert, tmp_path):
    tokenizer, model = AutoTokenizer.from_pretrained(tiny_bert), AutoModelForMaskedLM.from_pretrained(tiny_bert)
    extended, pieces, ids = extend_tokenizer(tokenizer, ["pumphouse"])
    extend_embeddings(model, pieces, ids)
    model.save_pretrained(tmp_path)
    extended.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    batch = AutoTokenizer.from_pretrained(tmp_path)("the pumphouse leaks", return_tensors="pt")
    assert ids[0] in batch["input_ids"]
    np.testing.assert_allclose(loaded.eval()(**batch).logits.detach(), model.eval()(**batch).logits.detach(), atol=1e-6)
