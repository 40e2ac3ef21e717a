"""Error slices and the worst pairs: who is in which, and what is measured there, by hand."""

import json

import numpy as np
import pytest

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES
from pair_pkg.pairs.slices import SMALL_SLICE, pair_slices, slice_metrics, worst_rows

SCHEME = LabelScheme("binary", ["no", "yes"])


def build(rows, labels=None, sources=None):
    left, right = (list(column) for column in zip(*rows))
    labels = np.arange(len(rows)) % 2 if labels is None else np.array(labels)
    return Pairs(left, right, labels, [f"f:{row}" for row in range(len(rows))], sources)


def members(pairs, family, scheme=SCHEME):
    slices = (part for part in pair_slices(pairs, scheme) if part.family == family)
    return {part.name: np.flatnonzero(part.rows).tolist() for part in slices}


def test_thirds_of_length_count_the_characters_of_both_sentences():
    pairs = build([("a" * n, "b") for n in (1, 9, 3, 5, 7, 11)])
    assert members(pairs, "characters") == {"up to 4": [0, 2], "6 to 8": [3, 4], "10 or more": [1, 5]}


def test_equal_lengths_stay_in_one_slice():
    assert members(build([("aa", "b")] * 5), "characters") == {"up to 3": [0, 1, 2, 3, 4]}
    tied = build([("a", "b")] * 4 + [("aaa", "b")])
    assert members(tied, "characters") == {"up to 2": [0, 1, 2, 3], "4 or more": [4]}


def test_negation_by_sides():
    pairs = build([("it hurts", "it burns"), ("it does not hurt", "it burns"), ("能不能还", "不能还"), ("无效", "no")])
    assert members(pairs, "negation") == {"neither side": [0], "one side only": [1, 2], "both sides": [3]}


@pytest.mark.parametrize(
    "one, other, name",
    [
        ("3 days", "5 days", "numbers differ"), ("3 days", "some days", "numbers differ"),
        ("3 of 5", "5 out of 3", "same numbers"), ("1,000", "1000", "same numbers"), ("２.50", "2.5", "same numbers"),
        ("1,5", "15", "numbers differ"), ("1.2.3", "1.2.3", "same numbers"), ("a", "b", "no numbers"),
        ("借1000元", "借1000.00元", "same numbers"),
    ],
)  # fmt: skip
def test_numbers(one, other, name):
    assert members(build([(one, other)]), "numbers") == {name: [0]}


def test_sources_are_told_where_there_are_several_and_the_rare_ones_together():
    rows = [("a", "b")] * 3
    assert members(build(rows, sources=["web", "mail", "web"]), "source") == {"mail": [1], "web": [0, 2]}
    assert members(build(rows, sources=["web"] * 3), "source") == members(build(rows), "source") == {}
    many = build([("a", "b")] * 25, sources=[f"s{n:02}" for n in range(12) for _ in range(2)] + ["s00"])
    assert len(members(many, "source")) == 11 and len(members(many, "source")["other sources"]) == 4


def test_labels_by_name_and_scores_by_thirds():
    pairs = build([("a", "b")] * 3, labels=[1, 0, 1])
    assert members(pairs, "label") == {"no": [1], "yes": [0, 2]}
    scores = build([("a", "b")] * 3, labels=np.float32([0, 2.5, 5]))
    assert members(scores, "label", LabelScheme("scores", [], 0, 5)) == {
        "up to 0": [0],
        "2.5 to 2.5": [1],
        "5 or more": [2],
    }


def test_every_family_holds_every_pair_once():
    draw = np.random.default_rng(0)
    texts = ["不能还 3", "how are you", "no 4 pills", "花呗", "a" * 90, "can I 1,000"]
    pairs = build([tuple(draw.choice(texts, 2)) for _ in range(80)], sources=draw.choice(["a", "b"], 80).tolist())
    families: dict[str, np.ndarray] = {}
    for part in pair_slices(pairs, SCHEME):
        families[part.family] = families.get(part.family, 0) + part.rows
    assert len(families) == 6 and all((counts == 1).all() for counts in families.values())


def test_binary_slices_are_measured_by_hand():
    pairs = build([("aa", "b")] * 3 + [("aaaaaa", "b")], labels=[1, 0, 1, 0])
    found = slice_metrics(BINARY, pair_slices(pairs, SCHEME), np.array([0.9, 0.2, 0.4, 0.8]), pairs.labels, 0.5)
    short = next(row for row in found if row["slice"] == "up to 3")
    assert (short["pairs"], short["accuracy"], short["small"]) == (3, 2 / 3, True)
    assert short["mean_probability"] == pytest.approx(0.5) and short["positive_share"] == pytest.approx(2 / 3)
    assert short["f1"] == pytest.approx(2 / 3)
    yes = next(row for row in found if row["slice"] == "yes")
    assert yes["accuracy"] == 0.5 and yes["f1"] is None  # one label: an F1 would be that of another task
    json.dumps(found, allow_nan=False)


def test_small_slices_are_marked_below_thirty_pairs():
    pairs = build([("aa", "b")] * (SMALL_SLICE + 5), labels=[1] * SMALL_SLICE + [0] * 5)
    scores = np.linspace(0, 1, len(pairs))
    found = slice_metrics(BINARY, pair_slices(pairs, SCHEME), scores, pairs.labels, 0.5)
    assert {row["slice"]: row["small"] for row in found if row["family"] == "label"} == {"no": True, "yes": False}


def test_classes_and_scores_have_their_own_metrics():
    pairs = build([("aa", "b")] * 4, labels=[0, 1, 2, 2])
    scheme = LabelScheme("classes", ["a", "b", "c"])
    found = slice_metrics(
        CLASSES, pair_slices(pairs, scheme), np.eye(3)[[0, 1, 2, 0]] * 0.8 + 0.2 / 3, pairs.labels, None
    )
    assert found[0]["accuracy"] == 0.75 and found[0]["mean_probability"] == pytest.approx(0.8 + 0.2 / 3)
    scored = build([("aa", "b")] * 3, labels=np.float32([1, 2, 3]))
    found = slice_metrics(
        SCORES, pair_slices(scored, LabelScheme("scores", [], 0, 5)), np.array([1.0, 2.0, 4.0]), scored.labels, None
    )
    assert found[0]["spearman"] == pytest.approx(1) and found[0]["mean_label"] == 2
    assert found[-1]["spearman"] is None  # one pair


def test_the_worst_are_the_most_confident_of_the_wrong():
    scores, labels = np.array([0.9, 0.1, 0.95, 0.45, 0.6]), np.array([0, 1, 1, 1, 0])
    rows, error = worst_rows(BINARY, scores, labels, 0.5, 3)
    assert rows.tolist() == [0, 1, 4] and error == pytest.approx([0.9, 0.9, 0.6])
    assert worst_rows(BINARY, scores, labels, 0.4, 9)[0].tolist() == [0, 1, 4]  # 0.45 is right at this threshold


def test_the_worst_of_classes_and_scores():
    probabilities = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.5, 0.1, 0.4]])
    assert worst_rows(CLASSES, probabilities, np.array([2, 1, 2]), None, 9)[0].tolist() == [0, 2]
    rows, error = worst_rows(SCORES, np.array([1.0, 5.0, 2.0]), np.array([1.5, 1.0, 2.0]), None, 2)
    assert rows.tolist() == [1, 0] and error.tolist() == [4, 0.5]


def test_no_wrong_pair_no_worst_pair():
    assert len(worst_rows(BINARY, np.array([0.9]), np.array([1]), 0.5, 50)[0]) == 0
