"""SIGTERM or SIGINT at a random instant of each phase, to each process that can get it: saved, 75, no orphan, same end?

Some runs are started as a user starts them, by Python, ``torchrun`` (two gloo processes) and ``accelerate launch``; the
others are forks, with a helper that loads the data. The same instants of forks are drawn for the library's Trainer,
and for a control: this package, but for its handlers of signals.
"""

import argparse
import itertools
import random
import shutil
import signal as signals
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.forks import PHASES, SAVE, TRAINING, Fork, finish
from benchmarks.launches import (
    ACCELERATE,
    GROUP,
    LAUNCHER,
    PYTHON,
    TORCHRUN,
    WORKER,
    Launch,
    count_orphans,
    orphans_come_here,
    processes_below,
)
from benchmarks.result import Result, Table
from benchmarks.tiny_runs import STEPS, Run, differing, final_state, stage_1, stage_1_words, stock
from pair_pkg import errors
from pair_pkg.errors import EXIT_INTERRUPTED
from pair_pkg.training.manifest import STAGING_NAME, find_damage

FORK = "fork"
OURS, CONTROL, STOCK = "ours", "control: no handlers", "stock Trainer"
LAUNCHED = ((PYTHON, WORKER), (PYTHON, GROUP), (TORCHRUN, WORKER), (TORCHRUN, LAUNCHER), (TORCHRUN, GROUP),
            (ACCELERATE, WORKER), (ACCELERATE, LAUNCHER), (ACCELERATE, GROUP))  # fmt: skip
FORKED = ((FORK, WORKER), (FORK, GROUP))
NUMBERS = (signals.SIGTERM, signals.SIGINT)
FLAGS = {"dataloader_num_workers": 1}  # a helper process, which has to end too
TWO_PROCESSES = {"per_device_train_batch_size": 2, "ddp_backend": "gloo"}
CHECKS = ("exit status", "nothing lost", "no orphan", "same end")


@dataclass(frozen=True)
class Case:
    """Which run is signalled, when, with what, and who gets it."""

    launcher: str
    whom: str
    phase: str
    number: signals.Signals

    def __str__(self) -> str:
        return f"{self.number.name} to the {self.whom} in {self.phase}, {self.launcher}"


@dataclass(frozen=True)
class Verdict:
    """What was wrong, by the check that found it; nothing where all was as promised."""

    case: Case
    faults: dict[str, str]
    seconds: float  # from the signal to the end of the launcher


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, help="signals; unset: 16 with --quick, else 40")
    parser.add_argument("--launched", type=int, help="of these under real launchers; unset: 0 with --quick, else 12")
    parser.add_argument("--sides", nargs="+", choices=(OURS, CONTROL, STOCK), default=(OURS, CONTROL, STOCK))
    parser.add_argument("--seed", type=int, default=0, help="of the instants")


def run(
    quick: bool, count: int | None = None, launched: int | None = None, sides: tuple[str, ...] = (), seed: int = 0
) -> Result:
    count = count or (16 if quick else 40)
    launched = min((0 if quick else 12) if launched is None else launched, count)
    rows, values = [], {}
    for side in sides:
        begin = time.perf_counter()
        cases = draw_cases(count - launched, launched if side == OURS else 0, seed)
        with tempfile.TemporaryDirectory() as folder:
            verdicts = signal_and_continue(side, Path(folder), cases, seed)
        held = [sum(check not in verdict.faults for verdict in verdicts) for check in CHECKS]
        all_held = sum(not verdict.faults for verdict in verdicts)
        seconds = round(time.perf_counter() - begin)
        rows.append([side, len(verdicts), *held, all_held, seconds])
        values[side] = [{"case": str(v.case), "faults": v.faults, "seconds": round(v.seconds, 2)} for v in verdicts]
    table = Table("A signal in a random phase, then continued: what held", ["", "signals", *CHECKS, "all", "s"], rows)
    return Result([table], {"verdicts": values})


def draw_cases(num_forked: int, num_launched: int, seed: int) -> list[Case]:
    """Cases that take the phases, those who can get a signal, and the signals by turns, shuffled anew each round."""
    draw = random.Random(seed)
    return [*_draw(FORKED, num_forked, draw), *_draw(LAUNCHED, num_launched, draw)]


def _draw(places: tuple, count: int, draw: random.Random) -> list[Case]:
    """Each place with each phase comes once before one comes again; a round of places has all phases."""
    rounds = []
    for shift in draw.sample(range(len(PHASES)), len(PHASES)):
        phases = itertools.cycle([*PHASES][shift:] + [*PHASES][:shift])
        rounds += [[Case(*place, phase, draw.choice(NUMBERS)) for place, phase in zip(places, phases)]]
    other = {signals.SIGTERM: signals.SIGINT, signals.SIGINT: signals.SIGTERM}
    rounds += [[Case(c.launcher, c.whom, c.phase, other[c.number]) for c in cases] for cases in rounds]
    for cases in rounds:
        draw.shuffle(cases)
    return list(itertools.islice(itertools.cycle(itertools.chain(*rounds)), count))


def signal_and_continue(side: str, folder: Path, cases: list[Case], seed: int) -> list[Verdict]:
    """Every case in turn: the run is signalled once and then run to its end, against one that was left alone."""
    torch.set_num_threads(1)
    begin = time.perf_counter()
    draw = random.Random(seed)
    with orphans_come_here():
        references = _References(side, folder)
        verdicts: list[Verdict] = []
        for case in cases:
            verdict = None
            while verdict is None:  # it was faster: another instant is drawn
                verdict = _try(references, case, folder / f"run{len(verdicts)}", draw)
            verdicts.append(verdict)
            seconds = round(time.perf_counter() - begin)
            print(f"{side} {len(verdicts)}: {case}: {verdict.faults or 'held'}, {seconds} s", file=sys.stderr)
    return verdicts


class _References:
    """How a run of a side is started, and the whole runs, one of each kind, that others are held against."""

    def __init__(self, side: str, folder: Path):
        self.side, self.folder = side, folder
        self._whole: dict[bool, tuple[Any, dict]] = {}

    def start(self, launcher: str, place: Path) -> Any:
        """A run, as a ``Fork`` or a ``Launch``; its corpus is tokenized anew if the folder is."""
        if launcher == FORK:
            return Fork(self._target(place), place)
        shape = TWO_PROCESSES if launcher == TORCHRUN else {}
        return Launch(launcher, stage_1_words(self.folder, **self._flags(place), **shape), place)

    def whole(self, launcher: str) -> tuple[Any, dict[str, Any]]:
        """A run that was left alone and its final state; only two processes compute otherwise than one."""
        is_two = launcher == TORCHRUN
        if is_two not in self._whole:
            place = self.folder / f"whole{is_two:d}"
            found = self.start(launcher, place) if is_two else finish(self._target(place), place)
            assert not is_two or found.wait() == 0, found.log()
            self._whole[is_two] = found, final_state(place)
        return self._whole[is_two]

    def _target(self, place: Path) -> Run:
        if self.side == STOCK:
            return stock(self.folder, **FLAGS)
        target = stage_1(self.folder, **self._flags(place))
        return target if self.side == OURS else _without_handlers(target)

    def _flags(self, place: Path) -> dict[str, Any]:
        return {**FLAGS, "token_cache_dir": place.with_suffix(".tokens")}


def _without_handlers(target: Run) -> Run:
    def run_target(place: Path) -> int:
        errors.obey_signals = nullcontext  # in the fork only
        return target(place)

    return run_target


def _try(references: _References, case: Case, place: Path, draw: random.Random) -> Verdict | None:
    """One case; None where the run had taken its last step before the signal, and ended well."""
    whole, expected = references.whole(case.launcher)
    before = processes_below()
    for path in place.parent.glob(f"{place.name}*"):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    run = references.start(case.launcher, place)
    run.sleep_until(case.phase, draw.randrange(whole.marks.count(case.phase)) + 1)
    time.sleep(draw.uniform(0, whole.marks.mean_seconds(case.phase)))
    steps_done, sent_at = run.marks.steps_done(), time.perf_counter()
    sent = run.send(case.number, case.whom if isinstance(run, Launch) else case.whom == GROUP)
    status = run.wait()
    seconds = time.perf_counter() - sent_at
    orphans = count_orphans(before)
    if not sent or (status == 0 and steps_done == STEPS):
        return None
    faults = {
        "exit status": _status_fault(run, case, status),
        "nothing lost": _loss(place, case, steps_done, is_sealed=references.side != STOCK),
        "no orphan": f"{orphans} left" if orphans else "",
    }
    log = run.log()[-2000:]  # whoever continues writes it anew
    continued = references.start(TORCHRUN if case.launcher == TORCHRUN else FORK, place)
    status = continued.wait()
    if status:
        faults["same end"] = f"exit status {status} when continued: {continued.log().strip().splitlines()[-1:]}"
    else:
        faults["same end"] = ", ".join(differing(final_state(place), expected))
    faults = {check: fault for check, fault in faults.items() if fault}
    if faults:
        faults["log"] = log
    return Verdict(case, faults, seconds)


def _status_fault(run: Any, case: Case, status: int | None) -> str:
    """A program ends with 75; a launcher with its own status, and tells the 75 unless it was signalled itself."""
    if status is None:
        return "hangs"
    if case.launcher in (FORK, PYTHON):
        return "" if status == EXIT_INTERRUPTED else str(status)
    wanted = [EXIT_INTERRUPTED] * (2 if case.launcher == TORCHRUN else 1)
    if run.statuses() != wanted:
        return f"workers {run.statuses()}"
    told = case.whom != WORKER or f"exit status {EXIT_INTERRUPTED}" in run.log() or ": 75 " in run.log()
    return "" if told else f"{status}, and 75 is not told"


def _loss(place: Path, case: Case, steps_done: int, is_sealed: bool) -> str:
    """The newest checkpoint is whole and of the step that was done when the signal came."""
    saved = {int(path.name.split("-")[1]): path for path in place.glob("checkpoint-*")}
    newest = max(saved, default=0)
    damages = [damage for path in saved.values() if is_sealed and (damage := find_damage(path))]
    if damages or (place / STAGING_NAME).exists():
        return damages[0] if damages else f"{STAGING_NAME} is left"
    if newest < steps_done:
        return f"{steps_done} steps done, {newest} saved"
    begun = case.phase in (TRAINING, SAVE)
    return "nothing was saved" if begun and not saved else ""
