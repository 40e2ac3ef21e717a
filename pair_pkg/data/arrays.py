"""Arrays in files: mapped for reading, and written so that a full disk is an ``OSError`` with its number.

Who writes through a mapped file into a part that has no room yet, as those are that numpy makes, is killed (SIGBUS). So
room is taken by zeros first, which file systems that compress or copy on write need not keep.
"""

import mmap
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

ZEROS = memoryview(bytes(1 << 20))


class MappedArray(np.memmap):
    """A whole file of numbers; another process that is sent it maps the file too, where numpy would send a copy."""

    def __reduce__(self) -> Any:
        is_whole = isinstance(self.base, mmap.mmap) and self.ndim == 1
        return (map_array, (Path(str(self.filename)), self.dtype)) if is_whole else super().__reduce__()


def map_array(path: Path, dtype: np.dtype) -> np.ndarray:
    """The numbers of a file, (N,), mapped and not read."""
    return MappedArray(path, dtype, "r") if path.stat().st_size else np.empty(0, dtype)


def find_wrong_size(folder: Path, num_bytes: Mapping[str, int]) -> str | None:
    """Which file of a folder is not as long as it should be, in words; ``OSError`` where one cannot be read."""
    for name, expected in num_bytes.items():
        size = (folder / name).stat().st_size
        if size != expected:
            return f"{name} has {size:,} bytes in place of {expected:,}"
    return None


def append(file: IO[bytes], values: np.ndarray) -> None:
    """Write an array's bytes; ``ndarray.tofile`` would tell of a full disk without the number of the error."""
    file.write(np.ascontiguousarray(values).data)


def append_zeros(file: IO[bytes], num_bytes: int) -> None:
    """Write so many bytes of zero, so that there is room for what is written over them."""
    while num_bytes > 0:
        num_bytes -= file.write(ZEROS[:num_bytes])
    file.flush()


def write_npy_head(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """Begin an npy file whose numbers are still to be written."""
    np.lib.format.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def create_npy(path: Path, dtype: np.dtype, shape: tuple[int, ...]) -> np.memmap:
    """An npy file of zeros, mapped for writing."""
    with open(path, "wb") as file:
        write_npy_head(file, dtype, shape)
        append_zeros(file, dtype.itemsize * int(np.prod(shape)))
    return np.lib.format.open_memmap(path, mode="r+")
