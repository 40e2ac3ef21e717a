"""The rule that ends training, from the log alone."""

from types import SimpleNamespace

import pytest

from pair_pkg.training.stopping import StopRule, evaluations_since_best

LOG = [
    {"step": 0, "eval_loss": 1.0, "eval_probe": 0.9},  # not trained yet: no rival
    {"step": 5, "loss": 3.0},
    {"step": 5, "eval_loss": 5.0, "eval_probe": 0.5},
    {"step": 10, "eval_loss": 4.0, "eval_probe": 0.7},
    {"step": 15, "eval_loss": 3.0, "eval_probe": 0.7},
    {"step": 20, "eval_loss": 3.5, "eval_probe": 0.6},
]


def test_evaluations_since_the_best():
    assert evaluations_since_best(LOG, "eval_loss", False) == 1
    assert evaluations_since_best(LOG, "eval_probe", True) == 2  # a tie is no gain
    assert evaluations_since_best(LOG[:2], "eval_loss", False) == 0


@pytest.mark.parametrize(
    ("metrics", "patience", "stops"),
    [
        ({"eval_loss": False}, 1, True),
        ({"eval_loss": False}, 2, False),
        ({"eval_probe": True}, 2, True),
        ({"eval_probe": True, "eval_loss": False}, 2, False),
        ({"eval_probe": True, "eval_loss": False}, 1, True),
    ],
)
def test_training_ends_where_no_metric_has_gained(metrics, patience, stops):
    control = SimpleNamespace(should_training_stop=False)
    StopRule(metrics, patience).on_evaluate(None, SimpleNamespace(log_history=LOG), control)
    assert control.should_training_stop == stops
