"""Which tokens are predicted: the right share, in every row, decided by (seed, epoch, row) alone."""

import numpy as np
import pytest

from pair_pkg.data.batches import FROZEN
from pair_pkg.mlm.masking import Masking

MASK = 3
ORDINARY = np.arange(5, 105)


def masking(seed=1, **settings):
    return Masking(seed, MASK, ORDINARY, **settings)


def predict(lengths, epoch=0, first=0, **settings):
    """(T,) row numbers and (T,) chosen of rows that lie one after the other in the corpus."""
    row_of_token = np.repeat(np.arange(len(lengths)), lengths)
    positions = first + np.arange(len(row_of_token))
    return row_of_token, masking(**settings).predicted(positions, row_of_token, epoch)


def counts_of(lengths, **settings):
    row_of_token, chosen = predict(lengths, **settings)
    return np.bincount(row_of_token[chosen], minlength=len(lengths))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_share_over_rows_of_mixed_lengths(seed):
    lengths = np.random.default_rng(seed).integers(7, 130, size=2000)  # from 1 / 0.15 tokens on
    assert abs(counts_of(lengths, seed=seed).sum() / lengths.sum() - 0.15) < 0.005


@pytest.mark.parametrize(("length", "low"), [(7, 1), (10, 1), (13, 1), (20, 3), (33, 4), (128, 19)])
def test_a_row_is_rounded_up_or_down_by_chance(length, low):
    counts = counts_of([length] * 4000)
    assert set(counts) <= {low, low + 1}
    assert abs(counts.mean() - 0.15 * length) < 0.035  # over 4 standard errors of a coin


@pytest.mark.parametrize("length", range(1, 7))
def test_short_rows_predict_one(length):
    assert set(counts_of([length] * 500)) == {1}


def test_all_places_of_a_row_are_equally_likely():
    _, chosen = predict([20] * 10_000)
    share = chosen.reshape(10_000, 20).mean(0)
    assert np.all(np.abs(share - 0.15) < 5 * np.sqrt(0.15 * 0.85 / 10_000))


def test_probability_is_heeded():
    lengths = [50] * 1000
    assert abs(counts_of(lengths, probability=0.4).mean() - 20) < 0.01
    assert set(counts_of(lengths, probability=0.999)) <= {49, 50}


def test_eighty_ten_ten():
    number = 60_000
    ids = np.full(number, 50)
    shown = masking().shown(ids, np.arange(number), 0)
    # of the 10 % random ones, 1 in 100 draws the token itself
    for share, wanted in (((shown == MASK).mean(), 0.8), ((shown == 50).mean(), 0.101)):
        assert abs(share - wanted) < 5 * np.sqrt(wanted * (1 - wanted) / number)
    others = shown[(shown != MASK) & (shown != 50)]
    assert set(others) == set(ORDINARY) - {50}
    assert np.bincount(others).max() < 2 * len(others) / 99


def test_random_replacements_are_ordinary_tokens():
    always = masking(masked_fraction=0.0, random_fraction=1.0)
    shown = always.shown(np.zeros(5000, dtype=np.int64), np.arange(5000), 0)
    assert set(shown) == set(ORDINARY)


def test_fractions_are_heeded():
    ids = np.arange(5, 105)
    assert set(masking(masked_fraction=1.0, random_fraction=0.0).shown(ids, ids, 0)) == {MASK}
    assert np.array_equal(masking(masked_fraction=0.0, random_fraction=0.0).shown(ids, ids, 0), ids)


def test_epochs_and_seeds_draw_anew_and_the_same_again():
    lengths = [30] * 50
    draws = {key: predict(lengths, epoch=key[0], seed=key[1])[1] for key in ((0, 1), (1, 1), (FROZEN, 1), (0, 2))}
    for key, chosen in draws.items():
        assert np.array_equal(predict(lengths, epoch=key[0], seed=key[1])[1], chosen)
        overlaps = [(chosen & other).sum() / chosen.sum() for name, other in draws.items() if name != key]
        assert max(overlaps) < 0.3  # 0.15 by chance


def test_shown_is_drawn_anew_in_each_epoch():
    ids, places = np.full(2000, 50), np.arange(2000)
    first, second = masking().shown(ids, places, 0), masking().shown(ids, places, 1)
    assert np.array_equal(first, masking().shown(ids, places, 0))
    assert abs((first == second).mean() - (0.8**2 + 0.101**2)) < 0.05


def test_a_row_has_its_mask_whatever_stands_before_it():
    lengths = [9, 40, 3, 25]
    row_of_token, chosen = predict(lengths)
    for row, first in enumerate(np.cumsum([0, *lengths[:-1]])):
        assert np.array_equal(predict([lengths[row]], first=first)[1], chosen[row_of_token == row])


def test_the_place_of_a_row_in_the_batch_costs_no_precision(monkeypatch):
    """Draws that differ in their last bit only are ordered alike in row 0 and in row 5,000."""
    draws = np.tile([0.7, 0.5 + 2.0**-52, 0.5, 0.6], 5001)
    monkeypatch.setattr(Masking, "_uniform", lambda self, stream, epoch, positions: draws[positions])
    _, chosen = predict([4] * 5001, probability=0.01)
    masks = chosen.reshape(-1, 4)
    assert (masks == masks[0]).all() and masks[0].sum() == 1


def test_uniform_draws_are_uniform():
    draws = masking()._uniform(0, 0, np.arange(100_000))
    assert draws.min() >= 0 and draws.max() < 1
    expected = 100_000 / 50
    assert ((np.histogram(draws, bins=50, range=(0, 1))[0] - expected) ** 2 / expected).sum() < 95  # chi2, p = 1e-4
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 0.015
