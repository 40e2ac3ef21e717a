import gzip
import io
import os
import random
import re
import tarfile
import zipfile

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pair_pkg.data.files import (
    BLOCK_BYTES,
    GZIP_MAGIC,
    _walk,
    detect_encoding,
    expand_paths,
    read_lines,
    read_raw_lines,
)
from pair_pkg.errors import InputError, one_line

CHINESE = "花呗怎么还款，我的借呗额度是多少\n糖尿病患者应该注意饮食。\n"
# Any character but line ends and NUL, with those that a careless reader takes for line ends.
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\0")) | st.sampled_from(
    ["", "a\u2028b\u2029c", "a\x0b\x0c\x1c\x1d\x1e\x85b", "\u0a0d\u0d0a", "𝄞 clef"]
)


def lines_of(path, **options):
    return [line for _, line in read_lines(path, **options)]


def refusal(function, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        result = function(*args, **options)
        list(result)
    message = str(caught.value)
    assert message == one_line(message) and "; " in message, "one line, with a cure after the semicolon"
    return message


def written(tmp_path, content: bytes, name="corpus.txt"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


# --- expand_paths


def test_patterns_expand_sorted_and_without_duplicates(tmp_path):
    for name in ("b.txt", "a.txt.gz", "sub/c.TXT", "sub/d.csv", ".hidden/e.txt", "sub/.f.txt"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (tmp_path / "link.txt").symlink_to(tmp_path / "b.txt")
    found = expand_paths([str(tmp_path / "b.txt"), str(tmp_path), str(tmp_path / "*.txt")], [".txt"])
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a.txt.gz", "b.txt", "sub/c.TXT"]


def test_folder_follows_links_and_ends_a_circle(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.txt").write_bytes(b"x")
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "b.txt").write_bytes(b"x")
    (tmp_path / "corpus" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "back").symlink_to(tmp_path / "corpus")
    assert sorted(path.name for path in _walk(tmp_path / "corpus")) == ["a.txt", "b.txt"]
    assert [path.name for path in expand_paths([str(tmp_path / "corpus")], [".txt"])] == ["b.txt", "a.txt"]


def test_glob_takes_what_it_matches_and_a_name_with_brackets_is_a_name(tmp_path):
    (tmp_path / "wiki_00").write_bytes(b"x")
    (tmp_path / "part[1].txt").write_bytes(b"x")
    assert expand_paths([str(tmp_path / "wiki_*")], [".txt"]) == [tmp_path / "wiki_00"]
    assert expand_paths([str(tmp_path / "part[1].txt")], [".txt"]) == [tmp_path / "part[1].txt"]


def test_nothing_found_names_the_pattern_and_what_was_there(tmp_path):
    assert "no*.txt: no file matches" in refusal(expand_paths, [str(tmp_path / "no*.txt")], [".txt"])
    assert "no.txt: no such file or folder" in refusal(expand_paths, [str(tmp_path / "no.txt")], [".txt"])
    (tmp_path / "a.pdf").write_bytes(b"x")
    message = refusal(expand_paths, [str(tmp_path)], [".txt", ".csv"])
    assert f"{tmp_path}: no file of .txt, .csv" in message and "1 of .pdf" in message


def test_files_that_cannot_be_read_are_refused(tmp_path):
    (tmp_path / "broken.txt").symlink_to(tmp_path / "gone.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "empty.txt").touch()
    for name, expected in (
        ("broken.txt", "which does not exist"),
        ("pipe.txt", "not a regular file"),
        ("empty.txt", "is empty (0 bytes)"),
    ):
        for function, argument in ((expand_paths, [[str(tmp_path / name)], [".txt"]]), (read_lines, [tmp_path / name])):
            message = refusal(function, *argument)
            assert message.startswith(f"{tmp_path / name}: ") and expected in message
    assert "broken.txt" in refusal(expand_paths, [str(tmp_path)], [".txt"])
    assert "is a folder" in refusal(read_lines, tmp_path)
    assert "no such file" in refusal(read_lines, tmp_path / "no.txt")


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path, b"x")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the tests may run as root, who may read everything
    assert f"{path}: may not be read" in refusal(expand_paths, [str(path)], [".txt"])


# --- lines


def test_three_line_ends_and_no_other(tmp_path):
    path = written(tmp_path, "one\ntwo\r\nthree\r\rfive\u2028same\x85line\x0b\n\nlast".encode())
    assert list(read_lines(path)) == [
        (1, "one"),
        (2, "two"),
        (3, "three"),
        (4, ""),
        (5, "five\u2028same\x85line\x0b"),
        (6, ""),
        (7, "last"),
    ]
    assert "".join(read_raw_lines(path)).encode() == path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(
    lines=st.lists(LINE, min_size=1),
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "gb18030"]),
    ended=st.booleans(),
    packed=st.booleans(),
    block_bytes=st.integers(1, 40),
)
def test_lines_come_back_whatever_the_encoding_newline_and_block(
    tmp_path_factory, lines, newline, encoding, ended, packed, block_bytes
):
    if lines and lines[0].startswith("\ufeff"):
        lines[0] = "x" + lines[0]  # a leading byte order mark is meant to go
    text = newline.join(lines) + (newline if ended else "")
    content = text.encode(encoding)
    assume(content and not content.startswith(GZIP_MAGIC))
    path = tmp_path_factory.mktemp("lines") / "corpus"
    path.write_bytes(gzip.compress(content) if packed else content)
    expected = lines if ended or lines[-1] else lines[:-1]  # without an end an empty last line is none
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pair_pkg.data.files.BLOCK_BYTES", block_bytes)
        patch.setattr("pair_pkg.data.encodings.OTHER_FORMATS", ())
        assert list(read_lines(path, encoding)) == list(enumerate(expected, start=1))
        assert "".join(read_raw_lines(path, encoding)) == text


def test_lines_that_span_blocks_come_back(tmp_path):
    lines = ["糖" * size for size in (BLOCK_BYTES // 3, BLOCK_BYTES, 5, BLOCK_BYTES - 1)]
    path = written(tmp_path, "\r\n".join(lines).encode())
    assert lines_of(path) == lines


@pytest.mark.parametrize("codec", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "gb18030", "gbk"])
@pytest.mark.parametrize("text", [CHINESE, CHINESE * 20000, "花呗怎么还款\n"])
def test_chinese_is_detected_and_read(tmp_path, codec, text):
    path = written(tmp_path, text.encode(codec))
    assert "\n".join(lines_of(path)) + "\n" == text
    expected = {"utf-8-sig": {"utf-8"}, "utf-16": {"utf-16-le", "utf-16-be"}, "gbk": {"gb18030"}}.get(codec, {codec})
    assert detect_encoding(path) in expected


def test_english_utf16_without_a_mark_and_ascii_are_detected(tmp_path):
    assert detect_encoding(written(tmp_path, "a plain line\nand another\n".encode("utf-16-be"))) == "utf-16-be"
    assert detect_encoding(written(tmp_path, b"a plain line\n")) == "utf-8"


def test_a_character_cut_by_the_sample_is_no_damage(tmp_path):
    for shift in range(3):
        path = written(tmp_path, b"x" * shift + ("糖" * 200_000).encode())
        assert detect_encoding(path) == "utf-8"


def test_ambiguous_bytes_are_refused_with_the_place_and_the_flag(tmp_path):
    path = written(tmp_path, "plain\r\nLe café est très agréable à Noël\n".encode("cp1252"))
    message = refusal(detect_encoding, path)
    assert message.startswith(f"{path}:2:7: not UTF-8") and "--encoding" in message
    assert refusal(read_lines, path) == message
    assert lines_of(path, encoding="cp1252")[1] == "Le café est très agréable à Noël"


def test_korean_and_japanese_are_not_taken_for_chinese(tmp_path):
    for text, codec in (
        ("오늘은 날씨가 좋습니다.\n", "euc_kr"),
        ("今日は天気がいいですね。\n", "shift_jis"),
        ("今天天氣很好，我們去公園散步。\n", "big5"),
    ):
        assert "--encoding" in refusal(detect_encoding, written(tmp_path, text.encode(codec) * 3))


# --- what is refused


@pytest.mark.parametrize("blocks", [1, 7, 1 << 20])
def test_undecodable_bytes_name_line_and_byte(tmp_path, monkeypatch, blocks):
    monkeypatch.setattr("pair_pkg.data.files.BLOCK_BYTES", blocks)
    good = "糖尿病\r糖尿病\r\n糖尿"
    for codec, bad in (("utf-8", b"\xff"), ("gb18030", b"\xff"), ("utf-16-le", b"\x00\xdc")):
        path = written(tmp_path, good.encode(codec) + bad + "\nmore\n".encode(codec))
        place = f"{path}:3:{len('糖尿'.encode(codec)) + 1}: "
        message = refusal(read_lines, path, codec)
        assert message.startswith(place) and f"is not {codec}" in message and "--encoding" in message
        assert refusal(read_raw_lines, path, codec) == message
    after_cr = written(tmp_path, b"ab\r\xff")
    assert refusal(read_lines, after_cr, "utf-8").startswith(f"{after_cr}:2:1: byte 0xFF")
    assert refusal(read_lines, written(tmp_path, good.encode() + b"\xe7\xb3")).startswith(f"{path}:3:7: byte 0xE7")


def test_one_damaged_character_in_utf8_is_named_at_its_place(tmp_path):
    path = written(tmp_path, CHINESE.encode() * 5 + b"ab\xffcd\n" + CHINESE.encode())
    assert refusal(read_lines, path).startswith(f"{path}:11:3: byte 0xFF is not utf-8")


def test_nul_names_its_line(tmp_path):
    path = written(tmp_path, b"a plain line\nanother\rthird\0line\n")
    assert refusal(read_lines, path).startswith(f"{path}:3: a NUL character")
    path = written(tmp_path, b"line\n" * 400_000 + b"\0")
    assert refusal(read_lines, path).startswith(f"{path}:400001: a NUL character")


def test_a_line_above_the_limit_is_refused_at_its_number(tmp_path):
    path = written(tmp_path, b"12345678\n1234567890\n12345678901\nx\n")
    assert refusal(read_lines, path, max_line_bytes=10).startswith(f"{path}:3: line is longer than 10 bytes")
    assert len(lines_of(path, max_line_bytes=11)) == 4
    path = written(tmp_path, "短\n糖尿病人\n".encode())
    assert refusal(read_lines, path, max_line_bytes=11).startswith(f"{path}:2: line is longer")
    assert len(lines_of(path, max_line_bytes=12)) == 2


def test_an_endless_line_is_refused_before_it_is_held(tmp_path):
    consumed = []

    class Endless(io.BytesIO):
        def read(self, size=-1):
            consumed.append(size)
            assert sum(consumed) < 20 * BLOCK_BYTES, "read on far beyond the limit"
            return b"x" * size

    path = written(tmp_path, b"x")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pair_pkg.data.files._open_bytes", lambda _: Endless())
        assert ":1: line is longer" in refusal(read_lines, path, max_line_bytes=5 * BLOCK_BYTES)


def test_gzip_is_known_by_its_magic(tmp_path):
    assert lines_of(written(tmp_path, gzip.compress(b"a\nb\n"), "a.txt")) == ["a", "b"]
    two_members = gzip.compress(b"a\n") + gzip.compress(b"b\n")
    assert lines_of(written(tmp_path, two_members, "a.txt.gz")) == ["a", "b"]
    path = written(tmp_path, b"a\nb\n", "plain.txt.gz")
    assert refusal(read_lines, path).startswith(f"{path}: is named .gz but is not gzip")


def test_broken_gzip_names_the_file(tmp_path):
    noise = random.Random(0).randbytes(100_000).hex().encode()
    packed = gzip.compress(noise)
    flipped = packed[:500] + bytes([packed[500] ^ 0xFF]) + packed[501:]
    for content in (packed[: len(packed) // 2], packed[:-6], flipped, packed + b"tail"):
        path = written(tmp_path, content, "a.txt.gz")
        assert refusal(read_lines, path).startswith(f"{path}: broken or cut-off gzip")


def other_formats():
    packed, archive = io.BytesIO(), io.BytesIO()
    with zipfile.ZipFile(packed, "w") as file:
        file.writestr("a.txt", "text")
    with tarfile.open(fileobj=archive, mode="w") as file:
        file.addfile(tarfile.TarInfo("a.txt"))
    return {
        "zip": packed.getvalue(),
        "tar": archive.getvalue(),
        "parquet": b"PAR1" + bytes(20) + b"PAR1",
        "PDF": b"%PDF-1.7\n%\xe2\xe3",
        "gzip inside": gzip.compress(b"text"),
        "HTML": b"\xef\xbb\xbf \n<!DOCTYPE html>\n<html><body>404</body></html>",
        "LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "binary": random.Random(0).randbytes(5000),
    }


@pytest.mark.parametrize("kind", other_formats())
@pytest.mark.parametrize("packed", [False, True])
def test_other_formats_under_a_text_name_are_named(tmp_path, kind, packed):
    content = other_formats()[kind]
    if kind == "gzip inside" or packed:
        content = gzip.compress(content)
    path = written(tmp_path, content)
    message = refusal(read_lines, path)
    assert message.startswith(f"{path}: ") and kind in message
    if kind != "binary":
        assert kind in refusal(read_lines, path, "utf-8"), "also where the encoding is given"


def test_unknown_encoding_is_refused(tmp_path):
    path = written(tmp_path, b"x\n")
    for name in ("utf-9", "hex"):
        assert f"--encoding {name}: unknown encoding" in refusal(read_lines, path, name)


def test_given_utf16_follows_the_mark(tmp_path):
    for codec in ("utf-16-le", "utf-16-be"):
        path = written(tmp_path, ("\ufeff" + CHINESE).encode(codec))
        assert lines_of(path, encoding="utf-16") == CHINESE.splitlines()


def test_messages_hold_no_traceback_of_long_bytes(tmp_path):
    message = refusal(read_lines, written(tmp_path, b"ab\xff" + b"x" * 100_000), "utf-8")
    assert len(re.sub(r"^\S+: ", "", message)) < 200
