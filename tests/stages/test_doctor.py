"""The doctor tells what is here, what would be chosen, and mends only what is ill."""

import os
from collections import namedtuple
from importlib import metadata

import pytest
import torch

from pair_pkg.modeling import precision
from pair_pkg.stages import doctor

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def processor(monkeypatch, tmp_path):
    def write(flags):
        path = tmp_path / "cpuinfo"
        path.write_text(f"model name\t: Test Chip 9000\nflags\t\t: fpu {flags}\n")
        monkeypatch.setattr(precision, "CPUINFO_PATH", path)

    return write


def test_it_prints_versions_hardware_disk_choices_and_advice(processor, tmp_path, capsys):
    processor("avx2 avx512_bf16")
    found = doctor.main(["--output_dir", str(tmp_path / "not yet there")])
    printed = capsys.readouterr().out
    assert found["facts"]["torch"] == torch.__version__ and torch.__version__ in printed
    assert found["facts"]["processor"] == "Test Chip 9000"
    assert found["facts"]["features"] == "avx2 avx512_bf16"
    assert str(tmp_path / "not yet there") in printed and "GiB" in printed
    assert "advice: " in printed and not (tmp_path / "not yet there").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="the choice of a processor")
def test_the_choices_follow_the_processor(processor):
    processor("avx2")
    assert doctor.choices()["precision"] == "float32"
    assert doctor.choices()["attention"] == "fused kernel over groups of a length"
    processor("avx2 avx512_bf16")
    assert doctor.choices()["precision"].startswith("bfloat16")
    assert "plain products up to" in doctor.choices()["attention"]


def test_advice_on_threads_disk_memory_and_permissions(monkeypatch, tmp_path):
    access = os.access
    monkeypatch.setattr(doctor, "num_cores", lambda: 64)
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**30))
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)
    lines = "\n".join(doctor.advice(str(tmp_path)))
    assert "of 64 cores; set OMP_NUM_THREADS=64" in lines or torch.cuda.is_available()
    assert "output has 1.0 GiB free" in lines and "models has 1.0 GiB free" in lines
    assert "may not be written" in lines
    monkeypatch.setattr(doctor, "num_cores", lambda: torch.get_num_threads())
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: Usage(2**40, 0, 2**39))
    monkeypatch.setattr(doctor.os, "access", access)
    lines = "\n".join(doctor.advice(str(tmp_path)))
    assert "cores" not in lines and "free" not in lines and "written" not in lines


def test_versions_that_do_not_serve_are_named_with_their_cure(monkeypatch):
    monkeypatch.setattr(metadata, "requires", lambda name: ["torch >= 999", "no-such-package-here >= 1", "numpy >= 1"])
    lines = list(doctor._version_advice())
    assert lines == [
        f"torch {metadata.version('torch')}; needed: pip install 'torch>=999'",
        "no-such-package-here is absent; needed: pip install 'no-such-package-here>=1'",
    ]
