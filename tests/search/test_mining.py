"""Mining: nothing that is known to mean the same becomes a negative, and margins and filters bite."""

import numpy as np
import pytest

from pair_pkg.data.pairs import Pairs
from pair_pkg.search import mining
from pair_pkg.search.mining import mine_negatives, mine_paraphrases

# Angles on a circle stand for meanings: the cosine of two texts is that of the angle between them.
ANGLES = {"a": 0, "b": 20, "c": 45, "near": 5, "middle": 40, "far": 70, "opposite": 180, "A ": 1}


def encode(texts):
    angles = np.radians([ANGLES.get(text, 90) for text in texts])
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def labelled(*rows):
    sentence1, sentence2, labels = zip(*rows)
    return Pairs(list(sentence1), list(sentence2), np.array(labels), [""] * len(rows))


def mine(pairs, corpus=("near", "middle", "far", "opposite", "A ", "a", "b", "c"), **flags):
    settings = {"num_negatives": 3, "relative_margin": 0.05, "range_min": 0} | flags
    return mine_negatives(pairs, 1, list(corpus), encode, **settings)


def test_negatives_are_below_the_margin_and_nearest_first():
    mined = mine(labelled(("a", "b", 1)))
    # b is at 0.94: the margin leaves out what is above 0.89, "near" that is
    assert [pair.sentence2 for pair in mined] == ["middle", "c", "far"]
    assert [pair.cosine for pair in mined] == pytest.approx(np.cos(np.radians([40, 45, 70])), abs=1e-5)
    wider = mine(labelled(("a", "b", 1)), relative_margin=-0.1)
    assert [pair.sentence2 for pair in wider][0] == "near"


def test_what_positive_pairs_tie_together_is_no_negative_nor_is_a_known_pair_repeated():
    pairs = labelled(("a", "b", 1), ("b", "c", 1), ("far", "a", 0))
    assert {pair.sentence2 for pair in mine(pairs) if pair.sentence1 == "a"} == {"middle", "opposite"}


def test_the_same_text_in_other_case_is_no_negative():
    assert "A " not in {pair.sentence2 for pair in mine(labelled(("a", "far", 1)), relative_margin=-2)}


def test_a_cross_encoder_takes_the_place_of_cosines():
    def says_far_is_the_same(left, right):
        return np.array([0.9 if {"far", "b"} & {second} else 0.1 for second in right])

    mined = mine(labelled(("a", "b", 1)), rescore=says_far_is_the_same, max_score=0.5)
    found = {pair.sentence2 for pair in mined}
    assert "far" not in found and "near" in found  # by cosine it was the other way round


def test_no_negatives_at_all_is_an_empty_list():
    assert mine(labelled(("a", "b", 1)), corpus=["a", "near"]) == []


def random_rows(rows=300, width=8):
    vectors = np.random.default_rng(1).standard_normal((rows, width)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("max_flat_rows", [10_000, 100], ids=["library", "graph"])
def test_paraphrases_are_the_nearest_pairs(max_flat_rows, monkeypatch):
    monkeypatch.setattr(mining, "MAX_FLAT_ROWS", max_flat_rows)
    vectors = random_rows()
    texts = [f"text {row}" for row in range(300)]
    mined = mine_paraphrases(texts, vectors, top_k=10, max_pairs=50, min_cosine=0.5)
    cosines = vectors @ vectors.T
    first, second = np.triu_indices(300, 1)
    best = np.argsort(-cosines[first, second])[:50]
    expected = {(f"text {first[row]}", f"text {second[row]}") for row in best}
    assert {(pair.sentence1, pair.sentence2) for pair in mined} == expected
    np.testing.assert_allclose([pair.cosine for pair in mined], cosines[first, second][best], atol=1e-5)


def test_paraphrases_differ_in_more_than_case_and_stay_above_the_least_cosine():
    texts = ["A pump", "a  PUMP", "the pump"]
    vectors = encode(["a", "near", "far"])
    mined = mine_paraphrases(texts, vectors, top_k=5, max_pairs=10, min_cosine=0.4)
    assert [(pair.sentence1, pair.sentence2) for pair in mined] == [("a  PUMP", "the pump")]
