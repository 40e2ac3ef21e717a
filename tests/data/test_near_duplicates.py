"""Near duplicates by MinHash: changed copies go, other documents stay, the first of the like is kept."""

import random

import pytest

from pair_pkg.data.corpus import CorpusAudit, Document
from pair_pkg.data.near_duplicates import drop_near_duplicates, shingles

WORDS = [f"word{number}" for number in range(400)]
CHARACTERS = [chr(0x4E00 + number) for number in range(400)]


def kept(texts, threshold=0.8):
    audit = CorpusAudit(documents_read=len(texts), documents_kept=len(texts), characters=sum(map(len, texts)))
    documents = [Document(text, f"c:{number}") for number, text in enumerate(texts)]
    found = list(drop_near_duplicates(documents, threshold, audit))
    assert audit.documents_kept == len(found) and audit.near_duplicates == len(texts) - len(found)
    assert audit.characters == sum(len(document.text) for document in found)
    return [document.text for document in found]


@pytest.mark.parametrize(("units", "glue"), [(WORDS, " "), (CHARACTERS, "")], ids=["english", "chinese"])
def test_changed_copies_are_dropped_and_others_stay(units, glue):
    draw = random.Random(5)
    originals = [[draw.choice(units) for _ in range(120)] for _ in range(60)]
    copies = [[*text[:60], draw.choice(units), *text[61:]] for text in originals]  # 3 of 118 runs are others
    halves = [[*text[:60], *(draw.choice(units) for _ in range(60))] for text in originals]  # a third of the runs
    texts = [glue.join(text) for text in (*originals, *copies, *halves)]
    assert kept(texts) == [*texts[:60], *texts[120:]]


def test_short_texts_are_told_apart():
    texts = ["花呗", "借呗", "the pump", "The pump!", "a pump"]
    assert kept(texts) == ["花呗", "借呗", "the pump", "a pump"]


def test_chunks_leave_no_trace(monkeypatch):
    draw = random.Random(6)
    texts = [" ".join(draw.choice(WORDS[:3]) for _ in range(6)) for _ in range(300)]
    whole = kept(texts, 0.5)
    monkeypatch.setattr("pair_pkg.data.near_duplicates.CHUNK", 7)
    assert kept(texts, 0.5) == whole and 1 < len(whole) < 250


def test_a_text_without_words_has_a_shingle():
    assert shingles("…!") == [""]
