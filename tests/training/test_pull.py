"""L2-SP: the step of the penalised loss, however it is cut into batches; no pull is no change."""

import pytest
import torch

from pair_pkg.modeling.base_weights import BaseWeights
from pair_pkg.training.pull import PullToBase

SGD = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0, "lr_scheduler_type": "constant"}


def run(build_model, build_trainer, weights_of, strength, **arguments):
    model = build_model()
    base = BaseWeights(model)
    trainer = build_trainer(model, aids={"callbacks": [PullToBase(base, strength)]}, **SGD, **arguments)
    trainer.train()
    return weights_of(trainer.model)


def test_the_second_step_is_pulled_by_what_the_first_moved(build_model, build_trainer, weights_of):
    """Equal first steps, where nothing has moved; behind the second they differ by rate x strength x the movement."""
    start = weights_of(build_model())
    one = run(build_model, build_trainer, weights_of, 0.5, max_steps=1)
    plain, pulled = (run(build_model, build_trainer, weights_of, strength, max_steps=2) for strength in (0.0, 0.5))
    for name in start:
        pull = 0.1 * 0.5 * (one[name] - start[name]) if name.startswith("bert.") else torch.zeros(())
        torch.testing.assert_close(pulled[name], plain[name] - pull, atol=2e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("size", [8, 2])
def test_a_step_is_the_same_however_it_is_cut(build_model, build_trainer, weights_of, size):
    cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size}
    whole = run(build_model, build_trainer, weights_of, 0.5)
    parts = run(build_model, build_trainer, weights_of, 0.5, **cut)
    for name, values in whole.items():
        torch.testing.assert_close(values, parts[name], atol=1e-5, rtol=0, msg=name)
