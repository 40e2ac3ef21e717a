"""Tables line up, whatever their cells hold."""

from dataclasses import replace

import pytest

from pair_pkg.report.statistics import Difference
from pair_pkg.report.tables import comparison_table, display_width, format_table, markdown_table

RISE = Difference(0.808, 0.831, 0.023, 0.004, 0.041, 2000, 0, 0.95, (0.012, 0.034))
NONE = Difference(None, None, None, None, None, 2000, 2000, 0.95, (None, None))


def test_every_line_of_right_aligned_columns_is_equally_wide():
    rows = [["蚂蚁花呗", 1, "ｆｕｌｌ"], ["cafe\u0301", 22222, None], ["plain", -3, "x"]]
    assert display_width("蚂蚁花呗") == display_width("ｆｕｌｌ") == 8
    lines = format_table(["文本", "count", "last"], rows, align="lrr").splitlines()
    assert len({display_width(line) for line in lines}) == 1
    assert lines[3].split() == ["cafe\u0301", "22222", "-"]


def test_table_without_rows_is_its_header():
    assert format_table(["a", "bb"], []) == "a  bb\n-  --"


def test_row_with_a_missing_cell_is_a_defect():
    with pytest.raises(ValueError):
        format_table(["a", "b"], [["only one"]])


def test_cell_cannot_break_the_line_or_steer_the_terminal():
    table = format_table(["text"], [["one\ntwo\x1b[31m"]])
    assert len(table.splitlines()) == 3 and "\x1b" not in table


def test_markdown_cell_cannot_open_a_column_or_markup():
    row = markdown_table(["text"], [["a|b\n<img> **x** [y](z)"]]).splitlines()[2]
    assert row == r"| a\|b \<img> \*\*x\*\* \[y](z) |"


def test_comparison_table_holds_every_number():
    lines = comparison_table({"accuracy": RISE, "mcc": replace(RISE, by_seed=(0.02,)), "roc_auc": NONE}).splitlines()
    cells = [line.split("  ") for line in lines]
    words = [[cell.strip() for cell in row if cell.strip()] for row in cells]
    assert words[0] == ["metric", "base", "adapted", "difference", "95 % interval", "by seed"]
    assert words[2] == ["accuracy", "80.8 %", "83.1 %", "+2.3 points", "+0.4 to +4.1", "+1.2 to +3.4"]
    assert words[3] == ["MCC", "0.808", "0.831", "+0.023", "+0.004 to +0.041", "one seed"]
    assert words[4] == ["ROC AUC"] + ["undefined"] * 5


def test_comparison_names_the_seeds_that_are_left():
    table = comparison_table({"f1": replace(RISE, by_seed=(0.01, None, 0.03))}, markdown=True)
    assert "+1.0 to +3.0 (2 of 3 seeds)" in table and table.startswith("| metric | base |")
