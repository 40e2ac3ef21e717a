"""Negation words: what counts, and what only looks like one."""

import pytest

from pair_pkg.pairs.negation import negates


@pytest.mark.parametrize(
    "text",
    [
        "It is NOT safe", "I can't sleep", "I can’t sleep", "He doesnt eat", "no pain", "without food", "Neither one",
        "ｎｏｔ", "花呗无法使用", "为什么不能用", "還沒有開通", "没开通", "未还款", "别再扣了",
        "通不过审核", "请勿使用",
    ],
)  # fmt: skip
def test_negated(text):
    assert negates(text)


@pytest.mark.parametrize(
    "text",
    [
        "another note", "notice", "nowadays", "know", "canteen", "",
        "能不能还款", "有没有额度", "是不是冻结", "可不可以", "开没开通", "还清了没有？", "吃過沒", "非常好", "未来",
        "无线网", "特别好", "别人的花呗", "区别", "差不多", "不过我还了", "无论如何", "不同的卡",
    ],
)  # fmt: skip
def test_not_negated(text):
    assert not negates(text)
