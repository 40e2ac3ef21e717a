"""Tables and sentences of an evaluation: every number is there, and no line is wider than a terminal."""

import pytest

from pair_pkg.pairs.shift import Shift
from pair_pkg.report.evaluation import result_table, shift_sentence, slice_table, spread_table
from pair_pkg.report.statistics import spread
from pair_pkg.report.tables import display_width

FIGURES = {
    "model": {"accuracy": 0.801, "average_precision": 0.853, "mcc": 0.6},
    "majority": {"accuracy": 0.5, "average_precision": 0.5, "mcc": None},
    "word_overlap": {"accuracy": 0.67, "average_precision": 0.71, "mcc": 0.3},
    "frozen_encoder": {"accuracy": 0.72, "average_precision": 0.79, "mcc": 0.4},
}
BOUNDS = {name: {"accuracy": [0.4999, 0.9], "average_precision": [0.4, 1.0]} for name in FIGURES}


def test_every_value_stands_above_its_interval():
    lines = result_table("test pairs", FIGURES, {"confidence": 0.95, "bounds": BOUNDS}).splitlines()
    assert lines[0].split("  ")[0] == "test pairs" and lines[0].endswith("frozen encoder")
    assert lines[2].split() == ["accuracy", "80.1", "%", "50.0", "%", "67.0", "%", "72.0", "%"]
    assert lines[3].split("  ")[0] == "95 % interval" and lines[3].count("50.0 to 90.0") == 4
    assert lines[6].split() == ["MCC", "0.600", "undefined", "0.300", "0.400"] and lines[7].count(" -") == 4
    assert max(map(display_width, lines)) <= 100


def test_figures_of_a_run_without_intervals_are_one_line_each():
    assert len(result_table("test pairs", FIGURES, None).splitlines()) == 2 + 3


def test_slices_fit_a_terminal_whatever_their_names_and_small_ones_are_marked():
    base = {"accuracy": 0.8, "f1": None, "mean_probability": 0.5123, "positive_share": 0.25}
    rows = [
        {"family": "source", "slice": f"/a/{'long/' * 9}花呗/客服对话/pairs.csv", "pairs": 12345, "small": False},
        {"family": "negation", "slice": "one side only", "pairs": 7, "small": True},
    ]  # fmt: skip
    lines = slice_table("slice of the test pairs", [row | base for row in rows]).splitlines()
    assert max(map(display_width, lines)) <= 100
    assert "12,345" in lines[2] and "…" in lines[2] and "pairs.csv" in lines[2]
    assert lines[3].split()[-6:] == ["7", "*", "80.0", "%", "-", "0.512"] or "7 *" in lines[3]
    assert lines[-1] == "* fewer than 30 pairs: such a figure is mostly chance"
    assert not slice_table("x", [rows[0] | base]).endswith("chance")


def test_slices_of_scores_show_their_own_metrics():
    row = {
        "family": "label",
        "slice": "up to 1",
        "pairs": 40,
        "small": False,
        "spearman": 0.5,
        "mean_score": 2.0,
        "mean_label": 1,
    }
    assert "Spearman" in slice_table("slice", [row]) and "0.500" in slice_table("slice", [row])


def test_spread_is_in_points_where_the_metric_is_a_share():
    table = spread_table("test pairs, 2 seeds", {"accuracy": spread([0.5, 0.6]), "mcc": spread([0.1, 0.3])})
    assert "7.1 points" in table and "0.141" in table and "55.0 %" in table


def shift(what, **changes):
    values = {"of": "", "train": 17.0, "test": 36.5, "distance": 0.4, "random_distance": 0.12, "p_value": 0.002}
    return Shift(what, **(values | changes), differs=True)


@pytest.mark.parametrize(
    "found, kind, parts",
    [
        (shift("length of sentence1"), "binary", ["36.5 words", "17 in train", "0.40", "0.12", "longer texts"]),
        (shift("length of sentence2", test=6.0), "binary", ["shorter texts"]),
        (
            shift("labels", of="1", train=0.542, test=0.427, random_distance=0.019),
            "binary",
            ["42.7 % are '1'", "54.2 % in train", "1.9 points", "threshold", "ROC AUC"],
        ),
        (shift("labels", of="b", train=0.5, test=0.6, random_distance=0.02), "classes", ["60.0 % are 'b'", "F1"]),
        (shift("labels", train=2.7, test=2.36), "scores", ["mean 2.36, 2.70 in train", "correlations"]),
        (shift("vocabulary", train=0.0, test=0.101, random_distance=0.055), "binary", ["10.1 %", "5.5 %", "words"]),
    ],
)
def test_a_shift_says_what_by_how_much_and_what_it_means(found, kind, parts):
    sentence = shift_sentence(found, "test", kind)
    assert sentence.startswith("test differs from train in ") and all(part in sentence for part in parts)
