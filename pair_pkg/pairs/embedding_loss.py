"""The losses of sentence-transformers on vectors that are there already, and what a bi-encoder's cosines say."""

# B pairs of a batch, D width of a vector, R pairs of an evaluation

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import (
    AnglELoss,
    ContrastiveLoss,
    CoSENTLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
    OnlineContrastiveLoss,
)
from sentence_transformers.util import cos_sim
from torch import Tensor, nn
from transformers import PreTrainedModel

from pair_pkg.data.labels import LabelKind, LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import InputError
from pair_pkg.pairs.bi_encoder import PairEmbeddings
from pair_pkg.pairs.loss import LossFunction, own_range
from pair_pkg.pairs.metrics import compute_pair_metrics
from pair_pkg.pairs.thresholds import best_threshold

RANKING, CACHED_RANKING = "multiple_negatives_ranking", "cached_multiple_negatives_ranking"
IN_BATCH_NEGATIVES = (RANKING, CACHED_RANKING)
BINARY_LOSSES = {"contrastive": ContrastiveLoss, "online_contrastive": OnlineContrastiveLoss}
SCORE_LOSSES = {"cosent": CoSENTLoss, "angle": AnglELoss}
LOSSES = (*SCORE_LOSSES, *BINARY_LOSSES, *IN_BATCH_NEGATIVES)

Similarity = Callable[[Tensor, Tensor], Tensor]


def choose_loss(kind: LabelKind, labels: np.ndarray, wanted: str | None = None) -> str:
    """The loss that follows from the labels (N,) of the training pairs, or the one ``wanted`` where it fits them.

    Scores: CoSENT. Binary: online contrastive, which learns from the hard pairs of a batch only; its authors find it
    better than the plain one, and paraphrase sets are full of easy pairs. Nothing but positives: ranking.
    Raises ``InputError`` for labels that a bi-encoder cannot learn from.

    >>> choose_loss("binary", np.array([0, 1])), choose_loss("binary", np.array([1, 1]))
    ('online_contrastive', 'multiple_negatives_ranking')
    """
    if kind == "classes":
        raise InputError("--architecture bi_encoder: a cosine does not tell classes apart; take cross_encoder")
    if wanted in (*BINARY_LOSSES, *IN_BATCH_NEGATIVES) and kind == "scores":
        raise InputError(f"--loss {wanted} needs binary labels, and these are scores; take {' or '.join(SCORE_LOSSES)}")
    if wanted in IN_BATCH_NEGATIVES and not (labels == 1).any():
        raise InputError(f"--loss {wanted} needs positive pairs, and none is in the training split; take another")
    if wanted is not None:
        return wanted
    if kind == "scores":
        return "cosent"
    return RANKING if (labels == 1).all() else "online_contrastive"


def learned_pairs(pairs: Pairs, loss: str) -> Pairs:
    """The pairs that a loss learns from: all, or the positive ones where the batch gives the negatives."""
    return pairs.subset(np.flatnonzero(pairs.labels == 1)) if loss in IN_BATCH_NEGATIVES else pairs


def embedding_loss(name: str, matryoshka_dims: Sequence[int] = ()) -> LossFunction:
    """The ``compute_loss_func`` of one of ``LOSSES``, on the ``PairEmbeddings`` of a batch.

    With ``matryoshka_dims`` the sum over these leading dimensions and the whole vector (Kusupati et al., 2022).
    In-batch negatives of a pair are the second sentences of the other pairs of this process's batch, but for those of
    its own group. The cached loss differs in the forward only (see ``bind_bi_encoder``).

    These losses look at a batch as a whole, not at one row after the other: of an optimizer step it is the mean over
    the batches, each counted by its pairs, so accumulated batches and several processes are not one big batch.
    """
    return partial(_step_loss, name=name, matryoshka_dims=matryoshka_dims)


def score_embedded_pairs(model: PreTrainedModel, batch: dict[str, Any], *, scheme: LabelScheme) -> dict[str, Tensor]:
    """Columns of a batch built ``with_rows``, for ``StageTrainer``'s ``score_batch``: (B,) each.

    ``row``, ``score`` (the cosine; for scores put into the labels' range, which spans cosines from 0 to 1), and
    ``label`` in its own range where there are labels.
    """
    outputs = model(**{name: values for name, values in batch.items() if name not in ("rows", "labels")})
    cosines = (outputs.embeddings1.double() * outputs.embeddings2.double()).sum(1)
    is_score = scheme.kind == "scores"
    columns = {"row": batch["rows"], "score": own_range(scheme, cosines) if is_score else cosines}
    if "labels" in batch:
        columns["label"] = own_range(scheme, batch["labels"].double()) if is_score else batch["labels"]
    return columns


def cosine_row_metrics(columns: dict[str, np.ndarray], *, scheme: LabelScheme) -> dict[str, Any]:
    """Metrics of validation pairs: ``compute_pair_metrics``, ``threshold`` (binary), and a ``loss``.

    Binary pairs are cut where these very pairs are decided best, so the metrics of a threshold flatter a little;
    pairs that all have one label have no threshold. ``loss`` is a mean over the pairs, whatever the training loss, so
    that no batch size changes it: the contrastive loss of binary pairs, the squared error of scores in [0, 1].
    """
    scores, labels = columns["score"], columns["label"]
    if scheme.kind == "scores":
        errors = (scores - labels) / (scheme.high - scheme.low)
        return {"loss": float(np.mean(errors**2)), **compute_pair_metrics(scheme.kind, scores, labels)}
    threshold = None if (labels == labels[0]).all() else best_threshold(scores, labels)
    metrics = compute_pair_metrics(scheme.kind, scores, labels, threshold)
    return {"loss": _contrastive(scores, labels), "threshold": threshold, **metrics}


def _step_loss(
    outputs: PairEmbeddings,
    labels: Tensor,
    num_items_in_batch: Tensor | int | None = None,
    *,
    name: str,
    matryoshka_dims: Sequence[int],
) -> Tensor:
    vectors1, vectors2 = outputs.embeddings1, outputs.embeddings2
    if not len(labels):  # a filler's batch: nothing, but the processes wait for its gradients
        return vectors1.sum() + vectors2.sum()
    given = _GivenVectors(vectors1.shape[1])
    loss = _library_loss(name, given, outputs.groups)
    if matryoshka_dims:
        loss = MatryoshkaLoss(cast(SentenceTransformer, given), loss, sorted({*matryoshka_dims, vectors1.shape[1]}))
    value = loss([{"sentence_embedding": vectors1}, {"sentence_embedding": vectors2}], labels)
    return value if num_items_in_batch is None else value * (len(labels) / num_items_in_batch)


def _library_loss(name: str, given: "_GivenVectors", groups: Tensor | None) -> nn.Module:
    if name not in IN_BATCH_NEGATIVES:
        return {**BINARY_LOSSES, **SCORE_LOSSES}[name](given)
    known = groups.unsqueeze(1) == groups.unsqueeze(0)  # (B, B) known positives; the pair itself is the one to find
    return MultipleNegativesRankingLoss(
        cast(SentenceTransformer, given), similarity_fct=partial(_cosines_to_unknown, known=known)
    )


def _cosines_to_unknown(vectors1: Tensor, vectors2: Tensor, *, known: Tensor) -> Tensor:
    """Cosines (B, B), and -inf, so no part of the softmax, where the other text is a known positive."""
    others = ~torch.eye(len(known), dtype=torch.bool, device=known.device)
    return cos_sim(vectors1, vectors2).masked_fill(known & others, float("-inf"))


class _GivenVectors(nn.Module):
    """What the losses take for the model: it hands on the vectors that they are given."""

    def __init__(self, width: int):
        super().__init__()
        self.width = width

    def forward(self, features: dict[str, Tensor]) -> dict[str, Tensor]:
        return dict(features)

    def get_embedding_dimension(self) -> int:
        return self.width


def _contrastive(cosines: np.ndarray, labels: np.ndarray) -> float:
    """The library's contrastive loss, whose distance is 1 - cosine."""
    values = torch.from_numpy(cosines)
    loss = ContrastiveLoss(None, distance_metric=lambda cosine, _: 1 - cosine)
    return float(loss.compute_loss_from_embeddings([values, values], torch.from_numpy(labels)))
