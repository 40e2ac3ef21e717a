"""Sentence pairs from files of every format: read, labelled and audited, each row with its place."""

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from pair_pkg.columns import (
    LABEL,
    LABEL_SYNONYMS,
    SENTENCE1,
    SENTENCE1_SYNONYMS,
    SENTENCE2,
    SENTENCE2_SYNONYMS,
    SOURCE,
)
from pair_pkg.data.files import expand_paths
from pair_pkg.data.labels import BOOLEAN_IDS, LabelKind, LabelScheme, detect_labels, is_number, label_key
from pair_pkg.data.splits import conflicting_rows, pair_keys
from pair_pkg.data.tables import TABLE_SUFFIXES, Row, Table, looks_like_header, pick_column, read_table
from pair_pkg.errors import InputError

logger = logging.getLogger(__name__)

COLUMNS = {  # synonyms in a header, and the position where there is none
    SENTENCE1: (SENTENCE1_SYNONYMS, "0"),
    SENTENCE2: (SENTENCE2_SYNONYMS, "1"),
    LABEL: (LABEL_SYNONYMS, "2"),
}
MAX_CONFLICT_PLACES = 20


@dataclass(frozen=True, eq=False)
class Pairs:
    """N pairs by column; ``labels`` is (N,) int64 class ids or float32 scores, or None.

    ``sources`` tell where each is from: the values of a column ``source``, else the name of its file.
    """

    sentence1: list[str]
    sentence2: list[str]
    labels: np.ndarray | None
    places: list[str]
    sources: list[str] | None = None

    def __len__(self) -> int:
        return len(self.sentence1)

    def subset(self, indices: Iterable[int] | np.ndarray) -> "Pairs":
        """The pairs at ``indices``, in their order."""
        rows = [int(index) for index in indices]
        return Pairs(
            [self.sentence1[row] for row in rows],
            [self.sentence2[row] for row in rows],
            None if self.labels is None else self.labels[rows],
            [self.places[row] for row in rows],
            None if self.sources is None else [self.sources[row] for row in rows],
        )

    def joined(self, other: "Pairs") -> "Pairs":
        """These pairs with ``other``'s behind them; both have labels, or neither."""
        return Pairs(
            [*self.sentence1, *other.sentence1],
            [*self.sentence2, *other.sentence2],
            None if self.labels is None else np.concatenate([self.labels, other.labels]),
            [*self.places, *other.places],
            None if self.sources is None or other.sources is None else [*self.sources, *other.sources],
        )

    def texts(self) -> list[str]:
        """The distinct sentences of both columns, in the order of their first appearance in either column."""
        return list(dict.fromkeys([*self.sentence1, *self.sentence2]))

    def sentences(self, texts: Sequence[str]) -> np.ndarray:
        """The numbers of both sentences of each pair among its distinct ``texts``: (N, 2) int64."""
        number = {text: index for index, text in enumerate(texts)}
        columns = [[number[text] for text in column] for column in (self.sentence1, self.sentence2)]
        return np.array(columns, dtype=np.int64).T


@dataclass(frozen=True)
class PairAudit:
    """What was found while reading; texts are compared by ``splits.normalize_text``, pairs in either order.

    ``rows`` were read, ``empty_skipped`` of them left out. ``identical_sentences`` counts rows with the same text
    twice, ``duplicate_pairs`` rows that repeat an earlier pair with its label, ``conflicting_pairs`` distinct pairs
    with more than one label, at ``conflicting_places`` (up to 20, first row and differing row). ``class_counts`` is
    by class name, empty for scores and without labels.
    """

    rows: int
    empty_skipped: int
    identical_sentences: int
    duplicate_pairs: int
    conflicting_pairs: int
    conflicting_places: list[tuple[str, str]]
    class_counts: dict[str, int]


class _RawPair(NamedTuple):
    sentence1: str
    sentence2: str
    label: object
    place: str
    source: str


def load_pairs(
    paths: Sequence[str],
    *,
    sentence1_column: str | None = None,
    sentence2_column: str | None = None,
    label_column: str | None = None,
    header: bool | None = None,
    encoding: str | None = None,
    delimiter: str | None = None,
    labelled: bool,
    label_optional: bool = False,
    scheme: LabelScheme | None = None,
    label_names: Sequence[str] | None = None,
    label_range: tuple[float, float] | None = None,
    label_kind: LabelKind | None = None,
    strict: bool = False,
) -> tuple[Pairs, LabelScheme | None, PairAudit]:
    """Read files (or folders, or globs) as one list of pairs, files in the order of their paths.

    With ``labelled``, labels are encoded by ``scheme``, or by the scheme that is detected from them; a row with an
    empty sentence is skipped and counted, or refused with ``strict``. Without ``labelled`` no label is read and no
    row is skipped, so that predictions stand beside their rows. ``label_optional`` reads labels where there is a column
    of them, in either case; to learn from, pairs without a label, or with one label only, are positive ones. Without a
    header the first two columns are the sentences and the third is the label. Raises ``InputError`` for rows, columns
    and labels that do not fit.
    """
    wanted = {SENTENCE1: sentence1_column, SENTENCE2: sentence2_column}
    if labelled or label_optional:
        wanted[LABEL] = label_column
    known = scheme or (LabelScheme("classes", list(label_names)) if label_names else None)
    tables = (
        read_table(path, encoding=encoding, delimiter=delimiter, header=header)
        for path in expand_paths(paths, TABLE_SUFFIXES)
    )
    raw = _read_rows(tables, wanted, known, label_optional)
    kept = _drop_empty(raw, strict, labelled)
    has_labels = LABEL in wanted and not (label_optional and all(row.label is None for row in kept))
    if labelled and label_optional and scheme is None and label_names is None:
        scheme = _positive_scheme(kept)
    if has_labels:
        pairs, scheme = _encode_labels(kept, scheme, label_names, label_range, label_kind)
    else:
        pairs = _build_pairs(kept, np.ones(len(kept), dtype=np.int64) if labelled else None)
        scheme = scheme if labelled else None
    return pairs, scheme, _audit(pairs, scheme, len(raw))


def _read_rows(
    tables: Iterable[Table], wanted: dict[str, str | None], known: LabelScheme | None, label_optional: bool
) -> list[_RawPair]:
    raw: list[_RawPair] = []
    ignored: dict[str, None] = {}
    for table in tables:
        picked = _pick_columns(table, _present(table, wanted) if label_optional else wanted)
        source = next((column for column in table.columns if column.lower() == SOURCE), None)
        ignored.update(dict.fromkeys(column for column in table.columns if column not in (*picked, source)))
        rows = [_raw_pair(row, picked, source) for row in table]
        if not table.has_header:
            _refuse_header(rows, LABEL in wanted, known)
        raw += rows
    if ignored:
        logger.info("columns that are not used: %s", ", ".join(ignored))
    return raw


def _present(table: Table, wanted: dict[str, str | None]) -> dict[str, str | None]:
    """What is wanted of a table, without a label that nobody named and that it has no column for."""
    synonyms, position = COLUMNS[LABEL]
    names = synonyms if table.has_header else (position,)
    if wanted[LABEL] is not None or {column.lower() for column in table.columns} & set(names):
        return wanted
    return {name: column for name, column in wanted.items() if name != LABEL}


def _pick_columns(table: Table, wanted: dict[str, str | None]) -> list[str]:
    picked = []
    for name, column in wanted.items():
        synonyms, position = COLUMNS[name]
        names = synonyms if table.has_header else (position,)
        picked.append(pick_column(table.columns, names, column, f"--{name}_column", table.path))
    if len(set(picked)) < len(picked):
        raise InputError(f"{table.path}: columns {', '.join(picked)} must differ; mend --sentence1_column and the like")
    return picked


def _raw_pair(row: Row, picked: list[str], source: str | None) -> _RawPair:
    label = row.values[picked[2]] if len(picked) > 2 else None
    first, second = (_sentence(row, column) for column in picked[:2])
    return _RawPair(first, second, label, row.place, _source(row, source))


def _source(row: Row, column: str | None) -> str:
    """Where a pair is from: what its column says, or its file."""
    return row.place.rsplit(":", 1)[0] if column is None else str(row.values[column] or "(none)")


def _sentence(row: Row, column: str) -> str:
    value = row.values[column]
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(
            f"{row.place}: {column} is {value!r}, not text; quote it or mend --sentence1_column and the like"
        )
    return value


def _refuse_header(rows: list[_RawPair], labelled: bool, known: LabelScheme | None) -> None:
    """Refuse a first row that was read as a pair and is the names of the columns."""
    first, label = rows[0], "" if rows[0].label is None else str(rows[0].label)
    if known is not None:
        odd_label = not known.accepts(label)
    else:
        odd_label = len(rows) > 1 and not is_number(label) and is_number(str(rows[1].label))
    odd_label = odd_label and labelled and bool(label.strip())  # a missing label is told as such
    if odd_label or looks_like_header([first.sentence1, first.sentence2, label]):
        what = f"label {label!r} is none of the labels" if labelled else f"{first.sentence1!r} is the name of a column"
        raise InputError(
            f"{first.place}: {what}, this looks like a header; read it as one with --header, or fix the row"
        )


def _drop_empty(raw: list[_RawPair], strict: bool, labelled: bool) -> list[_RawPair]:
    kept = []
    for row in raw:
        if row.sentence1.strip() and row.sentence2.strip():
            kept.append(row)
        elif strict or not labelled:
            cure = "fill it in, or leave out --strict" if labelled else "fill it in or remove the row"
            column = SENTENCE2 if row.sentence1.strip() else SENTENCE1
            raise InputError(f"{row.place}: {column} is empty; {cure}")
    if not kept:
        raise InputError(
            f"{raw[0].place}: no pairs are left, all {len(raw)} rows have an empty sentence; mend the file"
        )
    if len(kept) < len(raw):
        logger.warning("%d of %d rows have an empty sentence and are skipped", len(raw) - len(kept), len(raw))
    return kept


def _encode_labels(
    rows: list[_RawPair],
    scheme: LabelScheme | None,
    label_names: Sequence[str] | None,
    label_range: tuple[float, float] | None,
    label_kind: LabelKind | None,
) -> tuple[Pairs, LabelScheme]:
    values, places = [row.label for row in rows], [row.place for row in rows]
    if scheme is None:
        scheme = detect_labels(values, places, label_names=label_names, label_range=label_range, kind=label_kind)
    return _build_pairs(rows, scheme.encode_all(values, places)), scheme


def _positive_scheme(rows: list[_RawPair]) -> LabelScheme | None:
    """The scheme of pairs that are all positive, having no label or one; None where labels differ or are a "no"."""
    found = {label_key(row.label, row.place): str(row.label).strip() for row in rows if row.label is not None}
    if not found:
        return LabelScheme("binary", ["0", "1"])
    if len(found) > 1 or BOOLEAN_IDS.get(next(iter(found)), 1) == 0:
        return None
    [(key, name)] = found.items()
    return LabelScheme("binary", ["0", "1"] if key in BOOLEAN_IDS else [f"not {name}", name])


def _build_pairs(rows: list[_RawPair], labels: np.ndarray | None) -> Pairs:
    sentences = [row.sentence1 for row in rows], [row.sentence2 for row in rows]
    return Pairs(*sentences, labels, [row.place for row in rows], [row.source for row in rows])


def _audit(pairs: Pairs, scheme: LabelScheme | None, num_rows: int) -> PairAudit:
    keys = pair_keys(pairs.sentence1, pairs.sentence2)
    labels = [None] * len(pairs) if pairs.labels is None else pairs.labels.tolist()
    conflicts = conflicting_rows(keys, labels)
    differing = ((rows[0], next(row for row in rows if labels[row] != labels[rows[0]])) for rows in conflicts)
    counts = np.bincount(pairs.labels, minlength=len(scheme.names)).tolist() if scheme and scheme.names else []
    return PairAudit(
        rows=num_rows,
        empty_skipped=num_rows - len(pairs),
        identical_sentences=sum(left == right for left, right in keys),
        duplicate_pairs=len(pairs) - len(set(zip(keys, labels))),
        conflicting_pairs=len(conflicts),
        conflicting_places=[(pairs.places[a], pairs.places[b]) for a, b in islice(differing, MAX_CONFLICT_PLACES)],
        class_counts=dict(zip(scheme.names, counts)) if counts else {},
    )
