"""Derived pairs: against a brute-force closure, without contradictions, at the given ratio, in linear time."""

import time
from itertools import combinations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_pkg.data.closure import MAX_DERIVED_PER_LINK, augment_pairs, derive_pairs, keep_ratio
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.data.splits import pair_keys

SHARED = Path(__file__).parents[3] / "shared" / "data"

pairs_of_texts = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8), st.integers(0, 1)), max_size=16)
held_out_pairs = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=4)


def make_pairs(rows) -> Pairs:
    left, right, labels = zip(*rows) if rows else ((), (), ())
    return Pairs(list(left), list(right), np.array(labels, dtype=np.int64), [f"f:{n}" for n in range(len(left))])


def numbered(rows) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(rows, dtype=np.int64).reshape(-1, 3)
    return table[:, :2], table[:, 2]


def brute_force(rows):
    """Both rules until nothing new follows; texts of contradictory groups; each set holds pairs in both orders."""
    both = lambda a, b: {(a, b), (b, a)}  # noqa: E731
    equal = {pair for a, b, label in rows if label for pair in both(a, b)}
    unequal = {pair for a, b, label in rows if not label for pair in both(a, b)}
    while True:
        more_equal = {(a, d) for (a, b), (c, d) in product(equal, equal) if b == c and a != d}
        chains = [(a, d) for (a, b), (c, d) in product(equal, unequal) if b == c]
        more_unequal = {pair for a, d in chains for pair in both(a, d)}
        if more_equal <= equal and more_unequal <= unequal:
            break
        equal, unequal = equal | more_equal, unequal | more_unequal
    bad = {a for a, b in unequal if a == b or (a, b) in equal}
    bad |= {b for a, b in equal if a in bad}
    return equal, unequal, bad


@settings(max_examples=300, deadline=None)
@given(pairs_of_texts, held_out_pairs)
def test_what_is_derived_is_the_closure_without_the_known_and_the_contradictory(rows, held_out):
    ends, labels = numbered(rows)
    present = {text for a, b, _ in rows for text in (a, b)}
    held = [pair for pair in held_out if set(pair) <= present]
    derived = derive_pairs(ends, labels, np.array(held, dtype=np.int64).reshape(-1, 2), np.random.default_rng(0))
    equal, unequal, bad = brute_force(rows)
    known = {tuple(sorted(pair[:2])) for pair in [*rows, *held]}

    def wanted(implied):
        return {(a, b) for a, b in implied if a < b and (a, b) not in known and not {a, b} & bad}

    found = [[tuple(pair) for pair in part.tolist()] for part in (derived.positives, derived.negatives)]
    assert set(found[0]) == wanted(equal) and set(found[1]) == wanted(unequal)
    assert all(len(set(part)) == len(part) for part in found)
    assert derived.dropped_for_cap == 0
    assert derived.contradictions == sum(not label and (a == b or (a, b) in equal) for a, b, label in rows)
    assert (derived.contradictory_groups > 0) == bool(bad)


@settings(max_examples=200, deadline=None)
@given(pairs_of_texts, held_out_pairs, st.integers(0, 3))
def test_augmented_pairs_keep_the_given_rows_the_ratio_and_the_held_out_texts_away(rows, held_out, seed):
    train = make_pairs([(f"Text {a}", f"text  {b}", label) for a, b, label in rows])
    held = Pairs([f"TEXT {b}" for _, b in held_out], [f"text {a}" for a, _ in held_out], None, ["h"] * len(held_out))
    augmented, audit = augment_pairs(train, [held], seed)
    assert augmented.sentence1[: len(train)] == train.sentence1 and augmented.places[: len(train)] == train.places
    assert np.array_equal(augmented.labels[: len(train)], train.labels)
    keys = pair_keys(augmented.sentence1, augmented.sentence2)
    added = keys[len(train) :]
    assert len(added) == audit.derived_positives + audit.derived_negatives == len(set(added))
    assert not set(added) & {*keys[: len(train)], *pair_keys(held.sentence1, held.sentence2)}
    assert augmented.labels[len(train) :].sum() == audit.derived_positives
    given_positives = int(train.labels.sum())
    # off by no more than the rounding of one pair
    error = audit.derived_positives * (len(train) - given_positives) - audit.derived_negatives * given_positives
    assert abs(error) <= max(given_positives, len(train) - given_positives) / 2
    again, _ = augment_pairs(train, [held], seed)
    assert (again.sentence1, again.sentence2) == (augmented.sentence1, augmented.sentence2)


@given(st.integers(1, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_the_ratio_keeps_as_many_as_it_can(positives, negatives, derived_positives, derived_negatives):
    kept = keep_ratio(positives, negatives, derived_positives, derived_negatives)
    assert 0 <= kept[0] <= derived_positives and 0 <= kept[1] <= derived_negatives
    assert kept[0] == derived_positives or kept[1] == derived_negatives


def test_a_question_with_a_paraphrase_and_a_look_alike_gives_negatives_only_so_none_is_kept():
    rows = [(f"q{n}", f"{kind}{n}", label) for n in range(5) for kind, label in (("p", 1), ("l", 0))]
    augmented, audit = augment_pairs(make_pairs(rows), [], 0)
    assert len(augmented) == 10 and audit.dropped_for_ratio == 5
    assert (audit.derived_positives, audit.derived_negatives, audit.contradictions) == (0, 0, 0)


def test_a_contradiction_is_counted_and_its_group_gives_nothing_while_others_do():
    contradictory = [("a", "b", 1), ("b", "c", 1), ("A", "c", 0), ("c", "other", 0), ("c", "d", 1)]
    sound = [("k", "l", 1), ("l", "m", 1), ("m", "n", 0)]
    augmented, audit = augment_pairs(make_pairs(contradictory + sound), [], 0)
    assert (audit.contradictions, audit.contradictory_groups) == (1, 1)
    added = list(zip(augmented.sentence1[8:], augmented.sentence2[8:], augmented.labels[8:].tolist()))
    assert ("k", "m", 1) in added and {text for row in added for text in row[:2]} <= set("klmn")
    assert augmented.places[8:][added.index(("k", "m", 1))] == "derived from f:5 and f:6"


def test_a_pair_with_both_labels_is_a_contradiction():
    _, audit = augment_pairs(make_pairs([("a", "b", 1), ("b", "a", 0), ("b", "c", 1)]), [], 0)
    assert (audit.contradictions, audit.derived_positives) == (1, 0)


def test_a_clique_is_capped_and_drawn_evenly_from_all_its_pairs():
    num_texts = 5000
    rows = [(n, n + 1, 1) for n in range(num_texts - 1)] + [(n, num_texts + n, 0) for n in range(100)]
    begin = time.perf_counter()
    derived = derive_pairs(*numbered(rows), np.empty((0, 2), np.int64), np.random.default_rng(0))
    assert time.perf_counter() - begin < 2  # the clique has 12.5 million pairs
    assert len(derived.positives) == MAX_DERIVED_PER_LINK
    assert len(derived.negatives) == 100 * MAX_DERIVED_PER_LINK
    num_open = num_texts * (num_texts - 1) // 2 - (num_texts - 1) + 100 * (num_texts - 1)
    assert derived.dropped_for_cap == num_open - 101 * MAX_DERIVED_PER_LINK
    assert abs(derived.positives.mean() / num_texts - 0.5) < 0.1


def test_the_cap_is_exact_where_most_of_a_group_is_known():
    all_pairs = list(combinations(range(8), 2))
    rows = [(a, b, 1) for a, b in all_pairs[3:]]
    for limit, wanted in ((2, 2), (3, 3), (100, 3)):
        ends, labels = numbered(rows)
        derived = derive_pairs(ends, labels, np.empty((0, 2), np.int64), np.random.default_rng(0), limit)
        found = {tuple(pair) for pair in derived.positives.tolist()}
        assert len(found) == wanted and found <= set(all_pairs[:3]) and derived.dropped_for_cap == 3 - wanted


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")
def test_afqmc_takes_seconds_and_keeps_its_ratio():
    train, _, _ = load_pairs([str(SHARED / "afqmc" / "train.tsv")], labelled=True)
    begin = time.perf_counter()
    augmented, audit = augment_pairs(train, [], 0)
    assert time.perf_counter() - begin < 5
    assert audit.derived_positives > 100 and audit.derived_negatives > 100
    assert augmented.labels.mean() == pytest.approx(train.labels.mean(), abs=1e-4)
