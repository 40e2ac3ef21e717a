"""``python -m pair_pkg distill``: a cross-encoder's judgement in a bi-encoder, learnt from pairs without labels.

python -m pair_pkg distill --teacher out/cross --student MODEL --corpus corpus.jsonl --output_dir out/student \\
    --train_file pairs.csv --test_file test.csv

Sentences of the corpus are paired and scored by the teacher (``distillation_pairs``); a normal bi-encoder run of
stage 2 learns the scores, and the labelled training pairs with them where they are given. The decision is fitted on the
labelled validation pairs, or else on the teacher's verdicts. The folder is a bi-encoder as any other.

The loss is CoSENT unless ``--loss`` says otherwise: it asks a student's cosines for the order of the teacher's scores,
not for their values, which saturate at both ends. MarginMSE (Hofstätter et al., 2020) wants margins of bare scores
reproduced by dot products without bounds, and triplets of a query; cosines cannot reach them.
"""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from transformers import AutoModel

from pair_pkg.columns import CROSS_ENCODER, TEST, VALIDATION
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import find_leaks, refuse_leaks
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import POOLINGS, SentenceEncoder, encode_texts
from pair_pkg.modeling.loading import load_model
from pair_pkg.pairs.decision import Decision, fit_decision, save_decision
from pair_pkg.pairs.loss import own_range
from pair_pkg.pairs.metrics import BINARY, CLASSES, compute_pair_metrics
from pair_pkg.pairs.scorer import Scorer, load_scorer
from pair_pkg.records import read_record, write_record
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.report.tables import format_table
from pair_pkg.stages.arguments.distillation import DISTILLATION_TYPES, DistillationFlags
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.distillation_pairs import SCORES, load_or_mine, precision_of
from pair_pkg.stages.finetune import finetune
from pair_pkg.stages.lifecycle import load_named_config, settle_config
from pair_pkg.stages.pair_report import SHOWN_METRICS
from pair_pkg.stages.pair_setup import DEFAULT_MAX_SEQ_LENGTH, load_pair_tokenizer
from pair_pkg.stages.pairs_data import PairSplits, load_labelled, load_splits
from pair_pkg.stages.predictions import TEST_NAME, write_predictions
from pair_pkg.stages.terminal import announce, set_up_logging
from pair_pkg.training.arguments import COMMAND_LINE, StageParser, parse_arguments

PROGRAM = "python -m pair_pkg distill"
DESCRIPTION = "Train a bi-encoder on what a cross-encoder says of pairs from a corpus."
SECTION = "distillation"  # of run.json

Score = Callable[[list[str], list[str]], np.ndarray]  # both sentences of pairs -> cosines or scores


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Mine, train, judge, print; returns the metrics of the student's run."""
    set_up_logging()
    flags = parse(argv)
    metrics = distill(flags)
    if flags.stage2.training.should_log:
        _print(metrics, flags.stage2.training.output_dir)
    return metrics


def parse(argv: Sequence[str] | None, place: str = COMMAND_LINE) -> DistillationFlags:
    """The flags of the command. Raises ``InputError``."""
    distillation, *rest = parse_arguments(
        DISTILLATION_TYPES, argv, program=PROGRAM, description=DESCRIPTION, place=place
    )
    stage2 = PairFlags(*rest)
    refused = {
        "--model_name_or_path": stage2.model.model_name_or_path,
        "--seeds": stage2.training.seeds,
        "--k_folds": stage2.training.k_folds,
        "--dry_run": stage2.pairs.dry_run,
        "--predict_file": stage2.pairs.predict_file,
        "--augment_graph": stage2.pairs.augment_graph,
    }
    for flag, value in refused.items():
        if value:
            raise InputError(f"distill: {flag} is not served; leave it out (the model to train is --student)")
    model = dataclasses.replace(stage2.model, model_name_or_path=distillation.student)
    return DistillationFlags(distillation, stage2._replace(model=model))


def build_parser() -> StageParser:
    """The flags of the command, as ``--help`` and the shells show them."""
    return StageParser(DISTILLATION_TYPES, PROGRAM, DESCRIPTION)


def distill(flags: DistillationFlags) -> dict[str, Any]:
    """Mine the pairs, train the student on them into ``output_dir``, and judge it; what is finished is kept."""
    teacher = _load_teacher(flags)
    given = _load_given(flags, teacher.scheme)
    student = _untrained_student(flags)
    mined, counts = load_or_mine(flags, given, student, _load_teacher(flags, precision_of(flags)))
    sizes = {name: len(pairs) for name, pairs in mined.items()}
    metrics = finetune(flags.stage2, PairSplits(mined, SCORES, {"pairs": sizes, "mined": counts}))
    record = read_record(flags.stage2.training.output_dir)
    if SECTION not in record and flags.stage2.training.should_save:
        metrics = _judge(flags, given, mined[VALIDATION], teacher, student, record)
    return metrics


def _load_teacher(flags: DistillationFlags, dtype: torch.dtype = torch.float32) -> Scorer:
    name = flags.distillation.teacher
    teacher = load_scorer(name, device=flags.stage2.training.device, dtype=dtype)
    if read_record(name)["architecture"] != CROSS_ENCODER:
        raise InputError(f"--teacher {name}: is no cross-encoder; give the folder of one that run_pair_cls.py wrote")
    if teacher.scheme.kind == CLASSES:
        raise InputError(f"--teacher {name}: tells classes, and a cosine is one number; take binary labels or scores")
    return teacher


def _load_given(flags: DistillationFlags, scheme: LabelScheme) -> dict[str, Pairs]:
    """The labelled pairs by split, as stage 2 would split them; only those that were given."""
    pairs = flags.stage2.pairs
    if pairs.train_file:
        return load_splits(pairs, scheme).splits
    files = {VALIDATION: pairs.validation_file, TEST: pairs.test_file}
    given = {name: load_labelled(pairs, paths, scheme)[0] for name, paths in files.items() if paths}
    leaks = find_leaks({name: (part.sentence1, part.sentence2) for name, part in given.items()})
    refuse_leaks(leaks, pairs.allow_leaks, {name: part.places for name, part in given.items()})
    return given


def _untrained_student(flags: DistillationFlags) -> SentenceEncoder:
    """The student as stage 2 begins with it, for the neighbours and to compare with."""
    tokenizer, config = load_pair_tokenizer(flags.stage2), load_named_config(flags.stage2.model)
    max_seq_length = settle_config(
        config,
        tokenizer,
        flags.stage2.model,
        max_seq_length=flags.stage2.pairs.max_seq_length,
        default_length=DEFAULT_MAX_SEQ_LENGTH,
        num_special=tokenizer.num_special_tokens_to_add(pair=False),
        needs_mask=False,
    )
    model = load_model(AutoModel, flags.stage2.model.model_name_or_path, config, **flags.stage2.model.hub())
    pooling = flags.stage2.architecture.pooling or POOLINGS[0]
    return SentenceEncoder(model.to(flags.stage2.training.device), tokenizer, pooling, max_seq_length)


def _judge(
    flags: DistillationFlags,
    given: dict[str, Pairs],
    mined: Pairs,
    teacher: Scorer,
    untrained: SentenceEncoder,
    record: dict[str, Any],
) -> dict[str, Any]:
    """Fit the decision, compare teacher, untrained and trained student, and write it all into the run's folder."""
    folder, scheme = Path(flags.stage2.training.output_dir), teacher.scheme
    trained = load_scorer(str(folder), device=flags.stage2.training.device)
    students: dict[str, Score] = {"untrained student": _cosines_of(untrained), "student": trained.score}
    agreement = {
        name: _spearman(score(mined.sentence1, mined.sentence2), mined.labels) for name, score in students.items()
    }
    verdicts = _labelled_by(teacher, mined)
    fitted_on, judged_on = given.get(VALIDATION, verdicts), given.get(TEST, given.get(VALIDATION, verdicts))
    scores: dict[str, np.ndarray] = {}
    decisions: dict[str, Decision | None] = {}
    for name, score in students.items():
        scores[name] = own_range(scheme, score(judged_on.sentence1, judged_on.sentence2))
        decisions[name] = _fit(flags, scheme.kind, score(fitted_on.sentence1, fitted_on.sentence2), fitted_on.labels)
    scores["teacher"], decisions["teacher"] = teacher.score(judged_on.sentence1, judged_on.sentence2), teacher.decision
    section: dict[str, Any] = {
        "teacher": flags.distillation.teacher,
        "decision_fitted_on": "labelled validation pairs" if VALIDATION in given else "the teacher's verdicts",
        "judged_on": f"labelled {TEST if TEST in given else VALIDATION} pairs" if given else "the teacher's verdicts",
        "compared": {name: _metrics(scheme.kind, scores[name], decisions[name], judged_on.labels) for name in scores},
        "spearman_with_teacher": agreement,
    }
    decision = decisions["student"]
    metrics = {**record["metrics"], "test_split": TEST if TEST in given else VALIDATION}
    metrics |= {"test": section["compared"]["student"], SECTION: section}
    metrics |= {"decision": dataclasses.asdict(decision)} if decision is not None else {}
    save_decision(decision, folder)
    write_predictions(folder / TEST_NAME, judged_on, scheme, scores["student"], decision)
    own = {"labels": scheme.to_json(), "threshold": decision and decision.threshold, "metrics": metrics}
    write_record(folder, {**record, **own, SECTION: section})
    return metrics


def _labelled_by(teacher: Scorer, mined: Pairs) -> Pairs:
    """Mined pairs with the teacher's verdicts as labels, or its scores in its own range."""
    if teacher.scheme.kind == BINARY:
        names = teacher.predict(mined.sentence1, mined.sentence2).verdicts
        labels = np.array([teacher.scheme.names.index(name) for name in names])
    else:
        labels = own_range(teacher.scheme, mined.labels)
    return dataclasses.replace(mined, labels=labels)


def _cosines_of(encoder: SentenceEncoder) -> Score:
    def score(sentence1: list[str], sentence2: list[str]) -> np.ndarray:
        vectors = encode_texts(encoder, [*sentence1, *sentence2]).astype(np.float64)
        return np.einsum("rd,rd->r", vectors[: len(sentence1)], vectors[len(sentence1) :])

    return score


def _fit(flags: DistillationFlags, kind: str, cosines: np.ndarray, labels: np.ndarray) -> Decision | None:
    return fit_decision(kind, cosines, labels, are_cosines=True, **flags.stage2.decision.settings(kind))


def _metrics(kind: str, scores: np.ndarray, decision: Decision | None, labels: np.ndarray) -> dict[str, Any]:
    """Metrics of scores at their decision; of binary labels that no threshold could be fitted to, the rankings."""
    judged = scores if decision is None else decision.probability(scores)
    return compute_pair_metrics(kind, judged, labels, None if decision is None else decision.threshold)


def _spearman(scores: np.ndarray, labels: np.ndarray) -> float | None:
    """The rank correlation, None where one side is constant."""
    value = float(spearmanr(scores, labels).statistic)
    return value if np.isfinite(value) else None


def _print(metrics: dict[str, Any], output_dir: str) -> None:
    section = metrics[SECTION]
    columns = {name: section["compared"][name] for name in ("teacher", "untrained student", "student")}
    names = [name for name in SHOWN_METRICS if name in metrics["test"]]
    rows = [
        [metric_title(name), *(format_value(name, values.get(name)) for values in columns.values())] for name in names
    ]
    agreement = [format_value("spearman", section["spearman_with_teacher"][name]) for name in list(columns)[1:]]
    rows.append(["rank correlation with the teacher", "", *agreement])
    announce("", format_table([section["judged_on"], *columns], rows, "l" + "r" * len(columns)), "")
    announce(f"the student's decision is fitted on {section['decision_fitted_on']}")
    announce(
        f"written to {output_dir}: the bi-encoder, decision.json, run.json, {TEST_NAME}, and mined/ with its pairs"
    )
