"""Words in scripts with and without spaces, and their overlap."""

from pair_pkg.pairs.words import split_words, word_overlaps


def test_words_ignore_case_width_and_punctuation():
    assert split_words("Can I take Ibuprofen?") == split_words("ｃａｎ i TAKE ibuprofen")
    assert split_words("") == split_words("?! ***") == []


def test_chinese_characters_and_kana_are_words_and_latin_runs_stay_whole():
    assert split_words("我的iPhone坏了坏") == ["我", "的", "iphone", "坏", "了", "坏"]
    assert split_words("すし𠀀") == ["す", "し", "𠀀"]


def test_word_overlap_is_symmetric_and_zero_without_words():
    left, right = ["a b c", "花呗", "?", ""], ["c d", "花", "!", "a"]
    assert word_overlaps(left, right).tolist() == [1 / 4, 1 / 2, 0, 0]
    assert word_overlaps(left, right).tolist() == word_overlaps(right, left).tolist()
