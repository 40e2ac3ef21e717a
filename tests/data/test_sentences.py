"""Sentences are whole, and a sample of them is fair, without repeats, and the same for every order of the texts."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pair_pkg.data.sentences import sample_sentences, split_sentences
from pair_pkg.data.splits import normalize_text


@pytest.mark.parametrize(
    "text, sentences",
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("It is 3.5 mg. Take it.", ["It is 3.5 mg.", "Take it."]),
        ("approx. five of them", ["approx. five of them"]),  # a small letter goes on
        ("Ask Dr. No. He knows.", ["Ask Dr. No.", "He knows."]),
        ("The U.S. Army came. J. Doe left.", ["The U.S. Army came.", "J. Doe left."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("It has. - One - two. - Three", ["It has.", "- One - two.", "- Three"]),
        ("Wait... What?", ["Wait...", "What?"]),
        ("怎么还款？还了（昨天）。好了", ["怎么还款？", "还了（昨天）。", "好了"]),
        ("他说：“好。”然后走了。", ["他说：“好。”", "然后走了。"]),
        ("a title\n\n  a line \n", ["a title", "a line"]),
        (" \n ", []),
        ("", []),
    ],
)
def test_sentences(text, sentences):
    assert list(split_sentences(text)) == sentences


@given(st.text(alphabet='aB.。?! \n"'))
def test_no_character_but_space_is_lost(text):
    assert "".join("".join(split_sentences(text)).split()) == "".join(text.split())


TEXTS = [f"Sentence {n} is here. And {n % 7} again!" for n in range(200)]


def test_a_sample_has_no_repeat_and_does_not_depend_on_the_order():
    everything = sample_sentences(TEXTS, 1000, 3)
    assert len(everything) == 207
    some = sample_sentences(TEXTS, 50, 3)
    assert some == everything[:50]
    shuffled = random.Random(0).sample(TEXTS, len(TEXTS))
    assert sample_sentences(shuffled, 50, 3) == some
    assert set(sample_sentences(TEXTS, 50, 4)) != set(some)


def test_a_sample_is_even():
    counts = [0] * 10
    for seed in range(300):
        for sentence in sample_sentences([f"Number {n}." for n in range(10)], 3, seed):
            counts[int(sentence[7])] += 1
    assert min(counts) > 60 and max(counts) < 120  # 90 each; the standard deviation is 8


def test_what_is_excluded_or_does_not_serve_is_left_out():
    texts = ["Is it FLU? Take care. No."]
    excluded = {normalize_text("is it  flu?")}
    assert sample_sentences(texts, 9, 0, excluded=excluded, serves=lambda text: len(text) > 3) == ["Take care."]
