"""Whole words, spans and n-grams: the right share, whole units, 80/10/10, and old masks to the bit."""

import time

import numpy as np
import pytest

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.rows import Rows
from pair_pkg.data.tokens import TokenStore
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.terms import Terms, tokenize_terms
from pair_pkg.mlm.units import MODES, NGRAM, SPAN, TOKEN, UNIT_WORDS, WHOLE_WORD, unit_starts

MASK = 3
ORDINARY = np.arange(5, 105)


def masking(**settings):
    return Masking(settings.pop("seed", 1), MASK, ORDINARY, **settings)


def text(num_rows, low, high, seed=0):
    """Row numbers and word starts of rows of ``low`` to ``high`` words, of 1 to 5 tokens each: (T,), (T,)."""
    rng = np.random.default_rng(seed)
    words = rng.integers(low, high + 1, num_rows)
    sizes = rng.choice([1, 2, 3, 5], p=[0.6, 0.25, 0.1, 0.05], size=words.sum())
    starts = np.zeros(sizes.sum(), dtype=bool)
    starts[np.cumsum(sizes) - sizes] = True
    return np.repeat(np.repeat(np.arange(num_rows), words), sizes), starts


def predict(mode, rows, starts, epoch=0, **settings):
    places = np.arange(len(rows))
    return masking(mode=mode, **settings).predicted(places, rows, epoch, ids=places, word_starts=starts)


def the_mask_of_single_tokens_as_it_was(seed, positions, row_of_token, epoch, probability):
    """The draw of masks before there were units, kept here as it stood: later code must not change a trained run."""
    plain = masking(seed=seed)
    rows, first, counts = np.unique(row_of_token, return_index=True, return_counts=True)
    rounding = plain._uniform(3, epoch, positions[first])
    num_predicted = np.clip(np.floor(counts * probability + rounding).astype(np.int64), 1, counts)
    row_index = np.repeat(np.arange(len(rows)), counts)
    draws = (plain._uniform(0, epoch, positions) * (1 << 32)).astype(np.int64)
    order = np.argsort((row_index << 32) + draws, kind="stable")
    rank = np.arange(len(positions)) - np.repeat(first, counts)
    chosen = np.zeros(len(positions), dtype=bool)
    chosen[order[rank < num_predicted[row_index]]] = True
    return chosen


@pytest.mark.parametrize("probability", [0.01, 0.15, 0.4, 0.999])
@pytest.mark.parametrize("epoch", [FROZEN, 0, 3])
def test_single_tokens_are_masked_as_ever(probability, epoch):
    lengths = np.random.default_rng(1).integers(1, 140, size=3000)
    rows = np.repeat(np.arange(len(lengths)), lengths)
    places = 7 * np.arange(len(rows))
    expected = the_mask_of_single_tokens_as_it_was(5, places, rows, epoch, probability)
    assert np.array_equal(masking(seed=5, probability=probability).predicted(places, rows, epoch), expected)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("low", "high"), [(8, 20), (40, 120)])
@pytest.mark.parametrize("probability", [0.15, 0.3])
def test_the_share_is_what_was_asked_for_and_every_row_has_one(mode, low, high, probability):
    rows, starts = text(4000, low, high)
    chosen = predict(mode, rows, starts, probability=probability)
    assert abs(chosen.mean() - probability) < 0.005
    assert np.bincount(rows[chosen], minlength=4000).min() >= 1


@pytest.mark.parametrize("mode", MODES)
def test_rows_of_one_word_predict_it(mode):
    rows, starts = text(200, 1, 1)
    chosen = predict(mode, rows, starts)
    assert np.bincount(rows[chosen], minlength=200).min() >= 1
    if mode != TOKEN:
        assert chosen.all()


@pytest.mark.parametrize("mode", [WHOLE_WORD, SPAN, NGRAM])
def test_words_are_predicted_whole(mode):
    rows, starts = text(500, 20, 60)
    chosen = predict(mode, rows, starts)
    word = np.cumsum(starts) - 1
    share = np.bincount(word, chosen) / np.bincount(word)
    assert set(share) == {0.0, 1.0}


@pytest.mark.parametrize("mode", [WHOLE_WORD, SPAN, NGRAM])
def test_units_have_as_many_words_as_their_shares_say(mode):
    words = 200_000
    is_row_start = np.zeros(words, dtype=bool)
    is_row_start[0] = True
    starts = unit_starts(
        mode, np.arange(words), is_row_start, np.ones(words, bool), 0.15, lambda p: masking()._uniform(4, 0, p)
    )
    shares = np.bincount(np.diff(starts))[1:] / (len(starts) - 1)
    np.testing.assert_allclose(shares, UNIT_WORDS[mode], atol=0.005)


def test_the_span_is_as_long_as_published():
    assert UNIT_WORDS[SPAN] @ np.arange(1, 11) == pytest.approx(3.8, abs=0.01)  # SpanBERT, section 3.1
    assert UNIT_WORDS[NGRAM].sum() == pytest.approx(1)


def test_units_end_with_a_stretch_of_text():
    """Tokens 0 to 2 | 10 to 12 of one row, then another row: no unit goes on over a gap or a row's end."""
    positions = np.array([0, 1, 2, 10, 11, 12, 13, 14])
    is_row_start = np.array([1, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    longest = lambda places: np.full(len(places), 0.99)  # noqa: E731
    starts = unit_starts(SPAN, positions, is_row_start, np.ones(8, bool), 1.0, longest)
    assert starts.tolist() == [0, 3, 6]
    starts = unit_starts(SPAN, positions, is_row_start, np.ones(8, bool), np.array([0.4, 0.9]), longest)
    assert starts.tolist() == [0, 2, 3, 5, 6, 7]  # no more than two of six words, and one of two
    # a window that begins inside a word begins a unit all the same
    middle = np.array([1, 0, 0, 0, 0, 1, 0, 1], dtype=bool)
    assert unit_starts(WHOLE_WORD, positions, is_row_start, middle, 0.15, None).tolist() == [0, 3, 5, 6, 7]


@pytest.mark.parametrize("mode", MODES)
def test_a_row_has_its_mask_whatever_stands_beside_it(mode):
    rows, starts = text(50, 5, 40)
    places = np.arange(len(rows))
    chosen = predict(mode, rows, starts)
    for row in range(50):
        part = rows == row
        alone = masking(mode=mode).predicted(places[part], rows[part], 0, ids=places[part], word_starts=starts[part])
        assert np.array_equal(alone, chosen[part])


def test_epochs_draw_other_spans():
    rows, starts = text(300, 40, 60)
    first, second = (predict(SPAN, rows, starts, epoch=epoch) for epoch in (0, 1))
    assert (first & second).sum() / first.sum() < 0.25
    assert np.array_equal(first, predict(SPAN, rows, starts, epoch=0))


def store_of(rows, starts):
    return TokenStore(np.arange(len(rows)) % 90 + 5, starts, np.array([0, len(rows)]), {})


@pytest.mark.parametrize("mode", MODES)
def test_eighty_ten_ten_in_batches_of_every_mode(mode):
    rows, starts = text(2000, 30, 60)
    store, counts = store_of(rows, starts), np.bincount(rows)
    dataset = MaskedRows(
        store,
        Rows(np.cumsum(counts) - counts, counts, np.arange(len(counts) + 1)),
        masking(mode=mode),
        ([1], [2]),
        0,
        flat=True,
    )
    batch = dataset.build_batch([Item(row, 0) for row in range(2000)])
    shown, labels = batch["input_ids"][batch["predicted"]].numpy(), batch["labels"].numpy()
    assert abs((shown == MASK).mean() - 0.8) < 0.01
    assert abs(((shown != MASK) & (shown != labels)).mean() - 0.099) < 0.01
    assert abs(len(labels) / len(rows) - 0.15) < 0.005


def test_terms_are_found_between_word_boundaries():
    ids = np.array([7, 8, 9, 7, 8, 7, 8, 9, 9, 7])
    starts = np.array([1, 0, 1, 1, 0, 1, 0, 0, 1, 1], dtype=bool)  # the words 7-8, 9, 7-8, 7-8-9, 9, 7
    marks = Terms([[7, 8], [9, 7, 8], [8, 9]]).marks(ids, starts, np.arange(10))
    assert marks.tolist() == [True, True, True, True, True, False, False, False, False, False]
    gap = np.array([0, 1, 5, 6, 7, 8, 9, 10, 11, 12])  # 9 and 7-8 follow each other, 7-8 and 9 do not
    assert Terms([[7, 8, 9]]).marks(ids, starts, gap).tolist() == [False] * 5 + [True] * 3 + [False] * 2


def test_terms_are_written_as_the_tokenizer_does(tiny_tokenizer):
    terms, unknown = tokenize_terms(["old pump", "滤网", "ψ"], tiny_tokenizer)
    assert unknown == 1 and len(terms) == 2
    ids = np.array(tiny_tokenizer("the old pump 滤网 old", add_special_tokens=False)["input_ids"])
    marks = terms.marks(ids, np.ones(len(ids), bool), np.arange(len(ids)))
    found = tiny_tokenizer.convert_ids_to_tokens(ids[marks])
    assert "".join(found).replace("##", "") == "oldpump滤网"


@pytest.mark.parametrize("mode", [TOKEN, WHOLE_WORD, NGRAM])
def test_terms_are_drawn_more_often_at_the_same_share(mode):
    rows, starts = text(3000, 40, 60)
    ids = np.random.default_rng(3).integers(5, 105, len(rows))
    single = starts & np.append(starts[1:], True)  # words of one token
    term = np.flatnonzero(single)[::10]
    ids[ids == 50] = 51
    ids[term] = 50
    settings = dict(mode=mode, terms=Terms([[50]]), term_weight=4.0)
    chosen = masking(**settings).predicted(np.arange(len(rows)), rows, 0, ids=ids, word_starts=starts)
    assert abs(chosen.mean() - 0.15) < 0.005
    assert chosen[term].mean() > 2.5 * np.delete(chosen, term).mean()
    same = masking(**{**settings, "term_weight": 1.0})
    plain = masking(mode=mode)
    assert np.array_equal(
        same.predicted(np.arange(len(rows)), rows, 0, ids=ids, word_starts=starts),
        plain.predicted(np.arange(len(rows)), rows, 0, ids=ids, word_starts=starts),
    )


def test_the_rate_goes_from_start_to_end():
    falling = masking(start_probability=0.3, num_epochs=2.0)
    np.testing.assert_allclose(falling.rates(np.array([0, 0.5, 1, 2, 3])), [0.3, 0.2625, 0.225, 0.15, 0.15])
    assert (masking().rates(np.arange(3)) == 0.15).all()
    rows, starts = text(2000, 40, 60)
    places = np.arange(len(rows))
    chosen = falling.predicted(places, rows, 0, rates=np.where(np.arange(2000) < 1000, 0.3, 0.15))
    assert abs(chosen[rows < 1000].mean() - 0.3) < 0.005 and abs(chosen[rows >= 1000].mean() - 0.15) < 0.005


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_masks_are_drawn_fast(mode):
    """A floor far below what is measured, for a machine that others use too: see docs/performance.md."""
    rows, starts = text(32, 90, 100)
    seconds = []
    for _ in range(20):
        begin = time.perf_counter()
        predict(mode, rows, starts)
        seconds.append(time.perf_counter() - begin)
    assert len(rows) / min(seconds) > 2e6
