"""R-Drop: distances by hand, each pair twice in a batch, and the plain loss where nothing differs."""

import math

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import SequenceClassifierOutput

from pair_pkg.data.batches import Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.loss import pair_loss, pair_losses
from pair_pkg.pairs.rdrop import distance, rdrop_loss

LEFT = ["how to treat a cold", "a cold", "what is the best cure for a very bad cold in winter", "winter"]
RIGHT = ["cure for a cold", "what is a cold", "a cure", "how bad is winter"]
TOKENIZER = train_tokenizer([*LEFT, *RIGHT] * 3, 120)
BINARY = LabelScheme("binary", ["different", "same"])


def losses(kind):
    return lambda logits, labels: pair_losses(kind, logits, labels)


def test_the_distance_is_the_mean_of_both_divergences():
    p, q = (0.8, 0.2), (0.5, 0.5)
    by_hand = sum((a - b) * math.log(a / b) for a, b in zip(p, q)) / 2  # (KL(p||q) + KL(q||p)) / 2
    logits = [torch.tensor([[math.log(share) + 3 for share in shares]]) for shares in (p, q)]
    assert distance("binary", *logits).item() == pytest.approx(by_hand, abs=1e-6)
    assert distance("classes", *reversed(logits)).item() == pytest.approx(by_hand, abs=1e-6)
    sigmoid = [torch.tensor([[math.log(share / (1 - share))]]) for share in (0.8, 0.5)]
    assert distance("binary", *sigmoid).item() == pytest.approx(by_hand, abs=1e-6)
    assert distance("scores", torch.tensor([[0.7]]), torch.tensor([[0.2]])).item() == pytest.approx(0.25)


def test_logits_far_apart_stay_finite():
    apart = distance("binary", torch.tensor([[90.0, -90.0]]), torch.tensor([[-90.0, 90.0]]))
    assert apart.item() == pytest.approx(180, rel=1e-3)


def test_the_loss_by_hand():
    logits = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, 0.0], [2.0, 0.0]])  # two pairs, two copies each
    labels = torch.tensor([0, 1])
    cross_entropy = [math.log(1 + math.exp(-1)), math.log(1 + math.exp(1)), *[math.log(1 + math.exp(2))] * 2]
    share = 1 / (1 + math.exp(-1))
    apart = (share - (1 - share)) * 1.0  # (p - q) . (log p - log q) / 2
    wanted = (sum(cross_entropy) / 2 + 3.0 * apart) / 2
    assert rdrop_loss("binary", 3.0, losses("binary"))(
        SequenceClassifierOutput(logits=logits), labels
    ).item() == pytest.approx(wanted)


@pytest.mark.parametrize(("kind", "outputs"), [("binary", 2), ("binary", 1), ("classes", 3), ("scores", 1)])
def test_equal_copies_have_the_plain_loss_whatever_alpha(kind, outputs):
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(5, outputs, generator=generator)
    labels = torch.rand(5, generator=generator) if kind == "scores" else torch.arange(5) % max(outputs, 2)
    twice = SequenceClassifierOutput(logits=logits.repeat_interleave(2, 0))
    for items in (None, 40):
        plain = pair_loss(kind)(SequenceClassifierOutput(logits=logits), labels, items)
        for alpha in (0.0, 4.0):
            torch.testing.assert_close(rdrop_loss(kind, alpha, losses(kind))(twice, labels, items), plain)


def test_parts_of_a_step_add_up_to_its_loss():
    logits, labels = torch.randn(12, 2, generator=torch.Generator().manual_seed(2)), torch.arange(6) % 2
    loss = rdrop_loss("binary", 2.0, losses("binary"))
    whole = loss(SequenceClassifierOutput(logits=logits), labels, 6)
    parts = [
        loss(SequenceClassifierOutput(logits=logits[2 * a : 2 * b]), labels[a:b], 6)
        for a, b in ((0, 1), (1, 4), (4, 6))
    ]
    torch.testing.assert_close(sum(parts), whole)


def test_no_pair_of_a_filler_is_no_loss():
    logits = torch.zeros(0, 2, requires_grad=True)
    loss = rdrop_loss("binary", 2.0, losses("binary"))(
        SequenceClassifierOutput(logits=logits), torch.zeros(0).long(), 3
    )
    loss.backward()
    assert loss.item() == 0 and logits.grad.shape == (0, 2)


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("is_filler", [True, False])
def test_copies_stand_next_to_each_other_and_have_one_label(flat, is_filler):
    pairs = Pairs(LEFT, RIGHT, np.array([1, 0, 1, 0]), LEFT)
    once, twice = (
        PairRows(pairs, BINARY, TOKENIZER, 32, flat=flat, copies=copies).build_batch(
            [Item(row, 0, is_filler) for row in range(4)]
        )
        for copies in (1, 2)
    )
    assert torch.equal(twice["labels"], once["labels"]) and len(twice["wanted"]) == 2 * len(once["wanted"])
    if not flat:
        assert torch.equal(twice["input_ids"], once["input_ids"].repeat_interleave(2, 0))
        return
    lengths = once["layout"].lengths
    assert twice["layout"].lengths == np.repeat(lengths, 2).tolist()
    expected = torch.cat([part.repeat(2) for part in once["input_ids"].split(lengths)])
    assert torch.equal(twice["input_ids"], expected)
    assert torch.equal(twice["input_ids"][twice["wanted"]], once["input_ids"][once["wanted"]].repeat_interleave(2))
