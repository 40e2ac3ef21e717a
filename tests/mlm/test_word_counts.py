"""Words counted from tokens, and those that mark a domain."""

from collections import Counter

from pair_pkg.data.chinese import ChineseWords
from pair_pkg.data.tokens import tokenize_in_memory
from pair_pkg.mlm.word_counts import count_words, mine_terms

DOMAIN = ["the pump leaks and the valve leaks", "the pump hums"] * 10 + ["新滤网卡住，备用软管漏水"] * 8
GENERAL = ["the old door and the small lid", "the cold morning and the rain"] * 10


def test_words_are_counted_as_by_hand(tiny_tokenizer):
    texts = ["the old pumphouse", "the pumphouse leaks the"]
    store = tokenize_in_memory(texts, tiny_tokenizer)
    found = Counter()
    for part in count_words(store):
        for count, place in zip(part.counts.tolist(), part.places.tolist()):
            found[tiny_tokenizer.decode(store.ids[place : place + part.length])] = count
    assert found == {"the": 3, "old": 1, "pumphouse": 2, "leaks": 1}


def test_terms_are_the_domains_words_and_not_those_of_all_text(tiny_tokenizer):
    stores = [tokenize_in_memory(texts, tiny_tokenizer, ChineseWords()) for texts in (DOMAIN, GENERAL)]
    terms = [tiny_tokenizer.decode(list(ids)).replace(" ", "") for ids in mine_terms(*stores, tiny_tokenizer, 50)]
    assert terms[:2] == ["pump", "leaks"] or terms[:2] == ["leaks", "pump"]
    assert {"valve", "滤网"} <= set(terms) and not {"the", "and"} & set(terms)
    assert all(len(term) > 1 for term in terms)
    first = mine_terms(*stores, tiny_tokenizer, 2)
    assert [tiny_tokenizer.decode(list(ids)) for ids in first] == terms[:2]
