"""Small draws of the proofs beside the library's Trainer: what is refused here is taken there, and by the control."""

import pytest

from benchmarks import batch_splits, damage, faults, resume

pytestmark = pytest.mark.slow


def test_a_run_that_died_behind_a_step_continues_to_the_same_end_and_the_control_does_not(tmp_path):
    settings = resume.Settings(workers=1, accumulation=3, evaluation="epoch")
    assert settings in resume.GRID and len(resume.GRID) == 3 * 2 * 3
    assert resume.sweep(resume.SIDES["ours"], tmp_path, settings, steps=[2, 3]) == {2: "", 3: ""}
    control = resume.SIDES["control: nothing is taken up"]
    assert resume.sweep(control, tmp_path, settings, steps=[3]) == {3: "log"}


@pytest.mark.parametrize("side", ["control: unverified", "stock Trainer"])
def test_a_missing_optimizer_is_taken_silently_where_nothing_is_verified(tmp_path, side):
    def choose(damages):
        assert len(damages) == len(damage.WAYS) * len({name for name, _ in damages})
        return [("optimizer.pt", "missing")]

    (outcome,) = damage.damage_and_continue(damage.SIDES[side], tmp_path, choose)
    assert outcome.end == damage.SILENT


def test_the_librarys_trainer_ends_well_with_broken_weights():
    ends = faults.try_all(faults.NUMBER, faults.STOCK, 1, seed=0)
    assert [*ends.values()] == [faults.BROKE]


@pytest.mark.parametrize(("side", "end"), [(faults.CONTROL, faults.SILENT), (faults.STOCK, faults.SILENT)])
def test_a_changed_setting_is_taken_without_a_word(side, end):
    ends = faults.try_all(faults.SETTING, side, 1, seed=5)
    assert [*ends.values()] == [end]


def test_the_librarys_accumulated_halves_are_another_batch(tmp_path):
    (found,) = batch_splits.differences(batch_splits.SIDES["stock Trainer"], tmp_path, batch_splits.SPLITS[:1]).values()
    assert found["weights"] > 1e-3 and found["loss"] > 1
