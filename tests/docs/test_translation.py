"""README.md and README.zh-CN.md say the same: commands, headings, tables, links and figures."""

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ENGLISH, CHINESE = ((ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md"))
UNITS = {"million": 1_000_000, "万": 10_000}
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```\n", re.DOTALL | re.MULTILINE)


def blocks(text):
    """The blocks of code without their comments, and without the empty lines that those leave."""
    found = []
    for language, code in BLOCK.findall(text):
        lines = [re.sub(r"(^|\s+)#\s.*$", "", line) for line in code.splitlines()]
        found.append((language, [line for line in lines if line]))
    return found


def numbers(text):
    """How often each number stands outside of code blocks; single digits are left out, for words may say them too."""
    found = re.findall(r"\d[\d,]*(?:\.\d+)?(?: (?:million|万))?", BLOCK.sub("", text))
    values = []
    for number in found:
        digits, _, unit = number.replace(",", "").partition(" ")
        values.append(round(float(digits) * UNITS.get(unit, 1), 6))
    return Counter(value for value in values if value >= 10 or value != int(value))


PARTS = {
    "code": blocks,
    "headings": lambda text: re.findall(r"^#+ ", BLOCK.sub("", text), re.MULTILINE),
    "lists": lambda text: re.findall(r"^\d\. \*\*", text, re.MULTILINE),
    "rows of tables": lambda text: [line.count("|") for line in text.splitlines() if line.startswith("|")],
    "code in tables": lambda text: re.findall(r"^\| (`[^`]+`)", text, re.MULTILINE),
    "links": lambda text: re.findall(r"\]\(((?!README)[^)]+)\)", text),
    "code in lines": lambda text: Counter(re.findall(r"`([^`]+)`", re.sub(r"\s+", " ", BLOCK.sub("", text)))),
    "numbers": numbers,
}  # fmt: skip


@pytest.mark.parametrize("part", PARTS)
def test_both_languages_have_the_same(part):
    find = PARTS[part]
    assert find(CHINESE) == find(ENGLISH) and find(ENGLISH)


def test_each_links_to_the_other():
    assert "(README.zh-CN.md)" in ENGLISH and "(README.md)" in CHINESE


def test_a_number_in_either_language_is_one_number():
    assert numbers("1.5 million of 58,202") == numbers("58,202 中的 150 万") == Counter([1_500_000, 58_202])
