"""R-Drop in training: the plain run where nothing is drawn, exact over batches, and it differs where dropout draws."""

import numpy as np
import pytest
import torch

from pair_pkg.pairs.loss import pair_losses
from pair_pkg.pairs.rdrop import COPIES, rdrop_loss

SGD = {"optim": "sgd", "learning_rate": 0.1}


def loss(kind="binary", alpha=1.0):
    return rdrop_loss(kind, alpha, lambda logits, labels: pair_losses(kind, logits, labels))


@pytest.mark.parametrize("kind", ["binary", "scores"])
@pytest.mark.parametrize("flat", [True, False])
def test_without_dropout_it_is_the_plain_run(build_model, build_trainer, weights_of, history_of, kind, flat):
    runs = []
    for aid in ({}, {"copies": COPIES, "loss": loss(kind, 5.0)}):
        model = build_model(flat=flat, num_labels=2 if kind == "binary" else 1)
        trainer = build_trainer(model, kind=kind, flat=flat, **aid, **SGD)
        trainer.train()
        runs.append((weights_of(trainer.model), history_of(trainer)))
    np.testing.assert_allclose(runs[0][1], runs[1][1], atol=1e-5)
    for name, values in runs[0][0].items():
        torch.testing.assert_close(values, runs[1][0][name], atol=1e-5, rtol=0, msg=name)


def test_8_pairs_at_once_are_2_accumulated_4_times(build_model, build_trainer, weights_of, history_of):
    """With dropout the draws differ; without it, and with a distance made by unequal copies, the sums must not."""
    runs = []
    for size in (8, 2):
        trainer = build_trainer(
            build_model(), copies=COPIES, loss=loss(alpha=2.0), per_device_train_batch_size=size,
            gradient_accumulation_steps=8 // size, **SGD,
        )  # fmt: skip
        layer = trainer.model.classifier
        # the second copy of each pair is seen through another weight, as by a dropout that is the same in all batches
        layer.register_forward_hook(
            lambda module, inputs, output: output * torch.tensor([[1.0], [0.5]]).repeat(len(output) // 2, 1)
        )
        trainer.train()
        runs.append((weights_of(trainer.model), history_of(trainer)))
    np.testing.assert_allclose(runs[0][1], runs[1][1], atol=1e-5)
    for name, values in runs[0][0].items():
        torch.testing.assert_close(values, runs[1][0][name], atol=1e-5, rtol=0, msg=name)


def test_with_dropout_alpha_matters(build_model, build_trainer, history_of):
    losses = []
    for alpha in (0.0, 1.0, 2.0):
        trainer = build_trainer(build_model(dropout=0.3), copies=COPIES, loss=loss(alpha=alpha), max_steps=1)
        trainer.train()
        losses.append(history_of(trainer)[0, 0])
    # the same draws: the loss grows by the distance, in proportion to alpha
    assert losses[1] > losses[0] and losses[2] - losses[1] == pytest.approx(losses[1] - losses[0], rel=1e-4)
