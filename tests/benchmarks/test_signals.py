"""A small draw of the signals that ``python -m benchmarks signals`` sends forty of, with its control."""

import sys
from collections import Counter

import pytest

from benchmarks.forks import EVALUATION, PHASES, SAVE, TRAINING
from benchmarks.launches import GROUP, WORKER
from benchmarks.signals import (
    CONTROL,
    FORK,
    FORKED,
    LAUNCHED,
    NUMBERS,
    OURS,
    Case,
    draw_cases,
    signal_and_continue,
)
from pair_pkg.interrupts import obey_signals

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="orphans are found by prctl, which Linux has")


def test_a_draw_takes_every_place_and_phase_by_turns():
    cases = draw_cases(28, 12, seed=0)
    forked, launched = Counter(cases[:28]), cases[28:]
    assert len(forked) == len(FORKED) * len(PHASES) * len(NUMBERS) == 16  # each once, before one comes again
    assert {(case.launcher, case.whom) for case in launched} == {*LAUNCHED}
    assert {case.phase for case in launched} == {*PHASES} and {case.number for case in cases} == {*NUMBERS}
    assert len({*launched}) == 12
    assert draw_cases(28, 12, seed=0) == cases != draw_cases(28, 12, seed=1)


def cases_of(*phases):
    places = (WORKER, GROUP)
    return [Case(FORK, places[turn % 2], phase, NUMBERS[turn // 2 % 2]) for turn, phase in enumerate(phases)]


@pytest.mark.slow
def test_a_signalled_run_saves_and_continues_to_the_same_end(tmp_path):
    verdicts = signal_and_continue(OURS, tmp_path, cases_of(EVALUATION, SAVE), seed=3)
    assert [verdict.faults for verdict in verdicts] == [{}, {}]


@pytest.mark.slow
def test_without_handlers_a_signal_is_not_obeyed(tmp_path):
    """The control, started by a program that obeys signals itself, as the command does."""
    with obey_signals():
        verdicts = signal_and_continue(CONTROL, tmp_path, cases_of(TRAINING), seed=3)
    assert [verdict.faults["exit status"] for verdict in verdicts] == ["-15"]
