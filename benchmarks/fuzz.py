"""Every reader of this package on files that atheris made up: a result, or a refusal of one line, and nothing else.

atheris (libFuzzer) changes whole files and keeps what reaches new lines of this package. A finding is anything but an
``InputError``, a second of work, 512 MB more memory, and the end of the process; its bytes are kept. Readers that were
broken on purpose are run beside them, and must be found.
"""

import argparse
import ctypes
import importlib.util
import inspect
import json
import logging
import mmap
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import FunctionType

from benchmarks.fuzz_files import FILES
from benchmarks.fuzz_folders import FOLDERS
from benchmarks.fuzz_judge import Reader, judge
from benchmarks.result import Result, Table, number
from pair_pkg.errors import InputError

READERS = {**FILES, **FOLDERS}
QUICK_COUNT, COUNT, CONTROL_COUNT = 20_000, 1_000_000, 2_000
MAX_BYTES = 8192
TIMEOUT_SECONDS = 10  # when libFuzzer ends a process that hangs
MAX_RESTARTS = 20  # of a reader that ends its process
WORDS = ('"', "\\\"\\\"", "[", "{", "}", "null", "NaN", "1e999", "\\xEF\\xBB\\xBF", "\\xFF\\xFE", "\\x0D\\x0A", "\\x00",
         "\\xE2\\x80\\xA8", "\\\\ud800", "&a", "*a", "!!", "..", "/", "label", "text", "sentence1")  # fmt: skip
SIGNALS = ("segv", "bus", "abrt", "ill", "fpe", "int", "term", "xfsz")  # libFuzzer would take minutes to tell of them


class Counts(ctypes.Structure):
    """What a process and its parent both see, the input that is read among it."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("inputs", "refused", "findings", "slowest_ns", "cpu_ns", "length")),
        ("content", ctypes.c_char * MAX_BYTES),
    ]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a reader's inputs; ``faults`` are the different findings, each with the file of its bytes."""

    name: str
    inputs: int
    refused: int
    findings: int
    slowest_seconds: float
    cpu_seconds: float
    faults: dict[str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, help=f"inputs; unset: {QUICK_COUNT:,} with --quick, else {COUNT:,}")
    parser.add_argument("--readers", nargs="+", choices=list(READERS), default=list(READERS), help="unset: all")
    parser.add_argument("--seed", type=int, default=1, help="of the changes")
    parser.add_argument("--processes", type=int, help="readers at a time; unset: one for each core")
    parser.add_argument("--findings", default="fuzz-findings", help="folder for the bytes of findings")


def run(
    quick: bool,
    count: int | None = None,
    readers: list[str] | None = None,
    seed: int = 1,
    processes: int | None = None,
    findings: str = "fuzz-findings",
) -> Result:
    if importlib.util.find_spec("atheris") is None:
        raise InputError("fuzz: atheris is not installed; install it with pip install '.[fuzz]'")
    count = count or (QUICK_COUNT if quick else COUNT)
    chosen = {name: READERS[name] for name in readers or READERS}
    shares = sum(reader.share for reader in chosen.values())
    jobs = {name: (reader, -int(-count * reader.share // shares)) for name, reader in chosen.items()}
    jobs |= {f"control: {name}": (reader, CONTROL_COUNT) for name, reader in CONTROLS.items()}
    outcomes = fuzz_readers(jobs, seed, processes or len(os.sched_getaffinity(0)), Path(findings))
    header = ["", "inputs", "refused", "findings", "slowest, ms", "inputs a CPU second"]
    rows = [
        [o.name, number(o.inputs), number(o.refused), number(o.findings), number(1000 * o.slowest_seconds),
         number(o.inputs / max(o.cpu_seconds, 1e-9))] for o in outcomes
    ]  # fmt: skip
    ours = [outcome for outcome in outcomes if outcome.name in chosen]
    totals = {"inputs": sum(o.inputs for o in ours), "findings": sum(o.findings for o in ours)}
    totals["controls found"] = f"{sum(bool(o.findings) for o in outcomes) - sum(bool(o.findings) for o in ours)} of 4"
    notes = [", ".join(f"{name}: {value}" for name, value in totals.items())]
    notes += [f"{o.name}: {fault} ({file})" for o in ours for fault, file in o.faults.items()]
    values = {**totals, "faults": {o.name: o.faults for o in outcomes if o.faults}}
    return Result([Table("Readers on made-up files", header, rows)], values, notes)


def fuzz_readers(jobs: dict[str, tuple[Reader, int]], seed: int, processes: int, findings: Path) -> list[Outcome]:
    """Each reader on as many files as its job says, in processes of its own; a process that ended is started again."""
    _instrument()
    waiting = [_Job(name, reader, count, seed, findings) for name, (reader, count) in jobs.items()]
    done, running = [], {}
    while waiting or running:
        while waiting and len(running) < processes:
            job = waiting.pop(0)
            running[job.start()] = job
        pid, status = os.wait()
        job = running.pop(pid)
        if job.is_done(os.waitstatus_to_exitcode(status)):
            done.append(job)
            print(
                f"{job.name}: {job.counts.inputs:,} inputs, {job.counts.findings} findings", file=sys.stderr, flush=True
            )
        else:
            waiting.insert(0, job)
    return [job.outcome() for job in sorted(done, key=lambda job: list(jobs).index(job.name))]


class _Job:
    """The inputs of one reader, over one process or, where it ends before its time, several."""

    def __init__(self, name: str, reader: Reader, count: int, seed: int, findings: Path):
        self.name, self.reader, self.count, self.seed, self.starts = name, reader, count, seed, 0
        self.findings = findings / name.replace(" ", "_").replace(":", "")
        self.counts = Counts.from_buffer(mmap.mmap(-1, ctypes.sizeof(Counts)))
        self.faults_path = self.findings / "faults.jsonl"
        shutil.rmtree(self.findings, ignore_errors=True)

    def start(self) -> int:
        """Fork; returns the process."""
        self.starts += 1
        self.findings.mkdir(parents=True, exist_ok=True)
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None  # a disk would take most of the time
        self.work_dir = Path(tempfile.mkdtemp(prefix="fuzz-", dir=memory))
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            try:
                _fuzz(self.reader, self.count, self.seed + self.starts, self.counts, self.note, self.work_dir)
            finally:
                os._exit(1)
        return pid

    def note(self, fault: str, content: bytes) -> None:
        """Keep the bytes of a finding of a kind that was not seen before."""
        seen = self._faults()
        if fault not in seen:
            path = self.findings / f"{sha256(content).hexdigest()[:16]}.bin"
            path.write_bytes(content)
            with open(self.faults_path, "a") as file:
                file.write(json.dumps({fault: str(path)}) + "\n")

    def is_done(self, status: int) -> bool:
        """Whether a process that ended has done its work; one that died is a finding, and its last input is kept."""
        shutil.rmtree(self.work_dir, ignore_errors=True)
        if self.counts.inputs >= self.count:
            return True
        self.counts.findings += 1
        self.counts.inputs += 1
        content = ctypes.string_at(ctypes.addressof(self.counts) + Counts.content.offset, self.counts.length)
        how = signal.Signals(-status).name if status < 0 else f"status {status}"
        self.note(f"ended the process ({'no answer' if how == 'SIGALRM' else how})", content)
        return self.starts > MAX_RESTARTS

    def outcome(self) -> Outcome:
        counts = self.counts
        numbers = (counts.inputs, counts.refused, counts.findings, counts.slowest_ns / 1e9, counts.cpu_ns / 1e9)
        faults = self._faults()
        if not faults:
            shutil.rmtree(self.findings)
        return Outcome(self.name, *numbers, faults)

    def _faults(self) -> dict[str, str]:
        lines = self.faults_path.read_text().splitlines() if self.faults_path.is_file() else []
        return {fault: file for line in lines for fault, file in json.loads(line).items()}


def _fuzz(
    reader: Reader, count: int, seed: int, counts: Counts, note: Callable[[str, bytes], None], work_dir: Path
) -> None:
    """In a process of its own: give inputs to a reader until there are ``count``. Does not return."""
    import atheris

    folder, corpus = work_dir / "reader", work_dir / "corpus"
    folder.mkdir()
    corpus.mkdir()
    log = os.open(work_dir / "log", os.O_WRONLY | os.O_CREAT)
    os.dup2(log, 1)
    os.dup2(log, 2)
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    for content in reader.prepare(folder):
        (corpus / sha256(content).hexdigest()).write_bytes(content)
    (work_dir / "words").write_text("".join(f'"{word}"\n' for word in WORDS))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)  # ends the process, whatever it is in
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    path, begin = folder / reader.file, time.process_time_ns()
    content_at = ctypes.addressof(counts) + Counts.content.offset

    def take(content: bytes) -> None:
        counts.length = len(content)
        ctypes.memmove(content_at, content, len(content))
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT_SECONDS)
        started = time.process_time_ns()
        fault, refused = judge(reader, path, content)
        counts.slowest_ns = max(counts.slowest_ns, time.process_time_ns() - started)
        counts.refused += refused
        counts.findings += fault is not None
        if fault is not None:
            note(fault, content)
        counts.inputs += 1
        counts.cpu_ns = before + time.process_time_ns() - begin
        if counts.inputs >= count:
            os._exit(0)

    before = counts.cpu_ns
    options = [f"-seed={seed}", f"-max_len={MAX_BYTES}", "-len_control=0", f"-dict={work_dir / 'words'}", "-timeout=0",
               "-rss_limit_mb=0", f"-artifact_prefix={work_dir}/",
               *(f"-handle_{name}=0" for name in SIGNALS)]  # fmt: skip
    atheris.Setup([sys.argv[0], *options, str(corpus)], take)
    atheris.Fuzz()


@cache
def _instrument() -> None:
    """Let every function of this package's modules tell which of its lines are reached; the forks have them so."""
    import atheris

    for name, module in list(sys.modules.items()):
        if name.startswith("pair_pkg."):
            for holder in (module, *(kind for _, kind in inspect.getmembers(module, inspect.isclass))):
                for function in vars(holder).values():
                    if isinstance(function, FunctionType) and function.__module__ == name:
                        atheris.instrument_func(function)


def _crash(path: Path) -> None:
    if len(path.read_bytes()) % 7 == 3:
        raise KeyError("label")


def _hang(path: Path) -> None:
    if path.read_bytes() == b"{}":
        begin = time.process_time()
        while time.process_time() < begin + 1.2:
            pass


_grown: list[bytes] = []


def _grow(path: Path) -> None:
    if b"[[" in path.read_bytes() and not _grown:
        _grown.append(b"a" * (600 << 20))


def _die(path: Path) -> None:
    if len(path.read_bytes()) > 1000:
        os.kill(os.getpid(), signal.SIGSEGV)


_SEEDS = replace(READERS["jsonl"], share=1.0).prepare
CONTROLS = {name: Reader("rows.jsonl", read, _SEEDS) for name, read in
            (("an exception", _crash), ("a hang", _hang), ("memory", _grow), ("a crash", _die))}  # fmt: skip
