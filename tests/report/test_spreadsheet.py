"""Files for spreadsheets: nothing in them runs, nothing in them hides."""

import csv

import pytest

from pair_pkg.report.spreadsheet import sheet_cell, write_sheet


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "  =x", "＝1", "＠x", "\t=1", "\r=1"])
def test_what_a_spreadsheet_would_run_is_quoted(text):
    assert sheet_cell(text)[0] in "'\\"  # an apostrophe, or the escape of a control character


@pytest.mark.parametrize("text", ["a=b", "花呗", "'quoted'", "", "1-2", "e\u0301"])
def test_other_texts_stay_as_they_are(text):
    assert sheet_cell(text) == text


def test_control_and_format_characters_are_escapes():
    assert sheet_cell("a\nb\x1b[31m\u202e\u200b") == r"a\nb\x1b[31m\u202e\u200b"


def test_a_sheet_is_read_back_with_its_numbers_and_chinese(tmp_path):
    write_sheet(tmp_path / "a.csv", ["text", "n"], [['花呗, "借呗"', -0.5], ["=1", 2]])
    assert (tmp_path / "a.csv").read_bytes().startswith(b"\xef\xbb\xbf")
    with open(tmp_path / "a.csv", encoding="utf-8-sig", newline="") as file:
        assert list(csv.reader(file)) == [["text", "n"], ['花呗, "借呗"', "-0.5"], ["'=1", "2"]]
