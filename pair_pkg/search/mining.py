"""Pairs worth labelling or learning from: hard negatives for labelled pairs, and candidates for paraphrases."""

# R rows, D width of a vector

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import datasets
import numpy as np
import torch
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.util import dot_score, mine_hard_negatives, paraphrase_mining_embeddings

from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import connected_components, normalize_text, pair_keys
from pair_pkg.search.faiss_index import HNSW, MAX_FLAT_ROWS, build_index, search_rows
from pair_pkg.search.vector_files import float_blocks

QUERY_CHUNK, CORPUS_CHUNK = 1_000, 50_000  # rows compared at once: 200 MB; the library's own take 2 GB
SPARE_NEGATIVES = 10  # asked for beyond what is wanted, for those that turn out to be known pairs

Encode = Callable[[list[str]], np.ndarray]  # texts -> unit rows (R, D)
Score = Callable[[list[str], list[str]], np.ndarray]  # both sentences of pairs -> their probability or score (R,)


class Mined(NamedTuple):
    """A pair that was found, and the cosine of its texts."""

    sentence1: str
    sentence2: str
    cosine: float


def mine_negatives(
    pairs: Pairs,
    positive: int,
    corpus: Sequence[str],
    encode: Encode,
    *,
    num_negatives: int,
    relative_margin: float,
    range_min: int,
    rescore: Score | None = None,
    max_score: float | None = None,
) -> list[Mined]:
    """For the first sentence of each positive pair, texts of the corpus that are near to it and mean something else.

    sentence-transformers searches and applies the margin: a negative's cosine (with ``rescore``: its score) must be
    below (1 - ``relative_margin``) times that of the anchor's farthest positive, and not above ``max_score``. Left out
    are the texts that positive pairs tie to the anchor, over however many steps, and pairs that stand in ``pairs``.
    """
    rows = np.flatnonzero(pairs.labels == positive)
    anchors, positives = ([column[row] for row in rows] for column in (pairs.sentence1, pairs.sentence2))
    found = mine_hard_negatives(
        datasets.Dataset.from_dict({"anchor": anchors, "positive": positives}),
        cast(SentenceTransformer, _Encoder(encode)),
        corpus=list(corpus),
        cross_encoder=None if rescore is None else cast(CrossEncoder, _CrossEncoder(rescore)),
        range_min=range_min,
        relative_margin=relative_margin,
        max_score=max_score,
        num_negatives=num_negatives + SPARE_NEGATIVES,
        output_format="labeled-pair",
        use_faiss=True,
        verbose=False,
    )
    candidates = [(row["anchor"], row["positive"]) for row in found if row["label"] == 0]
    kept = _without_known(candidates, pairs, anchors, positives, num_negatives)
    return _with_cosines(kept, encode)


def mine_paraphrases(
    texts: Sequence[str], vectors: np.ndarray, *, top_k: int, max_pairs: int, min_cosine: float
) -> list[Mined]:
    """The nearest pairs of distinct texts with their unit rows (R, D), the nearest first.

    Texts that differ in case, width or blanks only are no pair. By sentence-transformers' miner, exact, below 200,000
    texts; beyond, by the ``top_k`` neighbours in a graph.
    """
    triples: Any  # a cosine and two rows each
    if len(texts) < MAX_FLAT_ROWS:
        triples = paraphrase_mining_embeddings(
            torch.from_numpy(np.array(vectors, dtype=np.float32)),
            query_chunk_size=QUERY_CHUNK,
            corpus_chunk_size=CORPUS_CHUNK,
            max_pairs=max_pairs,
            top_k=min(top_k, len(texts) - 1),
            score_function=dot_score,
        )
    else:
        triples = _graph_pairs(vectors, top_k, max_pairs)
    mined = (Mined(texts[first], texts[second], cosine) for cosine, first, second in triples if cosine >= min_cosine)
    return [pair for pair in mined if normalize_text(pair.sentence1) != normalize_text(pair.sentence2)]


def _without_known(
    candidates: list[tuple[str, str]], pairs: Pairs, anchors: list[str], positives: list[str], num_negatives: int
) -> list[tuple[str, str]]:
    """At most ``num_negatives`` an anchor, none of them known; candidates come by falling score."""
    groups = connected_components(anchors, positives)
    group_of = {normalize_text(text): group for column in (anchors, positives) for text, group in zip(column, groups)}
    known = set(pair_keys(pairs.sentence1, pairs.sentence2))
    kept, counts = [], dict.fromkeys(anchors, 0)
    for (anchor, other), key in zip(candidates, pair_keys(*zip(*candidates)) if candidates else []):
        same = key[0] == key[1] or group_of[normalize_text(anchor)] == group_of.get(normalize_text(other))
        if not same and key not in known and counts[anchor] < num_negatives:
            known.add(key)
            counts[anchor] += 1
            kept.append((anchor, other))
    return kept


def _with_cosines(pairs: list[tuple[str, str]], encode: Encode) -> list[Mined]:
    if not pairs:
        return []
    vectors = encode([text for pair in pairs for text in pair])
    cosines = (vectors[::2] * vectors[1::2]).sum(1)
    return [Mined(*pair, float(cosine)) for pair, cosine in zip(pairs, cosines)]


def _graph_pairs(vectors: np.ndarray, top_k: int, max_pairs: int) -> list[tuple[float, int, int]]:
    index, _ = build_index(vectors, HNSW)
    found: list[np.ndarray] = []  # (3, n): first row, second row, cosine
    for start, block in float_blocks(vectors, 1024):
        cosines, rows = search_rows(index, block, top_k + 1)
        own = np.broadcast_to(np.arange(start, start + len(block))[:, None], rows.shape)
        real = (rows >= 0) & (rows != own)
        ends = np.sort(np.stack([own[real], rows[real]]), axis=0)
        found.append(np.concatenate([ends, cosines[real][None]]))
    table = np.concatenate(found, axis=1)
    _, first = np.unique(table[0] * len(vectors) + table[1], return_index=True)  # a pair is found from either side
    best = first[np.argsort(-table[2, first], kind="stable")[:max_pairs]]
    return [(float(cosine), int(a), int(b)) for a, b, cosine in table[:, best].T]


class _Encoder:
    """Our encoder with the methods that the library's miner calls."""

    device = torch.device("cpu")

    def __init__(self, encode: Encode):
        self._encode = encode

    def encode_query(self, texts: list[str], **_: object) -> np.ndarray:
        return self._encode(texts)

    encode_document = encode_query

    def get_embedding_dimension(self) -> int:
        return self._encode([""]).shape[1]

    def similarity_pairwise(self, left: np.ndarray, right: np.ndarray) -> torch.Tensor:
        return torch.from_numpy((left * right).sum(1))


class _CrossEncoder:
    """Our scorer with the method that the library's miner calls."""

    def __init__(self, score: Score):
        self._score = score

    def predict(self, pairs: Sequence[tuple[str, str]], **_: object) -> torch.Tensor:
        left, right = zip(*pairs)
        return torch.from_numpy(np.asarray(self._score(list(left), list(right)), dtype=np.float32))
