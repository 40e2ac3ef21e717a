"""What the first bytes of a file are: text of which encoding, or another format under a text's name."""

import codecs
import os

from charset_normalizer import CharsetMatches, from_bytes

from pair_pkg.errors import InputError

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
    "\ufeff".encode("gb18030"): "gb18030",
}
UNPACK = "unpack it first"
OTHER_FORMATS = (  # (offset, signature, what it is, cure), from the formats' own specifications
    (0, b"PK\x03\x04", "a zip archive or an Office document", UNPACK),
    (257, b"ustar", "a tar archive", UNPACK),
    (0, b"\x1f\x8b", "gzip inside gzip", UNPACK),
    (0, b"BZh", "a bzip2 archive", UNPACK),
    (0, b"\xfd7zXZ\0", "an xz archive", UNPACK),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", UNPACK),
    (0, b"\x28\xb5\x2f\xfd", "a zstd archive", UNPACK),
    (0, b"PAR1", "a parquet file", "name it .parquet"),
    (0, b"ARROW1", "an Arrow file", "convert it to parquet or jsonl"),
    (0, b"%PDF-", "a PDF document", "extract its text first"),
    (0, b"\xd0\xcf\x11\xe0", "an old Office document", "export it as csv or text"),
    (0, b"version https://git-lfs", "a Git LFS pointer", "fetch the content with git lfs pull"),
)
HTML_STARTS = (b"<!doctype html", b"<html")
NUL_FRACTION = 0.1  # UTF-16 of Latin text is half NUL; a stray NUL in UTF-8 is far below
CLOSE_CHAOS = 0.05  # two readings of the bytes nearer than this in charset-normalizer's measure are a tie
COMMON_FRACTION = 0.1  # real Chinese has 0.2 to 0.5 of its characters among these, another script read as GBK 0.03
COMMON_CHINESE = frozenset(
    "的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过后作里用道行所然家事成方多"
    "经么去法学如都同现没动面起看定天分还进好小心前开但因只从想实请问什怎吗呢吧很新点日本长最高被给"
)


def guess_encoding(sample: bytes, path: str | os.PathLike) -> str:
    """The encoding of a file that starts with ``sample``: ``utf-8``, ``utf-16-le``, ``utf-16-be`` or ``gb18030``.

    UTF-8 is tried first. Other encodings are named in the refusal, not assumed: single-byte encodings cannot be
    told apart by their bytes. Raises ``InputError`` where the sample is ambiguous or no text.
    """
    refuse_other_formats(sample, path)
    for mark, encoding in BYTE_ORDER_MARKS.items():
        if sample.startswith(mark):
            return encoding
    bad = _first_bad_byte(sample)
    looks_utf16 = sample.count(0) > NUL_FRACTION * len(sample)
    if not looks_utf16 and (bad is None or _mostly_utf8(sample)):
        return "utf-8"  # the reader names the place of the odd NUL or damaged character
    matches = from_bytes(_whole_characters(sample))
    encoding = _settle(matches)
    if encoding is None or (looks_utf16 and not encoding.startswith("utf-16")):
        _refuse_sample(matches, sample, bad, path)
    return encoding


def refuse_other_formats(sample: bytes, path: str | os.PathLike) -> None:
    """Raise ``InputError`` where the first bytes are those of an archive, a binary format or a web page."""
    for offset, signature, what, cure in OTHER_FORMATS:
        if sample.startswith(signature, offset):
            raise InputError(f"{path}: is {what}, not plain text; {cure}")
    if sample.removeprefix(codecs.BOM_UTF8).lstrip()[:20].lower().startswith(HTML_STARTS):
        raise InputError(f"{path}: is a web page (HTML), not plain text; fetch the file itself, or extract its text")


def _first_bad_byte(sample: bytes) -> int | None:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)  # a character cut off at the end is no error
    except UnicodeDecodeError as error:
        return error.start
    return None


def _mostly_utf8(sample: bytes) -> bool:
    """Whether the bytes beyond ASCII are UTF-8 but for a few: damage, not another encoding."""
    text = sample.decode("utf-8", errors="replace")
    damaged = text.count("\ufffd")
    return damaged * 10 <= sum(not char.isascii() for char in text) - damaged


def _whole_characters(sample: bytes) -> bytes:
    """End the sample where no character is cut: at a line end, or UTF-16 (its line ends hold a NUL) at an even byte."""
    if 0 in sample:
        return sample[: len(sample) // 2 * 2]
    return sample[: sample.rfind(b"\n") + 1] or sample


def _settle(matches: CharsetMatches) -> str | None:
    """The one encoding that fits clearly best, if it is one of those that this reader trusts a guess of."""
    best = matches.best()
    if best is None:
        return None
    close = [match for match in matches if match.chaos <= best.chaos + CLOSE_CHAOS]
    if len(close) == 1 and best.encoding in ("utf_16_le", "utf_16_be", "gb18030"):
        return best.encoding.replace("_", "-")
    chinese = next((str(match) for match in close if match.encoding == "gb18030"), "")
    beyond_ascii = [char for char in chinese if not char.isascii()]
    common = sum(char in COMMON_CHINESE for char in beyond_ascii)
    return "gb18030" if common > COMMON_FRACTION * len(beyond_ascii) else None


def _refuse_sample(matches: CharsetMatches, sample: bytes, bad: int | None, path: str | os.PathLike) -> None:
    if sample.count(0) or not matches:
        raise InputError(f"{path}: looks like binary data, not text; name a text file, or give --encoding if it is one")
    lines = sample[:bad].replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    likely = ", ".join(dict.fromkeys(match.encoding for match in list(matches)[:4]))
    raise InputError(
        f"{path}:{len(lines)}:{len(lines[-1]) + 1}: not UTF-8, and the encoding is not certain (perhaps {likely}); "
        "give --encoding or convert the file to UTF-8"
    )
