"""From what a user names to numbered lines of text: paths, compression, encodings, line ends."""

import codecs
import glob
import gzip
import io
import os
import re
import stat
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

from pair_pkg.data.encodings import guess_encoding, refuse_other_formats
from pair_pkg.errors import InputError

MAX_LINE_BYTES = 64 << 20  # a longer line is a file without line ends, not a document
BLOCK_BYTES = 1 << 20  # bytes decoded at once: large enough for speed, small enough for flat memory
SAMPLE_BYTES = 1 << 18  # bytes that the encoding is detected from
GZIP_MAGIC = b"\x1f\x8b"
# Codecs that Python has and no text file is written in: they write one character in several ways, or half a character.
NOT_OF_FILES = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7"}
LINE_END = re.compile(r"\r\n?|\n")


def expand_paths(patterns: Sequence[str], suffixes: Sequence[str]) -> list[Path]:
    """Files behind patterns: a file or glob as it is, a folder by its files with these suffixes (``.gz`` too).

    Sorted, each file once even when it is reached twice. Hidden files of a folder are passed over. Raises
    ``InputError`` where a pattern finds nothing, or finds a file that is broken, empty or not a regular file.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        for path in _expand_pattern(pattern, tuple(suffixes)):
            check_file(path)
            found.setdefault(path.resolve(), path)
    return sorted(found.values())


def check_file(path: str | os.PathLike) -> None:
    """Raise ``InputError`` unless ``path`` is a regular, readable file that holds at least one byte."""
    path = Path(path)
    if path.is_symlink() and not path.exists():
        raise InputError(f"{path}: a link to {os.readlink(path)}, which does not exist; restore the target")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the spelling and the working directory")
    status = path.stat()
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{path}: is a folder, a file is needed; name the file")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(f"{path}: is a pipe, socket or device, not a regular file; write its content to a file first")
    if not os.access(path, os.R_OK):
        raise InputError(f"{path}: may not be read; change its permissions (chmod +r)")
    if status.st_size == 0:
        raise InputError(f"{path}: is empty (0 bytes); remove it or fetch it again")


def read_lines(
    path: str | os.PathLike, encoding: str | None = None, max_line_bytes: int = MAX_LINE_BYTES
) -> Iterator[tuple[int, str]]:
    """Numbered lines, from 1, without their ends (LF, CRLF or CR; never U+2028), in flat memory.

    A byte order mark is removed, gzip is unpacked. Without ``encoding`` it is detected. Raises ``InputError`` with
    ``path:line`` at a NUL or at a line above ``max_line_bytes`` (counted in UTF-8), with ``path:line:byte`` (from 1)
    at bytes that are not of the encoding.
    """
    for number, text in _whole_lines(path, encoding, max_line_bytes, translate=True):
        yield from enumerate(text.removesuffix("\n").split("\n"), start=number)


def read_raw_lines(path: str | os.PathLike, encoding: str | None = None) -> Iterator[str]:
    """The lines of :func:`read_lines` with their ends as they stand in the file, for a reader of quoted fields."""
    for _, text in _whole_lines(path, encoding, MAX_LINE_BYTES, translate=False):
        yield from io.StringIO(text, newline="")


def detect_encoding(path: str | os.PathLike) -> str:
    """The encoding of a text file from its first bytes: ``utf-8``, ``utf-16-le``, ``utf-16-be`` or ``gb18030``.

    Raises ``InputError`` where the sample fits several encodings, or is no text.
    """
    return guess_encoding(next(_read_blocks(path, SAMPLE_BYTES), b""), path)


def _expand_pattern(pattern: str, suffixes: tuple[str, ...]) -> list[Path]:
    path = Path(pattern)
    if path.is_dir():
        return _search_folder(path, suffixes)
    if os.path.lexists(path):
        return [path]
    hits = [Path(hit) for hit in glob.glob(pattern, recursive=True)]
    folders = [hit for hit in hits if hit.is_dir()]
    files = [hit for hit in hits if not hit.is_dir()]
    if not files and folders:
        return [file for folder in folders for file in _search_folder(folder, suffixes)]
    if not files:
        what = "no file matches" if glob.has_magic(pattern) else "no such file or folder"
        raise InputError(f"{pattern}: {what}; check the spelling and the working directory")
    return files


def _search_folder(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    wanted = tuple(f"{suffix}{packed}" for suffix in suffixes for packed in ("", ".gz"))
    files = sorted(_walk(folder))
    hits = [path for path in files if path.name.lower().endswith(wanted)]
    if not hits:
        others = Counter(path.suffix or "no suffix" for path in files)
        there = ", ".join(f"{count} of {suffix}" for suffix, count in others.most_common(5)) or "no files"
        raise InputError(f"{folder}: no file of {', '.join(suffixes)} here (there is {there}); name the files")
    return hits


def _walk(folder: Path) -> Iterator[Path]:
    """Files below ``folder`` through linked folders too, each folder once, so that a circle of links ends."""
    seen = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _whole_lines(
    path: str | os.PathLike, encoding: str | None, max_line_bytes: int, translate: bool
) -> Iterator[tuple[int, str]]:
    """Texts made of whole lines, each with the number of its first line; only the last may lack a line end."""
    encoding = _text_codec(encoding, path)
    newlines = io.IncrementalNewlineDecoder(None, translate)
    number, held_bytes = 1, 0
    held: list[str] = []  # the pieces of a line that goes on in the next block
    # Blocks no longer than a line may be: then only a line that spans blocks can be too long.
    for text, bad_byte in _decode_blocks(path, encoding, min(BLOCK_BYTES, max_line_bytes)):
        text = newlines.decode(text, final=bad_byte is not None)
        if "\0" in text:
            line = number + _count_ends(text[: text.index("\0")])
            raise InputError(f"{path}:{line}: a NUL character, so this is not plain text; remove it or give --encoding")
        end = LINE_END.search(text)
        held_bytes += len((text[: end.start()] if end else text).encode())
        if held_bytes > max_line_bytes:
            raise InputError(f"{path}:{number}: line is longer than {max_line_bytes:,} bytes; break it into lines")
        if end:
            cut = max(text.rfind("\n"), text.rfind("\r")) + 1
            yield number, "".join([*held, text[:cut]])
            number += _count_ends(text)
            text = text[cut:]
            held, held_bytes = [], len(text.encode())
        held.append(text)
        if bad_byte is not None:
            _refuse_bytes(f"{path}:{number}:{len(''.join(held).encode(encoding)) + 1}", bad_byte, encoding)
    rest = "".join(held) + newlines.decode("", final=True)
    if rest:
        yield number, rest


def _count_ends(text: str) -> int:
    ends = text.count("\n")
    return ends + text.count("\r") - text.count("\r\n") if "\r" in text else ends


def _refuse_bytes(place: str, bad_byte: int, encoding: str) -> None:
    raise InputError(f"{place}: byte 0x{bad_byte:02X} is not {encoding}; mend the line or give the right --encoding")


def _decode_blocks(path: str | os.PathLike, encoding: str, block_bytes: int) -> Iterator[tuple[str, int | None]]:
    """Decoded blocks, each with None; at bytes that do not decode, the text before, the first of them, and the end."""
    decoder = codecs.getincrementaldecoder(encoding)()
    at_start = True
    try:
        for block in _read_blocks(path, block_bytes):
            text = decoder.decode(block)
            yield (text.removeprefix("\ufeff") if at_start else text), None
            at_start = at_start and not text
        yield decoder.decode(b"", final=True), None
    except UnicodeDecodeError as error:
        before = error.object[: error.start].decode(encoding)
        yield (before.removeprefix("\ufeff") if at_start else before), error.object[error.start]


def _text_codec(encoding: str | None, path: str | os.PathLike) -> str:
    """A codec without a byte order mark of its own; the mark is removed from the text, and tells UTF-16's order."""
    start = next(_read_blocks(path, SAMPLE_BYTES), b"")
    if encoding is None:
        return guess_encoding(start, path)
    refuse_other_formats(start, path)
    try:
        name = codecs.lookup(encoding).name
        if name.replace("_", "-") in NOT_OF_FILES:
            raise LookupError
        "x".encode(encoding)  # refuses codecs that are not of text, such as hex
    except (LookupError, ValueError) as error:
        raise InputError(f"--encoding {encoding}: unknown encoding; use utf-8, utf-16, gb18030 or another") from error
    if name in ("utf-16", "utf-32"):
        big_endian = start.startswith((codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
        return f"{name}-be" if big_endian else f"{name}-le"
    return "utf-8" if name == "utf-8-sig" else name


def _read_blocks(path: str | os.PathLike, block_bytes: int) -> Iterator[bytes]:
    """Blocks of a file's content, unpacked where it is gzip. Raises ``InputError`` where it cannot be read."""
    check_file(path)
    try:
        with _open_bytes(path) as file:
            while block := file.read(block_bytes):
                yield block
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: broken or cut-off gzip ({error}); fetch the file again") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the disk and the permissions") from error


def _open_bytes(path: str | os.PathLike) -> BinaryIO:
    file = open(path, "rb")  # noqa: SIM115 - the caller closes it
    start = file.peek(len(GZIP_MAGIC))
    if start.startswith(GZIP_MAGIC):
        file.close()
        return cast(BinaryIO, gzip.open(path, "rb"))
    if str(path).lower().endswith(".gz"):
        file.close()
        raise InputError(f"{path}: is named .gz but is not gzip; rename it or fetch it again")
    return file
