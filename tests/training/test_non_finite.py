"""A number that is none stops the run before the step that would spread it, and names the step and the rows."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import TrainerCallback

from pair_pkg.data.batches import rows_of_step
from pair_pkg.errors import TrainingFailure
from pair_pkg.pairs.loss import pair_loss
from pair_pkg.training.manifest import find_damage

NAN, INF = float("nan"), float("inf")


class Break(TrainerCallback):
    """Calls ``act(model, optimizer)`` before step ``step`` (from 1)."""

    def __init__(self, step, act):
        self.step, self.act = step, act
        self.weights = None

    def on_step_begin(self, args, state, control, model=None, optimizer=None, **settings):
        if state.global_step + 1 == self.step:
            self.act(model, optimizer)
            self.weights = [weight.detach().clone() for weight in model.parameters()]


def break_weight(value, index):
    def act(model, optimizer):
        model.base_model.embeddings.position_embeddings.weight.data[index, 0] = value

    return act


def break_gradient(value):
    def act(model, optimizer):
        model.base_model.embeddings.LayerNorm.bias.register_hook(lambda gradient: gradient * value)

    return act


def break_moment(value):
    def act(model, optimizer):
        moments = next(state for state in optimizer.state.values() if state["exp_avg"].dim() == 2)
        moments["exp_avg"][0, 0] = value

    return act


def broken_loss(value, at_call):
    """The loss of pairs, but for one call."""
    compute, calls = pair_loss("binary"), iter(range(1, 100))

    def loss(*arguments, **settings):
        found = compute(*arguments, **settings)
        return found + value if next(calls) == at_call else found

    return loss


def nothing(model, optimizer):
    pass


# The loss, what is broken before which step, more arguments, and the step that is named.
INJECTIONS = {
    "loss NaN": (broken_loss(NAN, 3), 3, nothing, {}, "step 3: the training loss is nan"),
    "loss inf": (broken_loss(INF, 3), 3, nothing, {}, "step 3: the training loss is inf"),
    "loss -inf": (broken_loss(-INF, 3), 3, nothing, {}, "step 3: the training loss is -inf"),
    "loss of a second micro-step": (
        broken_loss(NAN, 4), 3, nothing, {"gradient_accumulation_steps": 2}, "step 3: the training loss is nan",
    ),
    "gradient NaN": (None, 3, break_gradient(NAN), {}, "step 3: the gradient norm is nan"),
    "gradient inf": (None, 3, break_gradient(INF), {}, "step 3: the gradient norm is inf"),
    "gradient without clipping": (
        None, 3, break_gradient(NAN), {"max_grad_norm": 0.0}, "step 3: the gradient norm is nan",
    ),
    "weight NaN": (None, 3, break_weight(NAN, 0), {}, "step 3: the training loss is nan"),
    "weight inf": (None, 3, break_weight(INF, 0), {}, "step 3: the training loss is nan"),
    "moment of the optimizer": (None, 2, break_moment(NAN), {"save_steps": 1}, "step 2: the weights .* hold NaN"),
    "weight that no batch uses": (None, 3, break_weight(NAN, -1), {}, "step 4: the weights .*position_embeddings"),
    "weight, seen in an evaluation": (
        None, 2, break_weight(NAN, -1), {"eval_strategy": "steps", "eval_steps": 2},
        "step 2: the (score|loss) of an evaluation is NaN or infinite at rows 5 of the 24 rows",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("loss", "step", "act", "arguments", "message"), INJECTIONS.values(), ids=INJECTIONS)
def test_what_is_not_finite_stops_before_the_step(
    build_model, build_trainer, tmp_path, loss, step, act, arguments, message
):
    model = build_model(max_position_embeddings=64)
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 6, **arguments}
    trainer = build_trainer(model, loss=loss, **settings)
    watch = Break(step, act)
    trainer.add_callback(watch)
    if "eval_strategy" in arguments:  # one row of the validation pairs reaches the broken position
        lengthen(trainer, 5)
    with pytest.raises(TrainingFailure, match=message) as failure:
        trainer.train()
    text = str(failure.value)
    assert "nothing was saved from this step, the newest checkpoint stands" in text
    if "training loss" in message or "gradient" in message:
        micro = 8 * trainer.args.gradient_accumulation_steps
        rows = rows_of_step(24, micro, 3, step - 1)
        assert f"rows {', '.join(map(str, rows[:8]))}" in text
        now = [weight.detach() for weight in model.parameters()]
        assert all(torch.equal(*both) or torch.isnan(both[1]).any() for both in zip(now, watch.weights))
    saved = sorted(Path(tmp_path, "out").glob("checkpoint-*"))
    assert all(find_damage(path) is None for path in saved)
    stopped_at = int(re.match(r"step (\d+)", text).group(1))
    assert all(int(path.name.split("-")[1]) < stopped_at for path in saved)


def lengthen(trainer, row):
    """Let the evaluation's scores of a row be as a broken weight would make them."""
    score = trainer.score_batch

    def broken(model, batch):
        columns = score(model, batch)
        where = columns["row"] == row
        return {name: torch.where(where, NAN, v) if v.is_floating_point() else v for name, v in columns.items()}

    trainer.score_batch = broken


def test_the_rows_of_a_step_are_those_of_its_batches(build_model, build_trainer):
    """As the sampler deals them out, over micro-steps and epochs."""
    trainer = build_trainer(build_model(), per_device_train_batch_size=5, gradient_accumulation_steps=2)
    sampler = trainer.get_train_dataloader().batch_sampler
    dealt = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        batches = [[item.row for item in items] for items in sampler]
        dealt += [sum(batches[first : first + 2], []) for first in range(0, len(batches), 2)]
    assert [rows_of_step(24, 10, 3, step).tolist() for step in range(len(dealt))] == dealt
    assert np.sort(np.concatenate(dealt[:3])).tolist() == list(range(24))
