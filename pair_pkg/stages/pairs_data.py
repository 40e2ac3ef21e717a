"""From what the user calls the pairs to splits that do not leak."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any, cast

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.closure import augment_pairs
from pair_pkg.data.labels import LabelKind, LabelScheme
from pair_pkg.data.pairs import PairAudit, Pairs, load_pairs
from pair_pkg.data.splits import connected_components, find_leaks, refuse_leaks, split_by_component
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import check_unknown_fraction
from pair_pkg.pairs.dataset import tokenize_texts
from pair_pkg.stages.arguments.pairs import PairArguments
from pair_pkg.stages.pair_audit import Conflict, compare_train_and_test, find_conflicts, warn_of_imbalance

UNKNOWN_SAMPLE = 2000  # texts, evenly spaced, that the share of unknown tokens is told from: tokenized in a moment


@dataclass(frozen=True)
class PairSplits:
    """Pairs by split (train, validation, and test where there is one), with their labels' scheme."""

    splits: dict[str, Pairs]
    scheme: LabelScheme
    accounting: dict[str, Any]
    conflicts: list[Conflict] = field(default_factory=list)


def load_splits(
    arguments: PairArguments, scheme: LabelScheme | None = None, *, positives_suffice: bool = False
) -> PairSplits:
    """Read the labelled files, split what was not given, refuse leaks, augment. Raises ``InputError``.

    Where ``positives_suffice``, pairs without a label or with one label only are positive ones.
    """
    if not arguments.train_file:
        raise InputError("no pairs: give --train_file")
    splits: dict[str, Pairs] = {}
    accounting: dict[str, Any] = {}
    files = {TRAIN: arguments.train_file, VALIDATION: arguments.validation_file, TEST: arguments.test_file}
    for name, paths in files.items():
        if paths:
            splits[name], scheme, audit = load_labelled(arguments, paths, scheme, positives_suffice)
            accounting[name] = asdict(audit)
    missing = _missing_splits(arguments)
    if missing:
        whole = splits[TRAIN]
        fractions = {TRAIN: 1 - sum(missing.values()), **missing}
        parts = split_by_component(whole.sentence1, whole.sentence2, whole.labels, fractions, arguments.split_seed)
        splits |= {name: whole.subset(rows) for name, rows in parts.items()}
    texts = {name: (pairs.sentence1, pairs.sentence2) for name, pairs in splits.items()}
    leaks = find_leaks(texts)
    refuse_leaks(leaks, arguments.allow_leaks, {name: pairs.places for name, pairs in splits.items()})
    conflicts = find_conflicts(splits, scheme)
    warn_of_imbalance(accounting[TRAIN]["class_counts"])
    accounting |= {
        "pairs": {name: len(pairs) for name, pairs in splits.items()},
        "leaks": len(leaks),
        "conflicts": {"pairs": len({row.conflict for row in conflicts}), "rows": len(conflicts)},
        "shift": compare_train_and_test(splits, scheme),
    }
    data = PairSplits(_limited(splits, arguments), scheme, accounting, conflicts)
    return augment_graph(data, arguments.split_seed) if arguments.augment_graph else data


def augment_graph(data: PairSplits, seed: int) -> PairSplits:
    """The splits with the pairs that the training pairs imply behind these. Raises ``InputError``."""
    if data.scheme.kind != "binary":
        raise InputError(f"--augment_graph needs binary labels, and these are {data.scheme.kind}; leave it out")
    held_out = [pairs for name, pairs in data.splits.items() if name != TRAIN]
    train, audit = augment_pairs(data.splits[TRAIN], held_out, seed)
    accounting = {**data.accounting, "augmentation": asdict(audit)}
    return replace(data, splits={**data.splits, TRAIN: train}, accounting=accounting)


def load_labelled(
    arguments: PairArguments, paths: list[str], scheme: LabelScheme | None, label_optional: bool = False
) -> tuple[Pairs, LabelScheme, PairAudit]:
    """Read labelled pairs by the flags."""
    return load_pairs(
        paths,
        labelled=True,
        label_optional=label_optional,
        scheme=scheme,
        label_column=arguments.label_column,
        label_names=arguments.class_names,
        label_range=(arguments.label_range[0], arguments.label_range[1]) if arguments.label_range else None,
        label_kind=cast(LabelKind | None, arguments.label_kind),
        strict=arguments.strict,
        **_reading(arguments),
    )


def load_unlabelled(arguments: PairArguments) -> Pairs:
    """Read the pairs of ``--predict_file``, every row, in the order of the files."""
    return load_pairs(arguments.predict_file, labelled=False, **_reading(arguments))[0]


def check_unknown(pairs: Pairs, tokenizer: PreTrainedTokenizerFast) -> None:
    """Refuse pairs whose tokens are too often unknown to the tokenizer. Raises ``InputError``."""
    texts = pairs.texts()
    ids, _ = tokenize_texts(texts[:: max(1, len(texts) // UNKNOWN_SAMPLE)], tokenizer)
    check_unknown_fraction(int(np.sum(ids == tokenizer.unk_token_id)), len(ids), tokenizer.name_or_path)


def components(pairs: Pairs) -> np.ndarray:
    """The group of each pair that shares a text with another: (N,); such pairs are not independent."""
    return connected_components(pairs.sentence1, pairs.sentence2)


def describe(accounting: dict[str, Any], scheme: LabelScheme) -> list[str]:
    """The pairs in words, a line each."""
    counts = ", ".join(f"{name} {count:,}" for name, count in accounting["pairs"].items())
    labels = f"{scheme.low:g} to {scheme.high:g}" if scheme.kind == "scores" else ", ".join(scheme.names)
    lines = [f"pairs: {counts}; labels: {scheme.kind} ({labels})"]
    if "augmentation" in accounting:
        a = accounting["augmentation"]
        lines.append(
            f"derived from the training pairs: {a['derived_positives']:,} positive and {a['derived_negatives']:,} "
            f"negative; {a['dropped_for_ratio']:,} left out to keep their ratio, {a['dropped_for_cap']:,} beyond the "
            f"cap; {a['contradictions']:,} contradictions in {a['contradictory_groups']:,} groups"
        )
    return lines


def _missing_splits(arguments: PairArguments) -> dict[str, float]:
    """Shares of the training file that have to serve as validation and test."""
    missing = {}
    if not arguments.validation_file:
        missing[VALIDATION] = arguments.validation_split_percentage / 100
        if not arguments.test_file:
            missing[TEST] = arguments.test_split_percentage / 100
    return missing


def _reading(arguments: PairArguments) -> dict[str, Any]:
    return {
        "sentence1_column": arguments.sentence1_column,
        "sentence2_column": arguments.sentence2_column,
        "header": arguments.header,
        "encoding": arguments.encoding,
        "delimiter": arguments.delimiter,
    }


def _limited(splits: dict[str, Pairs], arguments: PairArguments) -> dict[str, Pairs]:
    limits = {name: arguments.max_eval_samples for name in splits} | {TRAIN: arguments.max_train_samples}
    return {name: pairs.subset(range(min(limits[name] or len(pairs), len(pairs)))) for name, pairs in splits.items()}
