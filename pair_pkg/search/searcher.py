"""An index asked in Python: texts in, their neighbours out, as ``python -m pair_pkg search`` gives them."""

# Q queries

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pair_pkg.data.texts import refuse_single_text
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.search.answers import Answer, Judge, JudgePairs, find_hits, rerank
from pair_pkg.search.index_folder import SearchIndex, open_index, read_manifest, refuse_other_model
from pair_pkg.search.ready_encoder import BATCH_TOKENS, ReadyEncoder, load_encoder, warn_of_cut
from pair_pkg.search.verdicts import PairJudge, cosine_judge

TOP_K, RERANK_TOP_K = 10, 50


@dataclass(frozen=True)
class Searcher:
    """An opened index with the encoder of its queries; see ``load_searcher``."""

    encoder: ReadyEncoder
    index: SearchIndex
    judge: Judge | None  # the bi-encoder's own decision, where no cross-encoder ranks
    judge_pairs: JudgePairs | None  # the cross-encoder

    def search(self, queries: Sequence[str], *, top_k: int = TOP_K, rerank_top_k: int = RERANK_TOP_K) -> list[Answer]:
        """The ``top_k`` nearest texts of each of Q queries, the best first: Q answers.

        A hit has ``id``, ``text`` and ``cosine`` (-1 to 1); ``probability`` (0 to 1) and ``same`` where a model
        decides. A cross-encoder is shown the ``rerank_top_k`` nearest texts, at least ``top_k``, and ranks them by
        its probability. How many queries are longer than the model reads is logged. Raises ``InputError`` for a bare
        string, a query of blanks, and numbers below 1.
        """
        refuse_single_text(queries, "queries")
        if top_k < 1 or rerank_top_k < 1:
            raise InputError("--top_k and --rerank_top_k: give at least 1")
        queries = list(queries)
        blank = next((number for number, query in enumerate(queries, start=1) if not query.strip()), None)
        if blank:
            raise InputError(f"query {blank} of {len(queries)}: is empty; give words to search for")
        audit = EncodingAudit()
        vectors = self.encoder.encode(queries, audit=audit)
        warn_of_cut(audit, self.encoder.encoder)
        if self.judge_pairs is None:
            return find_hits(self.index, queries, vectors, top_k, self.judge)
        candidates = find_hits(self.index, queries, vectors, max(top_k, rerank_top_k))
        return rerank(candidates, self.judge_pairs, top_k)


def load_searcher(
    index_dir: str | os.PathLike,
    *,
    model: str | None = None,
    reranker: str | None = None,
    dtype: str = "float32",
    device: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Searcher:
    """An index's folder, verified and opened, with the bi-encoder that it was built with.

    ``model`` says where that bi-encoder lies now, if elsewhere; ``reranker`` is the folder of a cross-encoder of binary
    labels. The others are those of ``load_encoder``. Raises ``InputError`` for a folder that is no whole index, for
    another model than the index was built with, and for a reranker without a decision.
    """
    folder = Path(index_dir)
    manifest = read_manifest(folder)
    name = model or manifest["model"].get("name")
    encoder = load_encoder(name, dtype=dtype, device=device, batch_tokens=batch_tokens)
    refuse_other_model(manifest, folder, encoder.name, encoder.fingerprint)
    judge_pairs = PairJudge(resolve_package(reranker), "--rerank") if reranker else None
    judge = cosine_judge(encoder.name) if judge_pairs is None else None
    return Searcher(encoder, open_index(folder), judge, judge_pairs)
