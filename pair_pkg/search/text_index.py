"""A FAISS index of texts that are in memory; ``python -m pair_pkg index`` makes the same folder of files."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from pair_pkg.data.corpus import text_digest
from pair_pkg.data.texts import refuse_single_text
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit
from pair_pkg.search.faiss_index import INDEX_TYPES
from pair_pkg.search.index_changes import create_index
from pair_pkg.search.index_folder import MANIFEST, changing
from pair_pkg.search.ready_encoder import ReadyEncoder, warn_of_cut
from pair_pkg.search.text_store import Record

ROW_NUMBERS = "row numbers"
GIVEN_IDS = "id"


def index_texts(
    texts: Sequence[str],
    encoder: ReadyEncoder,
    index_dir: str | os.PathLike,
    *,
    ids: Sequence[str] | None = None,
    index_type: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Encode texts and write their index; returns its manifest (counts, recall against exact search, files).

    ``encoder`` is from ``load_encoder``. Without ``ids`` the texts are numbered from "0". ``index_type`` is flat, hnsw
    or ivf_pq; unset, what fits their number and the memory. All vectors are in memory, 4 bytes times the model's width
    for a text: for more texts than that allows there is the command. Raises ``InputError`` for an empty text, an id
    that stands twice, and a folder that holds an index already, unless ``overwrite``.
    """
    refuse_single_text(texts, "texts")
    folder = Path(index_dir)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; name a folder for the index")
    if (folder / MANIFEST).is_file() and not overwrite:
        raise InputError(f"{folder}: holds an index already; name another folder, or give overwrite=True")
    if index_type not in (None, *INDEX_TYPES):
        raise InputError(f"index_type {index_type}: unknown; give one of {', '.join(INDEX_TYPES)}, or leave it out")
    records = list(_records(texts, list(map(str, range(len(texts)))) if ids is None else ids))
    if not records:
        raise InputError("texts: none was given; give one or more")
    if not encoder.encoder.normalized:
        raise InputError(f"{encoder.name}: its vectors are not of length 1; load it with unit_rows=True")
    audit = EncodingAudit()
    vectors = encoder.encode(texts, audit=audit)
    warn_of_cut(audit, encoder.encoder)
    facts = index_facts(encoder, ROW_NUMBERS if ids is None else GIVEN_IDS, len(texts))
    with changing(folder):
        return create_index(folder, records, vectors, facts, index_type=index_type)


def index_facts(encoder: ReadyEncoder, ids: str, num_texts: int) -> dict[str, Any]:
    """What a new index's manifest says of the model and the ids: a column of ids, or ``ROW_NUMBERS``."""
    model = {"name": encoder.name, **encoder.identity(), "fingerprint": encoder.fingerprint}
    return {"model": model, "ids": ids, "next_row_number": num_texts}


def _records(texts: Sequence[str], ids: Iterable[str]) -> Iterator[Record]:
    seen: set[str] = set()
    ids = list(ids)
    if len(ids) != len(texts):
        raise InputError(f"ids: {len(ids):,} for {len(texts):,} texts; give each text its own")
    for row, (text, name) in enumerate(zip(texts, ids)):
        place = f"text {row}"
        if not text.strip():
            raise InputError(f"{place}: is empty; leave it out")
        text_digest(text, place)  # refuses half characters
        if name in seen:
            raise InputError(f"{place}: the id {name!r} is taken; give each text its own")
        seen.add(name)
        yield Record(name, text)
