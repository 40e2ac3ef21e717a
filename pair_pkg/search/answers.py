"""Answers to queries: the nearest texts of an index, with verdicts, and ranked anew by a cross-encoder."""

# Q queries, D width of a vector

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pair_pkg.search.index_folder import SearchIndex

BATCH_QUERIES = 1_000  # searched at once: FAISS shares them among its threads

Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]  # scores -> probabilities, and whether each is a yes
JudgePairs = Callable[[list[str], list[str]], tuple[np.ndarray, np.ndarray]]  # the same for both sentences of pairs


@dataclass(frozen=True)
class Hit:
    """A text that was found; ``probability`` and ``same`` are the cross-encoder's, or the bi-encoder's decision."""

    id: str
    text: str
    cosine: float
    probability: float | None = None
    same: bool | None = None


@dataclass(frozen=True)
class Answer:
    """A query and its hits, the best first."""

    query: str
    hits: list[Hit]


def find_hits(
    opened: SearchIndex, queries: Sequence[str], vectors: np.ndarray, top_k: int, judge: Judge | None = None
) -> list[Answer]:
    """The ``top_k`` nearest texts of each query, whose unit vectors are (Q, D)."""
    answers = []
    for start in range(0, len(queries), BATCH_QUERIES):
        cosines, rows = opened.search(vectors[start : start + BATCH_QUERIES], top_k)
        for query, query_cosines, query_rows in zip(queries[start : start + BATCH_QUERIES], cosines, rows):
            answers.append(Answer(query, _hits(opened, query_cosines, query_rows, judge)))
    return answers


def rerank(answers: Sequence[Answer], judge_pairs: JudgePairs, top_k: int) -> list[Answer]:
    """The ``top_k`` best of each answer's hits by a cross-encoder's probability, all pairs scored in one call."""
    left = [answer.query for answer in answers for _ in answer.hits]
    right = [hit.text for answer in answers for hit in answer.hits]
    if not left:
        return list(answers)
    judged = iter(zip(*(values.tolist() for values in judge_pairs(left, right))))
    ranked = []
    for answer in answers:
        hits = [
            dataclasses.replace(hit, probability=probability, same=bool(same))
            for hit, (probability, same) in zip(answer.hits, judged)
        ]
        hits.sort(key=lambda hit: -hit.probability)
        ranked.append(Answer(answer.query, hits[:top_k]))
    return ranked


def _hits(opened: SearchIndex, cosines: np.ndarray, rows: np.ndarray, judge: Judge | None) -> list[Hit]:
    cosines = cosines[rows >= 0]
    verdicts: list[tuple[float | None, bool | None]] = [(None, None)] * len(cosines)
    if judge is not None:
        probabilities, same = judge(cosines)
        verdicts = list(zip(probabilities.tolist(), map(bool, same)))
    return [
        Hit(record.id, record.text, float(cosine), *verdict)
        for record, cosine, verdict in zip(opened.records(rows), cosines, verdicts)
    ]
