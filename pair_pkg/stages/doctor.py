"""``python -m pair_pkg doctor``: what this machine has, what a run would choose on it, and what to mend."""

import importlib.metadata
import os
import platform
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch
from huggingface_hub.constants import HF_HOME
from packaging.requirements import Requirement

from pair_pkg import __version__
from pair_pkg.data.word_processes import num_cores
from pair_pkg.modeling.attention import MAX_EXPLICIT_WIDTH, varlen_attn
from pair_pkg.modeling.precision import processor_flags, processor_name, supports_bfloat16
from pair_pkg.records import library_versions
from pair_pkg.report.tables import format_table
from pair_pkg.stages.terminal import CommandParser, announce

DISTRIBUTION = "pair-pkg"
SHOWN_FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimd", "bf16", "sve")
OPTIONAL = {  # package -> what it serves
    "onnx": "export to ONNX",
    "onnxscript": "export to ONNX",
    "onnxruntime": "export to ONNX, proven",
    "torchao": "int8 exports",
    "openvino": "benchmarks",
    "tensorboard": "--report_to tensorboard",
    "gradio": "serve",
    "hf_xet": "fast downloads and uploads of large files",
}
LOW_DISK = 5 * 2**30  # bytes: two checkpoints of a base-sized encoder with its optimizer, and a corpus of some GB
LOW_MEMORY = 4 * 2**30  # bytes: a base-sized encoder, its optimizer and activations


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Print what was found, what would be chosen, and advice; returns all three."""
    options = build_parser().parse_args(argv)
    facts = {**_software(), **_hardware(), **_disks(options.output_dir)}
    found: dict[str, Any] = {"facts": facts, "choices": choices(), "advice": list(advice(options.output_dir))}
    announce(format_table(["found", ""], list(facts.items())), "")
    announce(format_table(["would be chosen", ""], list(found["choices"].items())), "")
    announce(*(f"advice: {line}" for line in found["advice"] or ["none; all is well"]))
    return found


def build_parser() -> CommandParser:
    """The command's flags."""
    parser = CommandParser(prog="pair_pkg doctor", description="This machine, what would be chosen on it, and advice.")
    parser.add_argument("--output_dir", default=".", help="where runs would be written (default: here)")
    return parser


def choices() -> dict[str, str]:
    """What a run without flags would take here."""
    device = _device()
    half = supports_bfloat16(device)
    return {
        "device": "one GPU a process" if device == "cuda" else device,
        "precision": "bfloat16 (--bf16 false for float32)" if half else "float32",
        "attention": _attention(device, half),
    }


def advice(output_dir: str) -> Iterator[str]:
    """What would make runs here faster or safer, a line each."""
    yield from _version_advice()
    cores, threads = num_cores(), torch.get_num_threads()
    if _device() == "cpu" and threads < cores:
        yield f"torch computes with {threads} of {cores} cores; set OMP_NUM_THREADS={cores}, or leave it unset"
    if threads > cores:
        yield f"torch computes with {threads} threads on {cores} cores; set OMP_NUM_THREADS={cores}"
    if _has_nvidia_driver() and not torch.cuda.is_available():
        built = "is built without CUDA" if torch.version.cuda is None else "does not reach it: look at the driver"
        yield f"an NVIDIA GPU is here and torch {torch.__version__} {built}; install a build for CUDA (pytorch.org)"
    if torch.cuda.device_count() > 1:
        yield f"{torch.cuda.device_count()} GPUs: start the stages by `accelerate launch`, which uses them all"
    for name, path in _places(output_dir).items():
        free = shutil.disk_usage(_nearest(path)).free
        if free < LOW_DISK:
            yield f"{name} has {_gib(free)} free ({path}); checkpoints with their optimizer are three times the weights"
    if not os.access(_nearest(Path(output_dir)), os.W_OK):
        yield f"{output_dir} may not be written; give another --output_dir"
    if psutil.virtual_memory().available < LOW_MEMORY:
        yield f"{_gib(psutil.virtual_memory().available)} of memory are available; lower --per_device_train_batch_size"


def _software() -> dict[str, str]:
    versions = {"pair_pkg": __version__, "Python": platform.python_version(), **library_versions()}
    optional = {name: version for name in OPTIONAL if (version := _version(name))}
    absent = [f"{name} ({serves})" for name, serves in OPTIONAL.items() if name not in optional]
    return versions | optional | ({"not installed": ", ".join(absent)} if absent else {})


def _hardware() -> dict[str, str]:
    memory = psutil.virtual_memory()
    found = {
        "system": platform.platform(terse=True),
        "processor": processor_name(),
        "features": " ".join(flag for flag in SHOWN_FLAGS if flag in processor_flags()) or "not told by this system",
        "cores, threads of torch": f"{num_cores()}, {torch.get_num_threads()}",
        "memory": f"{_gib(memory.total)}, {_gib(memory.available)} available",
    }
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        capability = f"{properties.major}.{properties.minor}"
        found[f"GPU {number}"] = f"{properties.name}, {_gib(properties.total_memory)}, compute {capability}"
    if not torch.cuda.device_count():
        found["GPU"] = "none that torch can use"
    return found


def _disks(output_dir: str) -> dict[str, str]:
    disks = {}
    for name, path in _places(output_dir).items():
        disks[f"free disk, {name}"] = f"{_gib(shutil.disk_usage(_nearest(path)).free)} at {path}"
    return disks


def _places(output_dir: str) -> dict[str, Path]:
    return {"output": Path(output_dir).absolute(), "models": Path(HF_HOME)}


def _attention(device: str, half: bool) -> str:
    """The way of a padding-free batch; architectures that we do not know keep the library's own."""
    if device == "cuda":
        return "variable-length kernel" if half and varlen_attn is not None else "fused kernel over groups of a length"
    if half:
        return f"plain products up to {MAX_EXPLICIT_WIDTH} tokens, the fused kernel beyond"
    return "fused kernel over groups of a length"


def _version_advice() -> Iterator[str]:
    """Required packages that are absent or of another version than this package asks for."""
    try:
        required = importlib.metadata.requires(DISTRIBUTION) or []
    except importlib.metadata.PackageNotFoundError:
        yield "pair_pkg is used from its folder; `pip install -c constraints.txt -e .` checks the versions it needs"
        return
    for requirement in map(Requirement, required):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = _version(requirement.name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version or 'is absent'}; needed: pip install '{requirement}'"


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _device() -> str:
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return accelerator.type if accelerator else "cpu"


def _has_nvidia_driver() -> bool:
    return Path("/proc/driver/nvidia/version").is_file() or shutil.which("nvidia-smi") is not None


def _nearest(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(part for part in (path, *path.absolute().parents) if part.exists())


def _gib(num_bytes: int) -> str:
    """Bytes as GiB.

    >>> _gib(3 * 2**29)
    '1.5 GiB'
    """
    return f"{num_bytes / 2**30:,.1f} GiB"
