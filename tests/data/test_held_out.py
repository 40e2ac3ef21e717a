"""Held-out texts in documents: found as whole sentences, cut out, counted; all else stays as it stands."""

import pytest

from pair_pkg.data.corpus import CorpusAudit, Document, clean_documents
from pair_pkg.data.held_out import HeldOutTexts, drop_held_out

HELD_OUT = HeldOutTexts(["Is it flu?", "I have a cold. What helps? Tell me.", "发烧了怎么办？"])


@pytest.mark.parametrize(
    ("text", "kept", "found"),
    [
        ("Is it flu?", "", 1),
        ("is it  FLU?", "", 1),
        ("See below. Is it flu? It is.\nNew line.", "See below. It is.\nNew line.", 1),
        ("Ah. I have a cold. What helps? Tell me. Thanks!", "Ah. Thanks!", 1),
        ("I have a cold. What helps? Nothing.", "I have a cold. What helps? Nothing.", 0),
        ("Is it flu or not?", "Is it flu or not?", 0),
        ("我感冒了。发烧了怎么办？多喝水。发烧了怎么办？", "我感冒了。多喝水。", 2),
        ("Is it flu? Is it flu?", "", 2),
        ("  spaced   text stays. ", "  spaced   text stays. ", 0),
    ],
)
def test_whole_sentences_are_cut_out(text, kept, found):
    assert HELD_OUT.cut_from(text) == (kept, found)


def test_documents_are_counted():
    texts = ["Is it flu?", "Rest. Is it flu?", "Rest well."]
    audit = CorpusAudit()
    documents = clean_documents([Document(text, f"c:{n}") for n, text in enumerate(texts)], audit)
    assert [document.text for document in drop_held_out(documents, HELD_OUT, audit)] == ["Rest.", "Rest well."]
    assert (audit.documents_read, audit.documents_kept, audit.held_out_texts) == (3, 2, 2)
    assert audit.characters == len("Rest.Rest well.")


def test_the_fingerprint_is_of_the_texts():
    same = HeldOutTexts(["is it flu?", "发烧了怎么办？", "I have a cold. What  helps? Tell me."])
    assert same.fingerprint == HELD_OUT.fingerprint != HeldOutTexts(["Is it flu?"]).fingerprint
    assert len(HELD_OUT) == 3
