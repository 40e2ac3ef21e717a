import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pair_pkg.data.pairs import load_pairs
from pair_pkg.data.splits import (
    Leak,
    connected_components,
    find_leaks,
    normalize_text,
    pair_keys,
    refuse_leaks,
    split_by_component,
)
from pair_pkg.errors import InputError

SHARED = Path(__file__).parents[3] / "shared" / "data"
FRACTIONS = {"train": 0.8, "validation": 0.1, "test": 0.1}

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="../shared/data is absent")


def make_pairs(num_groups: int, group_size: int = 2) -> tuple[list[str], list[str], np.ndarray]:
    """Groups of pairs that share their left text, as MQP has them; labels alternate inside a group."""
    left = [f"question {group}" for group in range(num_groups) for _ in range(group_size)]
    right = [f"answer {row}" for row in range(len(left))]
    return left, right, np.arange(len(left)) % 2


# normalize_text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("Ｆｌｕ？", "flu?"),  # full width
        ("Straße", "STRASSE"),
        ("cafe\u0301", "CAFÉ"),  # NFD and NFC
        (" two\u3000 words\n", "two words"),
        ("ﬁnger", "finger"),
        ("\u0390", "\u0390".upper()),  # a Greek letter whose capital is three characters
    ],
)
def test_spellings_that_count_as_the_same_text(text, same):
    assert normalize_text(text) == normalize_text(same)


@pytest.mark.parametrize(("text", "other"), [("is it flu", "is it the flu"), ("a b", "ab"), ("résumé", "resume")])
def test_texts_that_stay_different(text, other):
    assert normalize_text(text) != normalize_text(other)


@given(st.text())
def test_normalizing_twice_changes_nothing(text):
    assert normalize_text(normalize_text(text)) == normalize_text(text)


# connected_components


def test_pairs_connect_through_either_column_and_through_chains():
    left = ["a", "c", "x", "D", "lonely"]
    right = ["b", "B", "y", " c ", "lonely"]
    assert connected_components(left, right).tolist() == [0, 0, 1, 0, 2]


def test_many_repeats_of_one_pair_stay_connected():
    assert connected_components(["a"] * 256 + ["z"], ["b"] * 256 + ["y"]).tolist() == [0] * 256 + [1]


def test_components_of_nothing():
    assert connected_components([], []).shape == (0,)


texts = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("ABcdijkl")), min_size=1, max_size=30)


@given(texts)
def test_components_are_the_transitive_closure_of_shared_texts(pairs):
    left, right = zip(*pairs)
    keys = [set(key) for key in pair_keys(left, right)]
    expected = list(range(len(keys)))
    for _ in keys:  # relabel until nothing changes: slow, obvious
        for i, a in enumerate(keys):
            for j, b in enumerate(keys):
                if a & b:
                    expected[i] = expected[j] = min(expected[i], expected[j])
    found = connected_components(left, right)
    assert all((found[i] == found[j]) == (expected[i] == expected[j]) for i in range(len(keys)) for j in range(i))


# split_by_component


@settings(max_examples=60)
@given(texts, st.integers(0, 2**32))
def test_no_text_in_two_splits_and_every_pair_in_one(pairs, seed):
    left, right = zip(*pairs)
    try:
        splits = split_by_component(left, right, None, {"train": 0.7, "validation": 0.3}, seed)
    except InputError:
        assert connected_components(left, right).max() == 0  # nothing else makes a split impossible
        return
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(pairs)))
    columns = {name: ([left[i] for i in rows], [right[i] for i in rows]) for name, rows in splits.items()}
    assert find_leaks(columns) == []


def test_sizes_and_label_shares_are_those_asked_for():
    left, right, labels = make_pairs(500)
    splits = split_by_component(left, right, labels, FRACTIONS, seed=3)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 800, "validation": 100, "test": 100}
    assert all(labels[rows].mean() == 0.5 for rows in splits.values())


def test_rare_class_keeps_its_share_among_single_pairs():
    left, right = [f"l{i}" for i in range(1000)], [f"r{i}" for i in range(1000)]
    labels = np.array([1] * 100 + [0] * 900)
    splits = split_by_component(left, right, labels, FRACTIONS, seed=0)
    assert {name: int(labels[rows].sum()) for name, rows in splits.items()} == {
        "train": 80,
        "validation": 10,
        "test": 10,
    }


def test_scores_are_spread_by_quintile():
    left, right = [f"l{i}" for i in range(1000)], [f"r{i}" for i in range(1000)]
    scores = np.sort(np.random.default_rng(0).uniform(0, 5, 1000)).astype(np.float32)
    rows = split_by_component(left, right, scores, FRACTIONS, seed=0)["test"]
    assert Counter((rows // 200).tolist()) == dict.fromkeys(range(5), 20)


def test_components_of_every_size_are_spread_over_the_splits():
    left = [f"group {row // 5}" for row in range(500)] + [f"single {row}" for row in range(500)]
    right = [f"answer {row}" for row in range(1000)]
    splits = split_by_component(left, right, None, FRACTIONS, seed=0)
    assert {name: int((rows < 500).sum()) for name, rows in splits.items()} == {
        "train": 400,
        "validation": 50,
        "test": 50,
    }


def test_no_small_split_is_one_big_component():
    left = ["topic 1"] * 100 + ["topic 2"] * 90 + [f"single {row}" for row in range(810)]
    right = [f"answer {row}" for row in range(1000)]
    splits = split_by_component(left, right, None, FRACTIONS, seed=0)
    assert set(range(190)) <= set(splits["train"].tolist())


def test_same_seed_same_split_other_seed_another():
    left, right, labels = make_pairs(100)
    one, again, other = (split_by_component(left, right, labels, FRACTIONS, seed=seed)["test"] for seed in (1, 1, 2))
    assert one.tolist() == again.tolist()
    assert one.tolist() != other.tolist()


def test_rows_are_ascending():
    left, right, labels = make_pairs(100)
    rows = split_by_component(left, right, labels, FRACTIONS, seed=1)["validation"]
    assert rows.tolist() == sorted(rows.tolist())


def test_small_data_still_gives_both_classes_to_a_small_split():
    left, right = [f"l{i}" for i in range(15)], [f"r{i}" for i in range(15)]
    labels = np.arange(15) % 2
    rows = split_by_component(left, right, labels, {"train": 0.9, "validation": 0.1}, seed=0)["validation"]
    assert sorted(labels[rows].tolist()) == [0, 1]


def test_a_few_big_components_leave_no_split_empty():
    left, right, _ = make_pairs(3, group_size=33)
    splits = split_by_component(left, right, None, {"train": 0.9, "validation": 0.1}, seed=0)
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 66, "validation": 33}


def test_giant_component_stays_whole_and_is_reported(caplog):
    left, right, labels = make_pairs(100)
    left[:140] = ["everyone asks this"] * 140
    with caplog.at_level(logging.WARNING):
        splits = split_by_component(left, right, labels, FRACTIONS, seed=0)
    assert set(range(140)) <= set(splits["train"].tolist())
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 160, "validation": 20, "test": 20}
    assert "70 % of the pairs" in caplog.text


def test_no_warning_without_a_giant(caplog):
    split_by_component(*make_pairs(100), FRACTIONS, seed=0)
    assert caplog.text == ""


def test_one_component_cannot_be_split():
    with pytest.raises(InputError, match="split 'validation' is empty.*--validation_file"):
        split_by_component(["a", "a"], ["b", "c"], None, {"train": 0.5, "validation": 0.5}, seed=0)


def test_a_split_with_one_class_is_refused():
    left, right, _ = make_pairs(10, group_size=1)
    labels = np.array([1] + [0] * 9)
    with pytest.raises(InputError, match="single class.*--(validation|train)_file"):
        split_by_component(left, right, labels, {"train": 0.5, "validation": 0.5}, seed=0)
    splits = split_by_component(left, right, labels.astype(np.float32), {"train": 0.5, "validation": 0.5}, seed=0)
    assert len(splits["train"]) == 5  # a score may be constant in a split


@pytest.mark.parametrize("fractions", [{"train": 0.9, "validation": 0.2}, {"train": 1.0, "validation": 0.0}])
def test_fractions_that_are_no_parts_of_one(fractions):
    with pytest.raises(InputError, match="above 0, and their sum 1"):
        split_by_component(["a", "b"], ["c", "d"], None, fractions, seed=0)


def test_nothing_to_split():
    with pytest.raises(InputError, match="no pairs"):
        split_by_component([], [], None, FRACTIONS, seed=0)


# leaks


def test_leaks_by_pair_and_by_text_with_rows_and_examples():
    splits = {
        "train": (["what is flu", "a", "q"], ["Influenza?", "b", "r"]),
        "test": (["x", "influenza?", "b"], ["y", "What  is FLU", "new"]),
    }
    pair, text = find_leaks(splits)
    assert pair == Leak("train", "test", "pair", 1, 1, 1, [(0, 1)])  # swapped, other case
    assert (text.count, text.first_rows, text.second_rows) == (3, 2, 2)
    assert sorted(text.examples) == [(0, 1), (0, 1), (1, 2)]


def test_repeated_rows_count_as_rows_not_as_texts():
    (pair, text) = find_leaks({"train": (["a"] * 3, ["b"] * 3), "test": (["b", "b"], ["a", "a"])})
    assert (pair.count, pair.first_rows, pair.second_rows) == (1, 3, 2)
    assert (text.count, text.first_rows, text.second_rows) == (2, 3, 2)


def test_all_pairs_of_splits_are_compared():
    column = (["a"], ["b"])
    leaks = find_leaks({"train": column, "validation": (["c"], ["d"]), "test": column})
    assert {(leak.first, leak.second) for leak in leaks} == {("train", "test")}


def test_examples_are_capped():
    many = [f"t{i}" for i in range(9)]
    (pair, _) = find_leaks({"train": (many, many), "test": (many, many)})
    assert pair.count == 9 and pair.examples == [(i, i) for i in range(5)]


def test_leaks_are_refused_in_one_line_with_the_cure():
    leaks = find_leaks({"train": (["a"], ["b"]), "test": (["x", "b"], ["y", "c"])})
    with pytest.raises(
        InputError, match=r"1 text of train in 1 rows of test .*row 1 of train and row 2 of test"
    ) as error:
        refuse_leaks(leaks, allow=False)
    assert "--allow_leaks" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(InputError, match=r"a\.csv:7 and b\.csv:3"):
        refuse_leaks(leaks, allow=False, places={"train": ["a.csv:7"], "test": ["b.csv:2", "b.csv:3"]})


def test_allowed_leaks_are_logged(caplog):
    refuse_leaks(find_leaks({"train": (["a"], ["b"]), "test": (["a"], ["c"])}), allow=True)
    assert "1 text of train" in caplog.text


def test_no_leaks_say_nothing(caplog):
    refuse_leaks([], allow=False)
    assert caplog.text == ""


@needs_shared
def test_published_mqp_splits_share_no_text():
    splits = {name: load_pairs([str(SHARED / "mqp" / f"{name}.csv")], labelled=True)[0] for name in ("train", "dev")}
    assert find_leaks({name: (pairs.sentence1, pairs.sentence2) for name, pairs in splits.items()}) == []


@needs_shared
def test_mqp_split_by_row_would_leak_and_by_component_does_not():
    pairs, _, _ = load_pairs([str(SHARED / "mqp" / "train.csv")], labelled=True)
    by_row = {"train": pairs.subset(range(0, len(pairs), 2)), "test": pairs.subset(range(1, len(pairs), 2))}
    leaks = find_leaks({name: (part.sentence1, part.sentence2) for name, part in by_row.items()})
    assert sum(leak.count for leak in leaks if leak.kind == "text") > 900
    rows = split_by_component(pairs.sentence1, pairs.sentence2, pairs.labels, FRACTIONS, seed=0)
    by_component = {name: pairs.subset(part) for name, part in rows.items()}
    assert find_leaks({name: (part.sentence1, part.sentence2) for name, part in by_component.items()}) == []
    assert all(abs(part.labels.mean() - 0.5) < 0.02 for part in by_component.values())
