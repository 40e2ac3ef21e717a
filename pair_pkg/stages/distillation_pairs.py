"""Pairs for a student: sentences of a corpus, paired over the whole range of similarity, scored by the teacher.

They stand in ``mined/`` below the run's folder: ``train.csv`` and ``validation.csv``, with the source of each pair, and
``run.json`` with the counts. A folder with the same teacher, student, corpus and settings is taken as it is, and one
that was broken off is continued from the last scored chunk.
"""

# P pairs

import csv
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pair_pkg.columns import LABEL, SENTENCE1, SENTENCE2, TRAIN, VALIDATION
from pair_pkg.data.arrays import create_npy
from pair_pkg.data.corpus import CORPUS_SUFFIXES, CorpusAudit, clean_documents, read_documents
from pair_pkg.data.files import expand_paths
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.data.sentences import sample_sentences
from pair_pkg.data.splits import normalize_text
from pair_pkg.data.tables import read_table
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import SentenceEncoder, encode_texts
from pair_pkg.pairs.scorer import Scorer
from pair_pkg.pairs.words import split_words
from pair_pkg.records import fingerprint, fingerprint_files, fingerprint_model, read_record, write_record
from pair_pkg.search.candidates import SOURCES, sample_candidates
from pair_pkg.stages.arguments.distillation import DistillationFlags
from pair_pkg.stages.terminal import announce
from pair_pkg.training.checkpoints import FINISHED, RUNNING

SCORES = LabelScheme("scores", [], 0.0, 1.0)  # what a student learns: the teacher's probability
DIGITS = 2  # of a score: the loss asks for the order of any two that differ, and a teacher's third digit is noise
SOURCE, SPLIT, LABELLED = "source", "split", "labelled"
CANDIDATES_NAME, SCORES_NAME = "candidates.csv", "scores.npy"
CHUNK_PAIRS = 1_000  # scored between two writes: seconds of work that a break can cost
MIN_WORDS, MAX_WORDS = 4, 60  # of a sentence: a heading is no sentence, and a list is many
MIN_SENTENCES = 20  # of a split


@dataclass(frozen=True)
class Candidate:
    """A pair to be scored."""

    split: str
    source: str
    sentence1: str
    sentence2: str


def load_or_mine(
    flags: DistillationFlags, given: dict[str, Pairs], student: SentenceEncoder, teacher: Scorer
) -> tuple[dict[str, Pairs], dict[str, Any]]:
    """Scored pairs by split, of the corpus and of the ``given`` labelled training pairs, and their counts.

    Sentences that stand in a given pair are left out of the corpus; those of training pairs are paired as the
    corpus's are. Raises ``InputError`` where the corpus is too small.
    """
    folder = Path(flags.stage2.training.output_dir, "mined")
    identity = _identity(flags, given)
    record = read_record(folder) or {}
    if (record.get("identity"), record.get("status")) != (identity, FINISHED):
        with flags.stage2.training.main_process_first(local=False, desc="mining pairs"):
            if flags.stage2.training.should_save:
                record = _mine(flags, given, student, teacher, folder, identity)
        record = read_record(folder)
    splits = {name: _load(folder / f"{name}.csv") for name in (TRAIN, VALIDATION)}
    return splits, record["counts"]


def precision_of(flags: DistillationFlags) -> torch.dtype:
    """What mining multiplies in: bfloat16 where training does, for its third digit is rounded off anyway."""
    return torch.bfloat16 if flags.stage2.training.bf16 else torch.float32


def teacher_scores(teacher: Scorer, sentence1: list[str], sentence2: list[str]) -> np.ndarray:
    """What the teacher says of pairs, in [0, 1]: (P,) calibrated probabilities, or scores of its own range."""
    verdicts = teacher.predict(sentence1, sentence2)
    if verdicts.probabilities is not None:
        return verdicts.probabilities
    scheme = teacher.scheme
    return np.clip((verdicts.scores - scheme.low) / (scheme.high - scheme.low), 0, 1)


def _identity(flags: DistillationFlags, given: dict[str, Pairs]) -> dict[str, Any]:
    """Everything that decides on the pairs and their scores."""
    asked = flags.distillation
    members = read_record(asked.teacher).get("members", [])  # of an ensemble
    return {
        "teacher": asked.teacher,
        "teacher_fingerprint": [fingerprint_model(Path(asked.teacher, name)) for name in (".", *members)],
        "student": asked.student,
        "student_fingerprint": fingerprint_model(asked.student),
        "corpus": fingerprint_files(expand_paths(asked.corpus, CORPUS_SUFFIXES)),
        "given": {name: fingerprint([pairs.sentence1, pairs.sentence2]) for name, pairs in given.items()},
        "labels": fingerprint(given[TRAIN].labels.tolist()) if TRAIN in given else None,
        "pooling": flags.stage2.architecture.pooling,
        "text_normalization": flags.stage2.pairs.text_normalization,
        "max_seq_length": flags.stage2.pairs.max_seq_length,
        "seed": flags.stage2.pairs.split_seed,
        "validation_split_percentage": flags.stage2.pairs.validation_split_percentage,
        **{name: getattr(asked, name) for name in ("text_column", "document_per", "max_sentences", "num_pairs")},
    }


def _mine(
    flags: DistillationFlags,
    given: dict[str, Pairs],
    student: SentenceEncoder,
    teacher: Scorer,
    folder: Path,
    identity: dict[str, Any],
) -> dict[str, Any]:
    if (read_record(folder) or {}).get("identity") != identity or not (folder / CANDIDATES_NAME).is_file():
        for name in (CANDIDATES_NAME, SCORES_NAME):
            (folder / name).unlink(missing_ok=True)
        candidates, counts = _find_candidates(flags, given, student, folder)
        _write_table(folder / CANDIDATES_NAME, [SENTENCE1, SENTENCE2, SOURCE, SPLIT], (
            (pair.sentence1, pair.sentence2, pair.source, pair.split) for pair in candidates
        ))  # fmt: skip
        write_record(folder, {"status": RUNNING, "identity": identity, "counts": counts})
    candidates = [
        Candidate(*(str(row.values[name]) for name in (SPLIT, SOURCE, SENTENCE1, SENTENCE2)))
        for row in read_table(folder / CANDIDATES_NAME, header=True)
    ]
    scores = _score(candidates, teacher, folder / SCORES_NAME)
    if np.ptp(np.round(scores, DIGITS)) == 0:
        raise InputError(
            f"--teacher {flags.distillation.teacher}: says the same of every pair; give one that has learnt"
        )
    counts = read_record(folder)["counts"] | _describe(candidates, scores)
    for name in (TRAIN, VALIDATION):
        rows = [
            (pair.sentence1, pair.sentence2, f"{score:.{DIGITS}f}", pair.source)
            for pair, score in zip(candidates, scores.tolist())
            if pair.split == name
        ]
        if name == TRAIN and TRAIN in given:
            rows += _labelled_rows(given[TRAIN], teacher.scheme)
            counts[LABELLED] = len(given[TRAIN])
        _write_table(folder / f"{name}.csv", [SENTENCE1, SENTENCE2, LABEL, SOURCE], rows)
    record = {"status": FINISHED, "identity": identity, "counts": counts}
    write_record(folder, record)
    return record


def _find_candidates(
    flags: DistillationFlags, given: dict[str, Pairs], student: SentenceEncoder, folder: Path
) -> tuple[list[Candidate], dict[str, Any]]:
    asked, seed = flags.distillation, flags.stage2.pairs.split_seed
    audit = CorpusAudit()
    files = expand_paths(asked.corpus, CORPUS_SUFFIXES)
    read = read_documents(files, text_column=asked.text_column, document_per=asked.document_per)
    taken = {normalize_text(text) for pairs in given.values() for text in pairs.texts()}
    sentences = sample_sentences(
        (document.text for document in clean_documents(read, audit, digest_dir=folder)),
        asked.max_sentences,
        seed,
        excluded=taken,
        serves=lambda sentence: MIN_WORDS <= len(split_words(sentence)) <= MAX_WORDS,
    )
    rng = np.random.default_rng(seed)
    fraction = flags.stage2.pairs.validation_split_percentage / 100
    held_out = round(len(sentences) * fraction)
    order = rng.permutation(len(sentences))
    own = given[TRAIN].texts() if TRAIN in given else []
    pools = {VALIDATION: [sentences[row] for row in order[:held_out]],
             TRAIN: [*(sentences[row] for row in order[held_out:]), *own]}  # fmt: skip
    if len(pools[VALIDATION]) < MIN_SENTENCES:
        raise InputError(
            f"--corpus: {len(sentences):,} sentences of {MIN_WORDS} to {MAX_WORDS} words in {audit.documents_kept:,} "
            f"documents, too few to pair; at least {round(MIN_SENTENCES / fraction):,} are needed, so give more text"
        )
    counts = {"documents": audit.documents_kept, "sentences": len(sentences), "sentences_of_training_pairs": len(own)}
    shares = {VALIDATION: round(asked.num_pairs * fraction)}
    shares[TRAIN] = asked.num_pairs - shares[VALIDATION]
    announce(f"corpus: {counts['documents']:,} documents, {len(sentences):,} sentences; looking for their neighbours")
    candidates: list[Candidate] = []
    for name, pool in pools.items():
        pairs, sources = sample_candidates(encode_texts(student, pool, dtype=precision_of(flags)), shares[name], rng)
        candidates += [
            Candidate(name, SOURCES[source], pool[first], pool[second])
            for (first, second), source in zip(pairs.tolist(), sources.tolist())
        ]
    return candidates, counts


def _score(candidates: list[Candidate], teacher: Scorer, path: Path) -> np.ndarray:
    """The teacher's scores of all candidates, (P,), going on behind those that ``path`` holds already."""
    if path.is_file():
        scores = np.lib.format.open_memmap(path, mode="r+")
    else:
        fresh = path.with_name(f"{path.name}.new")
        scores = create_npy(fresh, np.dtype(np.float64), (len(candidates),))
        scores[:] = np.nan
        scores.flush()
        fresh.rename(path)
    for start in range(0, len(candidates), CHUNK_PAIRS):
        part = slice(start, start + CHUNK_PAIRS)
        if np.isnan(scores[part]).any():
            chunk = candidates[part]
            scores[part] = teacher_scores(
                teacher, [pair.sentence1 for pair in chunk], [pair.sentence2 for pair in chunk]
            )
            scores.flush()
            announce(f"scored by the teacher: {min(part.stop, len(candidates)):,} of {len(candidates):,} pairs")
    return np.array(scores)


def _describe(candidates: list[Candidate], scores: np.ndarray) -> dict[str, Any]:
    """Pairs by split, and by source the mean score and how many lie in each tenth of the range."""
    sources = np.array([pair.source for pair in candidates])
    tenths = np.minimum((scores * 10).astype(int), 9)
    return {
        "pairs": dict(Counter(pair.split for pair in candidates)),
        "mean_score": {name: round(float(scores[sources == name].mean()), 4) for name in SOURCES if name in sources},
        "pairs_by_tenth_of_the_score": np.bincount(tenths, minlength=10).tolist(),
    }


def _labelled_rows(pairs: Pairs, scheme: LabelScheme) -> Iterable[tuple[str, str, str, str]]:
    """Labelled pairs with their labels as scores from 0 to 1."""
    if scheme.kind == "scores":
        scores = (pairs.labels - scheme.low) / (scheme.high - scheme.low)
    else:
        scores = pairs.labels.astype(np.float64)
    for first, second, score in zip(pairs.sentence1, pairs.sentence2, scores.tolist()):
        yield first, second, f"{score:.{DIGITS}f}", LABELLED


def _write_table(path: Path, header: list[str], rows: Iterable[tuple[str, ...]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    with open(partial, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    partial.replace(path)


def _load(path: Path) -> Pairs:
    return load_pairs([str(path)], header=True, labelled=True, scheme=SCORES)[0]
