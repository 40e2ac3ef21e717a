"""Losses are the library's own on the vectors of a step, and no known positive is a negative."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sentence_transformers.sentence_transformer import losses as library
from torch import nn

from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import InputError
from pair_pkg.pairs.bi_encoder import PairEmbeddings
from pair_pkg.pairs.embedding_loss import (
    IN_BATCH_NEGATIVES,
    LOSSES,
    choose_loss,
    cosine_row_metrics,
    embedding_loss,
    learned_pairs,
)

BINARY = LabelScheme("binary", ["different", "same"])
SCORES = LabelScheme("scores", [], 0.0, 5.0)
LABELS = torch.tensor([1, 0, 1, 1, 0, 0])
GRADES = torch.tensor([0.2, 0.9, 0.9, 0.0, 1.0, 0.4])
WIDTH = 8
LIBRARY = {
    "cosent": (library.CoSENTLoss, GRADES),
    "angle": (library.AnglELoss, GRADES),
    "contrastive": (library.ContrastiveLoss, LABELS),
    "online_contrastive": (library.OnlineContrastiveLoss, LABELS),
    "multiple_negatives_ranking": (library.MultipleNegativesRankingLoss, torch.ones(6)),
}


def unit_vectors(seed, pairs=6):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(pairs, WIDTH, generator=generator), dim=-1).requires_grad_()


def outputs(groups=None, pairs=6):
    groups = torch.arange(pairs) if groups is None else torch.tensor(groups)
    return PairEmbeddings(unit_vectors(1, pairs), unit_vectors(2, pairs), groups)


def library_value(name, vectors1, vectors2):
    loss_class, labels = LIBRARY[name]
    return loss_class(nn.Identity()).compute_loss_from_embeddings([vectors1, vectors2], labels)


@pytest.mark.parametrize("name", LIBRARY)
def test_a_loss_and_its_gradient_are_the_librarys(name):
    ours, theirs = outputs(), outputs()
    value = embedding_loss(name)(ours, LIBRARY[name][1])
    expected = library_value(name, theirs.embeddings1, theirs.embeddings2)
    value.backward()
    expected.backward()
    assert expected > 0.01
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.embeddings1.grad, theirs.embeddings1.grad, atol=1e-6, rtol=1e-6)


def test_the_cached_loss_is_the_librarys_cached_loss():
    value = embedding_loss("cached_multiple_negatives_ranking")(outputs(), torch.ones(6))
    cached = library.CachedMultipleNegativesRankingLoss(nn.Sequential(nn.Identity()), mini_batch_size=2)
    expected = cached.calculate_loss([[outputs().embeddings1], [outputs().embeddings2]])
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", LIBRARY)
def test_matryoshka_adds_the_leading_dimensions_to_the_whole(name):
    value = embedding_loss(name, [4, 2])(outputs(), LIBRARY[name][1])
    given = outputs()
    expected = sum(
        library_value(name, *(F.normalize(vectors[:, :dims], dim=-1) for vectors in given.to_tuple()[:2]))
        for dims in (2, 4, WIDTH)
    )
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", IN_BATCH_NEGATIVES)
def test_a_known_positive_of_the_group_is_no_negative(name):
    groups = [0, 1, 0, 2, 1, 0]
    given = outputs(groups)
    cosines = 20 * given.embeddings1 @ given.embeddings2.T  # the library's scale
    expected = 0.0
    for row, group in enumerate(groups):
        candidates = [column for column, other in enumerate(groups) if column == row or other != group]
        expected -= cosines[row, candidates].log_softmax(0)[candidates.index(row)] / len(groups)
    value = embedding_loss(name)(given, torch.ones(6))
    torch.testing.assert_close(value, expected, atol=1e-6, rtol=1e-6)
    assert value < embedding_loss(name)(outputs(), torch.ones(6))  # some candidates less
    value.backward()
    assert torch.isfinite(given.embeddings1.grad).all()


def test_one_group_in_a_batch_leaves_nothing_to_tell_apart():
    assert embedding_loss("multiple_negatives_ranking")(outputs([7] * 6), torch.ones(6)).item() == 0


@pytest.mark.parametrize("name", LOSSES)
def test_a_filler_costs_nothing(name):
    given = PairEmbeddings(unit_vectors(1)[:0], unit_vectors(2)[:0], torch.arange(0))
    value = embedding_loss(name)(given, torch.ones(0))
    value.backward()
    assert value.item() == 0


@pytest.mark.parametrize("name", LIBRARY)
def test_of_an_optimizer_step_a_batch_counts_by_its_pairs(name):
    loss, labels = embedding_loss(name), LIBRARY[name][1]
    value = loss(outputs(), labels)
    torch.testing.assert_close(loss(outputs(), labels, num_items_in_batch=torch.tensor(24)), value / 4)
    torch.testing.assert_close(loss(outputs(), labels, num_items_in_batch=6), value)


def test_the_contrastive_loss_is_the_same_accumulated():
    loss, whole = embedding_loss("contrastive"), outputs()
    parts = [PairEmbeddings(whole.embeddings1[part], whole.embeddings2[part]) for part in (slice(0, 2), slice(2, 6))]
    accumulated = sum(loss(part, labels, num_items_in_batch=6) for part, labels in zip(parts, (LABELS[:2], LABELS[2:])))
    torch.testing.assert_close(accumulated, loss(whole, LABELS), atol=1e-6, rtol=1e-6)


def test_the_loss_follows_from_the_labels():
    binary, positive, grades = np.array([0, 1]), np.array([1, 1]), np.float32([0.5, 2])
    assert choose_loss("scores", grades) == "cosent"
    assert choose_loss("binary", binary) == "online_contrastive"
    assert choose_loss("binary", positive) == "multiple_negatives_ranking"
    assert choose_loss("binary", binary, "angle") == "angle"
    for kind, labels, wanted, message in (
        ("classes", np.array([0, 2]), None, "take cross_encoder"),
        ("scores", grades, "contrastive", "take cosent or angle"),
        ("scores", grades, "multiple_negatives_ranking", "needs binary labels"),
        ("binary", np.array([0, 0]), "multiple_negatives_ranking", "needs positive pairs"),
    ):
        with pytest.raises(InputError, match=message):
            choose_loss(kind, labels, wanted)


def test_ranking_learns_from_positive_pairs_only():
    pairs = Pairs(["a", "b", "c"], ["d", "e", "f"], np.array([1, 0, 1]), ["p:1", "p:2", "p:3"])
    assert learned_pairs(pairs, "cached_multiple_negatives_ranking").sentence1 == ["a", "c"]
    assert learned_pairs(pairs, "contrastive") is pairs


def test_metrics_of_binary_pairs_find_their_threshold():
    columns = {"score": np.array([0.9, 0.7, 0.6, -0.2]), "label": np.array([1, 1, 0, 0])}
    found = cosine_row_metrics(columns, scheme=BINARY)
    assert found["threshold"] == pytest.approx(0.65) and found["accuracy"] == 1
    # positives: 0.1^2 and 0.3^2, negatives: 0.1^2 within the margin of 0.5 and 0 beyond it; half of their mean
    assert found["loss"] == pytest.approx(0.5 * (0.01 + 0.09 + 0.01) / 4)
    positives = {"score": columns["score"], "label": np.ones(4, dtype=int)}
    undecided = cosine_row_metrics(positives, scheme=BINARY)
    assert undecided["threshold"] is None and undecided["accuracy"] is None  # one label says nothing about a threshold


def test_metrics_of_scores_are_taken_in_their_range():
    columns = {"score": np.array([1.0, 4.0, 5.0]), "label": np.array([0.0, 4.0, 4.0])}
    metrics = cosine_row_metrics(columns, scheme=SCORES)
    assert metrics["mean_squared_error"] == pytest.approx(2 / 3)
    assert metrics["loss"] == pytest.approx(2 / 3 / 25)
    assert "threshold" not in metrics
