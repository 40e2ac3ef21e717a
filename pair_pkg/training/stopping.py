"""When to stop: after so many evaluations in a row without a gain."""

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import TrainerCallback


class StopRule(TrainerCallback):
    """Ends training where none of some metrics has gained in the last ``patience`` evaluations.

    ``metrics`` says of each whether higher is better. Read from the log alone, so a continued run stops where an
    unbroken one does. The evaluation before the first step does not count: it is of a model that was not trained.
    """

    def __init__(self, metrics: Mapping[str, bool], patience: int):
        self.metrics = metrics
        self.patience = patience

    def on_evaluate(self, args, state, control, **settings: Any) -> None:
        stale = [evaluations_since_best(state.log_history, name, higher) for name, higher in self.metrics.items()]
        if min(stale) >= self.patience:
            control.should_training_stop = True


def evaluations_since_best(log_history: Sequence[dict[str, Any]], name: str, higher_is_better: bool) -> int:
    """How many evaluations of trained weights lie behind the best one; a tie is no gain.

    >>> losses = [{"step": step, "eval_loss": loss} for step, loss in enumerate([1, 5, 3, 4, 3])]
    >>> evaluations_since_best(losses, "eval_loss", higher_is_better=False)
    2
    """
    values = [entry[name] for entry in log_history if entry.get(name) is not None and entry["step"] > 0]
    if not values:
        return 0
    return len(values) - 1 - values.index(max(values) if higher_is_better else min(values))
