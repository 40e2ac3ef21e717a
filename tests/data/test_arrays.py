"""Arrays in files: the bytes of numpy's own, and a full disk is an error with its number."""

import errno
import io
import os
import pickle

import numpy as np
import pytest

from pair_pkg.data.arrays import append, append_zeros, create_npy, map_array, write_npy_head


def test_arrays_are_appended():
    file = io.BytesIO()
    write_npy_head(file, np.dtype(np.int64), (5,))
    for part in (np.arange(6)[::2], np.empty(0, np.int64), np.array([7, 9])):
        append(file, part)
    file.seek(0)
    assert np.load(file).tolist() == [0, 2, 4, 7, 9]


@pytest.mark.parametrize("shape", [(3, 5), (700_000,), (0, 4)])
def test_a_created_file_is_zeros(tmp_path, shape):
    values = create_npy(tmp_path / "a.npy", np.dtype(np.float32), shape)
    assert values.shape == shape and not values.any()
    values[...] = 2
    values.flush()
    assert (np.load(tmp_path / "a.npy") == 2).all()


def test_a_mapped_file_is_sent_by_its_name_and_a_part_of_it_by_its_numbers(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(np.arange(50_000).tobytes())
    mapped = map_array(path, np.dtype(np.int64))
    assert len(pickle.dumps(mapped)) < 1_000
    for values in (mapped, mapped[3:], mapped[np.array([4, 2])], mapped.reshape(2, -1), mapped[:0]):
        sent = pickle.loads(pickle.dumps(values))
        assert sent.shape == values.shape and (sent == values).all()
    path.write_bytes(b"")
    assert map_array(path, np.dtype(np.int64)).tolist() == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full, which Linux has")
@pytest.mark.parametrize("write", [lambda file: append(file, np.zeros(1 << 20)), lambda file: append_zeros(file, 9)])
def test_a_full_disk_has_its_number(write):
    with open("/dev/full", "wb", buffering=0) as full, pytest.raises(OSError) as error:
        write(full)
    assert error.value.errno == errno.ENOSPC
