"""Whether bfloat16 pays on this machine, and the choice for a run."""

import logging
import os
import platform
from pathlib import Path

import torch

from pair_pkg.errors import InputError

logger = logging.getLogger("pair_pkg")

CPUINFO_PATH = Path("/proc/cpuinfo")
BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
FLOAT16_FLAGS = {"avx512_fp16", "amx_fp16"}
INT8_FLAGS = {"avx512_vnni", "avx_vnni", "amx_int8"}
COMPUTE_DTYPES = {
    "float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16, "int8": torch.int8
}  # fmt: skip


def choose_precision(bf16: bool | None, fp16: bool, use_cpu: bool) -> bool:
    """Whether to train in bfloat16. An explicit ``bf16`` is obeyed; None means where the hardware multiplies in it.

    ``fp16`` and a precision set by ``accelerate launch`` (``ACCELERATE_MIXED_PRECISION``) take the place of the choice.
    """
    device_type = _device_type(use_cpu)
    supported = supports_bfloat16(device_type)
    launcher = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if bf16 and not supported:
        logger.warning("precision: bfloat16 as asked, but this %s is not known to multiply in it", device_type)
    elif bf16 is not None:
        logger.info("precision: %s as asked", "bfloat16" if bf16 else "no bfloat16")
    elif fp16:
        logger.info("precision: float16 as asked")
    elif launcher != "no":
        logger.info("precision: %s as the launcher asks", launcher)
    elif supported:
        logger.info("precision: bfloat16, because this %s multiplies in it", device_type)
        return True
    else:
        logger.info("precision: float32, because this %s is not known to multiply in bfloat16", device_type)
    return bool(bf16)


def compute_dtype(name: str, device_type: str) -> torch.dtype:
    """The type to multiply in, with a warning where this device is not known to gain from it.

    Raises ``InputError`` for an unknown name, and for int8 on anything but a processor.
    """
    if name not in COMPUTE_DTYPES:
        raise InputError(f"dtype {name}: unknown; give one of {', '.join(COMPUTE_DTYPES)}")
    if name == "int8" and device_type != "cpu":
        raise InputError(f"int8 on {device_type}: is for processors; give bfloat16, or the device cpu")
    known = {
        "float32": True,
        "bfloat16": supports_bfloat16(device_type),
        "float16": device_type == "cuda" or device_type == "cpu" and not FLOAT16_FLAGS.isdisjoint(processor_flags()),
        "int8": not INT8_FLAGS.isdisjoint(processor_flags()),
    }
    if not known[name]:
        logger.warning(
            "precision: %s as asked, but this %s is not known to multiply in it, and may be far slower than in float32",
            name, device_type,
        )  # fmt: skip
    return COMPUTE_DTYPES[name]


def supports_bfloat16(device_type: str) -> bool:
    """Whether the hardware itself multiplies in bfloat16; emulation, up to 100 times
    slower than float32, does not count.

    Known for "cuda" and for "cpu" on Linux (the processor's flags), False elsewhere.
    """
    if device_type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device_type == "cpu":
        return not BFLOAT16_FLAGS.isdisjoint(processor_flags())
    return False


def dead_rows(count: int, device: torch.device, dtype: torch.dtype = torch.float32) -> int:
    """Rows of zeros to add to ``count`` rows before their products, so that these come in few shapes.

    In bfloat16 on a CPU oneDNN compiles a kernel for every shape that it has not met: 1 to 5 ms for each product of
    a small encoder, forward and backward, and memory that grows (Intel server with AMX, 2026-11-24). Flat batches
    have another number of rows at nearly every step. Elsewhere 0. ``dtype`` is that of the rows, outside of autocast.

    >>> [dead_rows(count, torch.device("cpu")) for count in (4087, 607)]
    [0, 0]
    >>> with torch.autocast("cpu", torch.bfloat16):
    ...     [dead_rows(count, torch.device("cpu")) for count in (4087, 607, 17, 0)]
    [9, 1, 7, 0]
    """
    if device.type != "cpu" or not (dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")):
        return 0
    largest_power = 1 << (count // 16).bit_length() >> 1  # not above a sixteenth, so that little is added
    return -count % min(64, max(8, largest_power))


def multiplies_tiles() -> bool:
    """Whether the processor has a unit for tiles of bfloat16 (Intel's AMX): products cost little, all else counts."""
    return "amx_bf16" in processor_flags()


def _device_type(use_cpu: bool) -> str:
    accelerator = None if use_cpu else torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


# torch.cpu.get_capabilities says the same, but only in newer releases than the oldest torch we run on (2.10).
def processor_flags() -> list[str]:
    """What the processor can do, in the kernel's words; empty elsewhere than on Linux."""
    return (_cpuinfo("flags") or "").split()


def processor_name() -> str:
    """The processor's name, or its architecture where it has none."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(name: str) -> str | None:
    """The first value of a name in the kernel's account of the processors."""
    if not CPUINFO_PATH.is_file():
        return None
    for line in CPUINFO_PATH.read_text(encoding="utf-8").splitlines():
        if line.partition(":")[0].strip() == name:
            return line.partition(":")[2].strip()
    return None
