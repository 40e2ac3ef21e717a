import json
import logging

import numpy as np
import pytest

from pair_pkg.data.labels import LabelScheme, detect_labels, label_key
from pair_pkg.errors import InputError


def detect(values, **options):
    return detect_labels(values, [f"f.csv:{row}" for row in range(1, len(values) + 1)], **options)


# LabelScheme


@pytest.mark.parametrize(
    "scheme",
    [
        LabelScheme("binary", ["different", "same"]),
        LabelScheme("classes", ["0", "1", "2"]),
        LabelScheme("scores", [], -1.0, 1.0),
    ],
)
def test_scheme_survives_json(scheme):
    assert LabelScheme.from_json(json.loads(json.dumps(scheme.to_json()))) == scheme


def test_num_classes():
    assert LabelScheme("binary", ["0", "1"]).num_classes == 2
    assert LabelScheme("classes", ["a", "b", "c"]).num_classes == 3
    assert LabelScheme("scores").num_classes == 1


@pytest.mark.parametrize(
    "value", [1, 1.0, "1", " 1.0 ", True, np.int64(1), np.float32(1), np.bool_(True), "TRUE", "yes"]
)
def test_spellings_of_the_positive_class(value):
    assert LabelScheme("binary", ["0", "1"]).encode(value, "p") == 1
    assert LabelScheme("binary", ["no", "yes"]).encode(value, "p") == 1


def test_reversed_booleans_keep_the_order_of_the_names():
    scheme = LabelScheme("binary", ["yes", "no"])
    assert (scheme.encode("yes", "p"), scheme.encode("No", "p")) == (0, 1)
    with pytest.raises(InputError, match="none of yes, no"):
        scheme.encode(1, "p")


def test_classes_are_not_booleans():
    with pytest.raises(InputError, match="none of 0, 1, 2"):
        LabelScheme("classes", ["0", "1", "2"]).encode("yes", "p")


@pytest.mark.parametrize("value", ["maybe", 2, "0.5", "1_0"])
def test_label_that_is_none_of_the_labels(value):
    with pytest.raises(InputError, match=rf"^a\.csv:4: label '{value}' is none of 0, 1; .*--class_names"):
        LabelScheme("binary", ["0", "1"]).encode(value, "a.csv:4")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_missing_label(value):
    with pytest.raises(InputError, match="^a:1: label is missing"):
        LabelScheme("binary", ["0", "1"]).encode(value, "a:1")


@pytest.mark.parametrize("value", [float("nan"), "NaN", "inf", float("-inf"), "1e999"])
@pytest.mark.parametrize("scheme", [LabelScheme("binary", ["0", "1"]), LabelScheme("scores", [], 0, 5)])
def test_label_that_is_not_finite(value, scheme):
    with pytest.raises(InputError, match="^a:1: label is .*not a finite number"):
        scheme.encode(value, "a:1")


def test_label_of_another_type():
    with pytest.raises(InputError, match="^a:1: label is of type list"):
        label_key([1], "a:1")


@pytest.mark.parametrize("value", [5.01, "-0.1"])
def test_score_out_of_range(value):
    with pytest.raises(InputError, match="^a:1: label .* out of the range 0 to 5; .*--label_range"):
        LabelScheme("scores", [], 0, 5).encode(value, "a:1")


def test_scores_at_both_ends_and_text_among_them():
    scheme = LabelScheme("scores", [], 0, 5)
    assert [scheme.encode(value, "p") for value in ("0", 5, "4.75")] == [0, 5, 4.75]
    for value in ("good", "1_0"):
        with pytest.raises(InputError, match=f"'{value}' is not a number"):
            LabelScheme("scores", [], 0, 10).encode(value, "p")


def test_encode_all_has_the_dtype_of_the_kind():
    ids = LabelScheme("binary", ["0", "1"]).encode_all(["1", "0"], ["a:1", "a:2"])
    scores = LabelScheme("scores", [], 0, 5).encode_all(["4.75", 0], ["a:1", "a:2"])
    assert ids.dtype == np.int64 and ids.tolist() == [1, 0]
    assert scores.dtype == np.float32 and scores.tolist() == [4.75, 0]


# detect_labels


@pytest.mark.parametrize(
    ("values", "names"),
    [
        ([1, 0, 1], ["0", "1"]),
        (["1", "0"], ["0", "1"]),
        ([1.0, 0.0], ["0", "1"]),
        (["1.0", "0.0"], ["0", "1"]),
        ([True, False], ["false", "true"]),
        (["Yes", "no"], ["no", "yes"]),
        (["yes", 0, "false"], ["0", "1"]),  # files that spell it differently, read as one
    ],
)
def test_booleans_are_binary(values, names, caplog):
    assert detect(values) == LabelScheme("binary", names)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "names",
    [
        ["not_duplicate", "duplicate"],
        ["Not Duplicate", "Duplicate"],
        ["non-paraphrase", "paraphrase"],
        ["different", "same"],
        ["unrelated", "related"],
        ["dissimilar", "similar"],
        ["negative", "positive"],
    ],
)
def test_known_opposites_have_the_positive_last(names, caplog):
    assert detect(names) == detect(names[::-1]) == LabelScheme("binary", names)
    assert caplog.text == ""


def test_other_two_names_are_sorted_and_said(caplog):
    assert detect(["tea", "coffee"]) == LabelScheme("binary", ["coffee", "tea"])
    assert "'coffee' is taken as negative, 'tea' as positive" in caplog.text
    assert detect(["1", "-1"]) == LabelScheme("binary", ["-1", "1"])


def test_text_names_are_classes():
    values = ["neutral", "entailment", "contradiction", "Entailment"]
    assert detect(values) == LabelScheme("classes", ["contradiction", "entailment", "neutral"])


def test_whole_numbers_from_zero_are_classes_unless_said_otherwise():
    values = ["5", "3", "0", "1", "2", "4"]
    assert detect(values) == LabelScheme("classes", ["0", "1", "2", "3", "4", "5"])
    assert detect(values, kind="scores") == LabelScheme("scores", [], 0, 5)
    assert detect(values, label_range=(0, 10)) == LabelScheme("scores", [], 0, 10)


def test_class_numbers_are_sorted_as_numbers():
    assert detect([str(value) for value in range(12)]).names[-2:] == ["10", "11"]


@pytest.mark.parametrize("values", [["1", "2", "3"], ["0", "1", "3"], [str(value) for value in range(21)]])
def test_whole_numbers_in_doubt_need_a_word(values):
    with pytest.raises(InputError, match=r"^f\.csv:1: .*classes or scores; give --label_range .*--class_names"):
        detect(values)
    assert detect(values, kind="classes") == LabelScheme("classes", values)


@pytest.mark.parametrize(
    ("values", "low", "high"),
    [
        (["5.0", "4.75", "0.0"], 0, 5),
        ([0.5, 1.0], 0, 1),
        ([-0.2, 0.9], -1, 1),
        (["7.5", "1"], 0, 10),
    ],
)
def test_fractions_are_scores_on_a_usual_range(values, low, high, caplog):
    with caplog.at_level(logging.INFO):
        assert detect(values) == LabelScheme("scores", [], low, high)
    assert f"scores from {low} to {high}" in caplog.text


@pytest.mark.parametrize(("values", "row"), [([0.5, 55.5], 2), ([-3.5, 0.5], 1)])
def test_unusual_range_must_be_given(values, row):
    with pytest.raises(InputError, match=rf"^f\.csv:{row}: scores from .* give --label_range"):
        detect(values)
    assert detect(values, label_range=(-100, 100)).high == 100


def test_score_outside_the_given_range():
    with pytest.raises(InputError, match=r"^f\.csv:2: label 4\.5 is out of the range 0 to 1"):
        detect([0.5, 4.5, 1.0], label_range=(0, 1))


def test_text_among_scores():
    with pytest.raises(InputError, match=r"^f\.csv:2: label 'n/a' is not a number"):
        detect([0.5, "n/a"], kind="scores")


@pytest.mark.parametrize(
    ("values", "row", "found"),
    [
        (["0", "1", "oops", "1"], 3, "'oops' is text"),
        (["label", "0", "1"], 1, "'label' is text"),
        (["1", "oops"], 2, "'oops' is text"),
        (["same", "different", 1, "same"], 3, "'1' is a number"),
        (["0.5", "NA", "0.7"], 2, "'NA' is text"),
    ],
)
def test_text_and_numbers_name_the_odd_row(values, row, found):
    with pytest.raises(InputError, match=rf"^f\.csv:{row}: label {found}"):
        detect(values)


@pytest.mark.parametrize("values", [["1", "1.0"], ["yes", "1", True], ["same"], [0.5, 0.5], []])
def test_only_one_class(values):
    with pytest.raises(InputError, match="only one label.*--label_column"):
        detect(values)


def test_null_and_nan_are_placed():
    with pytest.raises(InputError, match=r"^f\.csv:2: label is missing"):
        detect(["1", None, "0"])
    with pytest.raises(InputError, match=r"^f\.csv:3: label is nan"):
        detect([1.0, 0.0, float("nan")])


def test_many_texts_are_a_wrong_column_unless_named():
    names = [f"name{i}" for i in range(21)]
    with pytest.raises(InputError, match="21 different labels .*--label_column.*--class_names"):
        detect(names)
    assert detect(names, label_names=names).num_classes == 21


def test_label_names_give_the_order_and_bind():
    assert detect(["tea", "coffee"], label_names=["tea", "coffee"]) == LabelScheme("binary", ["tea", "coffee"])
    assert detect(["b", "a"], label_names=["c", "b", "a"]) == LabelScheme("classes", ["c", "b", "a"])
    with pytest.raises(InputError, match=r"^f\.csv:2: label 'milk' is none of tea, coffee"):
        detect(["tea", "milk"], label_names=["tea", "coffee"])


def test_kind_is_followed_or_refused():
    assert detect(["0", "1"], kind="classes") == LabelScheme("classes", ["0", "1"])
    assert detect(["0", "1"], kind="scores") == LabelScheme("scores", [], 0, 1)
    assert detect(["tea", "coffee"], kind="classes") == LabelScheme("classes", ["coffee", "tea"])
    with pytest.raises(InputError, match="3 labels .0, 1, 2. are not binary"):
        detect(["0", "1", "2"], kind="binary")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"label_names": ["a", "b"], "label_range": (0, 1)}, "--class_names is for classes"),
        ({"label_names": ["a", "b"], "kind": "scores"}, "--class_names is for classes"),
        ({"label_range": (0, 1), "kind": "binary"}, "--label_range is for scores"),
        ({"label_range": (1, 0)}, "the first must be below"),
        ({"label_names": ["a", "A"]}, "at least two names"),
        ({"label_names": ["a"]}, "at least two names"),
    ],
)
def test_contradictions_of_the_user(options, message):
    with pytest.raises(InputError, match=message):
        detect(["a", "b"], **options)
