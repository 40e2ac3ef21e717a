import logging

import pytest
import torch

from pair_pkg.errors import InputError
from pair_pkg.modeling import precision
from pair_pkg.modeling.precision import choose_precision, compute_dtype, supports_bfloat16


@pytest.fixture(autouse=True)
def _no_launcher(monkeypatch):
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


@pytest.fixture
def processor(tmp_path, monkeypatch):
    def with_flags(flags):
        path = tmp_path / "cpuinfo"
        path.write_text(f"processor\t: 0\nmodel name\t: amx_bf16 in a name does not count\nflags\t\t: {flags}\n")
        monkeypatch.setattr(precision, "CPUINFO_PATH", path)

    return with_flags


@pytest.mark.parametrize(
    ("flags", "supported"),
    [
        ("fpu avx2 avx512_bf16", True),
        ("fpu amx_bf16 amx_tile", True),
        ("fpu avx2 avx512f avx512_bf16_like", False),
        ("", False),
    ],
)
def test_processor_flags_decide_on_a_cpu(processor, flags, supported):
    processor(flags)
    assert supports_bfloat16("cpu") is supported


def test_unknown_processor_and_other_devices_have_none(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPUINFO_PATH", tmp_path / "absent")
    assert not supports_bfloat16("cpu")
    assert not supports_bfloat16("mps")


def test_cuda_is_asked_without_emulation(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation)
    assert not supports_bfloat16("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert supports_bfloat16("cuda")


@pytest.mark.parametrize(
    ("bf16", "fp16", "flags", "chosen"),
    [
        (None, False, "avx512_bf16", True),
        (None, False, "avx2", False),
        (None, True, "avx512_bf16", False),
        (False, False, "avx512_bf16", False),
        (True, False, "avx2", True),
    ],
)
def test_choice(processor, bf16, fp16, flags, chosen):
    processor(flags)
    assert choose_precision(bf16, fp16, use_cpu=True) is chosen


def test_an_accelerator_is_asked_unless_the_cpu_was_wished(processor, monkeypatch):
    processor("avx2")
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation=True: True)
    assert choose_precision(None, False, use_cpu=False) is True
    assert choose_precision(None, False, use_cpu=True) is False


def test_the_launchers_precision_is_left_alone(processor, monkeypatch):
    processor("avx512_bf16")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    assert choose_precision(None, False, use_cpu=True) is False
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "no")
    assert choose_precision(None, False, use_cpu=True) is True


def test_one_line_says_what_and_why(processor, caplog):
    caplog.set_level(logging.INFO, logger="pair_pkg")
    processor("avx2")
    choose_precision(True, False, use_cpu=True)
    choose_precision(None, False, use_cpu=True)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "precision: bfloat16 as asked, but this cpu is not known to multiply in it"),
        ("INFO", "precision: float32, because this cpu is not known to multiply in bfloat16"),
    ]


@pytest.mark.parametrize(("flags", "warned"), [("fpu avx2 avx512_vnni", False), ("fpu avx2", True)])
def test_int8_is_for_processors_and_a_warning_says_where_it_may_not_pay(processor, flags, warned, caplog):
    processor(flags)
    with caplog.at_level(logging.WARNING, logger="pair_pkg"):
        assert compute_dtype("int8", "cpu") == torch.int8
    assert ("int8 as asked, but this cpu is not known to multiply in it" in caplog.text) is warned
    with pytest.raises(InputError, match="int8 on cuda: is for processors; give bfloat16, or the device cpu"):
        compute_dtype("int8", "cuda")
