"""A small draw of the kills that ``python -m benchmarks kills`` makes two hundred of, and their control."""

import pytest

from benchmarks.kills import SIDES, kill_and_continue


@pytest.mark.slow
def test_a_killed_run_continues_to_the_same_end(tmp_path):
    outcomes = kill_and_continue(SIDES["stage 1"](tmp_path), tmp_path / "runs", 4, "KILL", seed=20)
    assert [outcome.why for outcome in outcomes] == [""] * 4
    assert any(outcome.inside_a_save for outcome in outcomes)


@pytest.mark.slow
def test_without_verified_checkpoints_a_kill_inside_a_save_is_not_survived(tmp_path):
    """The control: the same instants find what the manifest is for."""
    outcomes = kill_and_continue(SIDES["control: unverified"](tmp_path), tmp_path / "runs", 4, "KILL", seed=20)
    assert any(not outcome.is_equal for outcome in outcomes if outcome.inside_a_save)
