"""The decision: what it makes of scores, what it refuses to fit, and its file."""

import numpy as np
import pytest
from scipy.special import expit, softmax

from pair_pkg.errors import InputError
from pair_pkg.pairs.decision import Decision, bare_probability, fit_decision, load_decision, save_decision


def test_probabilities_and_verdicts_by_hand():
    decision = Decision("binary", temperature=0.1, center=0.7, threshold=0.6)
    probabilities = decision.probability(np.array([0.7, 0.8, 0.6]))
    assert probabilities == pytest.approx(expit([0, 1, -1]))
    assert decision.decide(probabilities).tolist() == [0, 1, 0]
    assert decision.score_threshold == pytest.approx(0.7 + 0.1 * np.log(0.6 / 0.4))
    classes = Decision("classes", temperature=2.0)
    logits = np.array([[0.0, 4.0, 2.0]])
    assert classes.probability(logits) == pytest.approx(softmax(logits / 2, axis=1))
    assert classes.decide(classes.probability(logits)).tolist() == [1]


@pytest.mark.parametrize("are_cosines", [True, False])
def test_the_threshold_is_of_the_probability(are_cosines):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 400)
    scores = 0.5 + 0.2 * labels + rng.normal(0, 0.1, 400)
    decision = fit_decision("binary", scores, labels, are_cosines=are_cosines, decide_by="f1")
    assert (decision.center == 0) is not are_cosines and decision.decide_by == "f1"
    decided = decision.decide(decision.probability(scores))
    assert np.array_equal(decided, scores >= decision.score_threshold)
    assert (decided == labels).mean() > 0.8


def test_a_precision_that_no_threshold_has_is_told(caplog):
    scores, labels = np.array([3.0, 2.0, 1.0, -1.0]), np.array([0, 1, 1, 0])
    decision = fit_decision("binary", scores, labels, are_cosines=False, decide_by="precision", wanted_precision=0.9)
    assert "no threshold has the precision 0.9 on the 4 validation pairs" in caplog.text
    assert decision.decide(decision.probability(scores)).tolist() == [1, 1, 1, 0]  # 2/3, the highest there is


def test_pairs_of_one_label_fit_nothing(caplog):
    ones = np.ones(3, dtype=int)
    assert fit_decision("binary", np.array([0.2, 0.5, 0.9]), ones, are_cosines=True) is None
    kept = fit_decision("binary", np.array([0.2, 0.5, 0.9]), ones, are_cosines=False)
    assert (kept.temperature, kept.center, kept.threshold, kept.decide_by) == (1, 0, 0.5, None)
    assert caplog.text.count("all 3 validation pairs have one label") == 2
    assert fit_decision("scores", np.array([0.2, 0.5]), np.array([0.0, 5.0]), are_cosines=False) is None


def test_bare_probabilities():
    assert bare_probability("binary", np.array([0.0]), False) == pytest.approx([0.5])
    assert bare_probability("binary", np.array([-0.2, 0.4]), True).tolist() == [0, 0.4]
    assert bare_probability("classes", np.zeros((1, 4)), False) == pytest.approx(np.full((1, 4), 0.25))


def test_the_file_brings_back_every_digit_and_none_takes_it_away(tmp_path):
    decision = Decision("binary", 0.1 + 0.2, 1 / 3, 0.7, "precision", 0.9)
    save_decision(decision, tmp_path)
    assert load_decision(tmp_path) == decision
    save_decision(None, tmp_path)
    assert load_decision(tmp_path) is None


@pytest.mark.parametrize("text", ['{"kind": "binary", "temperature": 1.0}', '{"kind": "binary"}', '{"temperature"'])
def test_a_damaged_file_is_refused(tmp_path, text):
    (tmp_path / "decision.json").write_text(text)
    with pytest.raises(InputError, match="decision.json: .*restore it from a copy"):
        load_decision(tmp_path)
