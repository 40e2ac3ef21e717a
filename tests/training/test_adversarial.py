"""Adversarial embeddings: the paper's move, done by hand, exact over batches, and nothing is left behind."""

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from pair_pkg.data.batches import Item
from pair_pkg.modeling.layers import freeze_layers
from pair_pkg.modeling.layout import Layout
from pair_pkg.pairs.loss import pair_loss
from pair_pkg.training.adversarial import AdversarialEmbeddings, adversarial_move

EPSILON = 0.5


def test_each_text_moves_by_epsilon_along_its_gradient():
    gradient = torch.tensor([[3.0, 0.0], [0.0, 4.0], [0.0, 2.0], [0.0, 0.0]])
    move = adversarial_move(gradient, {"layout": Layout([2, 1, 1])}, 1.0)
    wanted = torch.tensor([[0.6, 0.0], [0.0, 0.8], [0.0, 1.0], [0.0, 0.0]])  # a text without gradient stays
    torch.testing.assert_close(move, wanted)
    padded = adversarial_move(gradient.unflatten(0, (2, 2)), {}, 2.0)
    torch.testing.assert_close(padded, 2 * wanted.unflatten(0, (2, 2)))


def test_the_move_is_taken_in_float32():
    gradient = torch.full((4, 8), 2e-3, dtype=torch.bfloat16)
    move = adversarial_move(gradient, {"layout": Layout([4])}, 1.0)
    assert move.dtype == torch.bfloat16
    assert move.float().norm() == pytest.approx(1, abs=5e-3)


def gradients_by_hand(model, batch, epsilon):
    """Mean of the clean gradient and of the one at moved embeddings, with the move by hand for each pair."""
    labels, loss = batch["labels"], pair_loss("binary")
    inputs = {name: values for name, values in batch.items() if name != "labels"}
    embeddings = model.get_input_embeddings()
    seen = []
    handle = embeddings.register_forward_hook(lambda module, arguments, output: seen.append(output))
    clean = loss(model(**inputs), labels)
    handle.remove()
    (gradient,) = torch.autograd.grad(clean, seen[0], retain_graph=True)
    parts = gradient.split(batch["layout"].lengths) if "layout" in batch else gradient.split(1)
    move = torch.cat([epsilon * part / part.norm() for part in parts])
    clean.backward()
    handle = embeddings.register_forward_hook(lambda module, arguments, output: output + move)
    loss(model(**inputs), labels).backward()
    handle.remove()
    return {name: parameter.grad / 2 for name, parameter in model.named_parameters() if parameter.grad is not None}


def gradients_of_step(trainer, model, batch):
    model.zero_grad()
    trainer.training_step(model, batch, torch.tensor(len(batch["labels"])))
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("flat", [True, False])
def test_a_step_is_that_done_by_hand(build_model, build_trainer, name, flat):
    model = build_model(name, flat=flat)
    trainer = build_trainer(model, flat=flat, aids={"adversary": AdversarialEmbeddings(EPSILON)})
    batch = trainer.train_dataset.build_batch([Item(row, 0) for row in range(6)])
    wanted = gradients_by_hand(copy.deepcopy(model).train(), batch, EPSILON)
    found = gradients_of_step(trainer, model, batch)
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        torch.testing.assert_close(found[key], value, atol=1e-6, rtol=1e-4, msg=key)


def test_the_move_raises_the_loss(build_model, build_trainer):
    model = build_model()
    trainer = build_trainer(model)
    batch = trainer.train_dataset.build_batch([Item(row, 0) for row in range(8)])
    labels = batch["labels"]
    losses = []

    def backward():
        loss = pair_loss("binary")(
            model(**{name: values for name, values in batch.items() if name != "labels"}), labels
        )
        losses.append(loss.item())
        loss.backward()
        return loss.detach()

    AdversarialEmbeddings(0.1).step(model, batch, backward, nullcontext)
    assert losses[1] > losses[0]


def test_epsilon_0_is_the_plain_run_to_the_bit(build_model, build_trainer, weights_of, history_of):
    runs = []
    for aids in ({}, {"adversary": AdversarialEmbeddings(0.0)}):
        trainer = build_trainer(build_model(head_norm=True), aids=aids)
        trainer.train()
        runs.append((weights_of(trainer.model), history_of(trainer)))
    assert np.array_equal(runs[0][1], runs[1][1])
    assert all(torch.equal(values, runs[1][0][name]) for name, values in runs[0][0].items())


@pytest.mark.parametrize("flat", [True, False])
def test_8_pairs_at_once_are_2_accumulated_4_times(build_model, build_trainer, weights_of, history_of, flat):
    runs = []
    for size in (8, 2):
        # SGD: Adam would blow up the noise of gradients that are zero, such as a key's bias
        cut = {"per_device_train_batch_size": size, "gradient_accumulation_steps": 8 // size,
               "optim": "sgd", "learning_rate": 0.1}  # fmt: skip
        trainer = build_trainer(
            build_model(flat=flat), flat=flat, aids={"adversary": AdversarialEmbeddings(EPSILON)}, **cut
        )
        trainer.train()
        runs.append((weights_of(trainer.model), history_of(trainer)))
    np.testing.assert_allclose(runs[0][1], runs[1][1], atol=1e-5)
    for name, values in runs[0][0].items():
        torch.testing.assert_close(values, runs[1][0][name], atol=2e-5, rtol=0, msg=name)


def test_it_is_not_the_plain_run(build_model, build_trainer, weights_of):
    runs = []
    for aids in ({}, {"adversary": AdversarialEmbeddings(EPSILON)}):
        trainer = build_trainer(build_model(), aids=aids)
        trainer.train()
        runs.append(weights_of(trainer.model))
    assert any((values - runs[1][name]).abs().max() > 1e-4 for name, values in runs[0].items())


class Stops(Exception):
    pass


@pytest.mark.parametrize("fails_at", [1, 2])
def test_an_exception_leaves_no_hook_and_no_moved_weight(build_model, build_trainer, weights_of, fails_at):
    model = build_model()
    trainer = build_trainer(model, aids={"adversary": AdversarialEmbeddings(EPSILON)})
    batch = trainer.train_dataset.build_batch([Item(0, 0), Item(1, 0)])
    before, passes = weights_of(model), []
    loss = trainer.compute_loss_func

    def failing(*arguments, **settings):
        passes.append(None)
        if len(passes) == fails_at:
            raise Stops
        return loss(*arguments, **settings)

    trainer.compute_loss_func = failing
    with pytest.raises(Stops):
        gradients_of_step(trainer, model, batch)
    assert not model.get_input_embeddings()._forward_hooks
    assert all(torch.equal(values, before[name]) for name, values in weights_of(model).items())


def test_frozen_embeddings_can_be_moved(build_model, build_trainer, weights_of):
    model = build_model()
    freeze_layers(model, 1)
    before = weights_of(model)
    trainer = build_trainer(model, aids={"adversary": AdversarialEmbeddings(EPSILON)})
    trainer.train()
    for name, values in weights_of(model).items():
        frozen = "embeddings" in name or "layer.0." in name
        assert torch.equal(values, before[name]) == frozen, name


def test_in_bfloat16(build_model, build_trainer, weights_of):
    """The same move to what bfloat16 can tell."""
    runs = []
    for bf16 in (False, True):
        trainer = build_trainer(
            build_model(), aids={"adversary": AdversarialEmbeddings(EPSILON)}, bf16=bf16, max_steps=1
        )
        trainer.train()
        runs.append([entry["grad_norm"] for entry in trainer.state.log_history if "grad_norm" in entry][0])
    assert runs[1] == pytest.approx(runs[0], rel=0.05)
