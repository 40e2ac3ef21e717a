"""The pairs of stage 2 as stage 1 sees them: texts to learn from, texts to keep apart, and a probe."""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerFast

from pair_pkg.columns import TEST, TRAIN, VALIDATION
from pair_pkg.data.held_out import HeldOutTexts
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.splits import normalize_text
from pair_pkg.modeling.embedding import SentenceEncoder, encode_texts
from pair_pkg.pairs.metrics import BINARY, SCORES, compute_pair_metrics
from pair_pkg.records import fingerprint_files
from pair_pkg.stages.arguments.aids import switched_on
from pair_pkg.stages.arguments.pairs import PairArguments
from pair_pkg.stages.arguments.task import PAIR_SETTINGS, TaskArguments
from pair_pkg.stages.pairs_data import load_splits
from pair_pkg.training.trainer import SideMetrics, StageTrainer

PROBE = "probe"
PROBE_METRICS = {BINARY: "average_precision", SCORES: "spearman"}  # rankings: no threshold is fitted
MAX_PROBE_PAIRS = 2_000  # seconds of encoding at each evaluation; average precision to about 0.01
SAMPLE_SEED = 0


@dataclass(frozen=True)
class TaskPairs:
    """The splits of stage 2, and the kind of their labels."""

    splits: dict[str, Pairs]
    kind: str
    transductive: bool

    def texts_to_learn(self) -> list[str]:
        """The distinct texts that stage 1 may learn from or select by, in their order."""
        if self.transductive:
            return list(dict.fromkeys(text for pairs in self.splits.values() for text in pairs.texts()))
        apart = set(map(normalize_text, self.held_out()))  # of files that leak
        return [text for text in self.splits[TRAIN].texts() if normalize_text(text) not in apart]

    def pairs_to_learn(self) -> list[tuple[str, str]]:
        """The pairs, without labels, whose texts stage 1 may both learn from."""
        texts = set(self.texts_to_learn())
        names = self.splits if self.transductive else [TRAIN]
        parts = (zip(self.splits[name].sentence1, self.splits[name].sentence2) for name in names)
        return [pair for part in parts for pair in part if texts.issuperset(pair)]

    def held_out_texts(self) -> HeldOutTexts | None:
        """The texts to cut out of the corpus; None where they may stay."""
        return None if self.transductive else HeldOutTexts(self.held_out())

    def held_out(self) -> set[str]:
        """The texts of validation and test pairs."""
        return {text for name in (VALIDATION, TEST) if name in self.splits for text in self.splits[name].texts()}

    @property
    def probe_metric(self) -> str | None:
        """What the probe measures; None where labels are neither binary nor scores, or all the same."""
        labels = np.asarray(self.splits[VALIDATION].labels)
        return None if (labels == labels[0]).all() else PROBE_METRICS.get(self.kind)


def load_task(task: TaskArguments) -> TaskPairs | None:
    """The pairs that the flags name, split as stage 2 does; None where there are none. Raises ``InputError``."""
    if task.pairs is None:
        return None
    data = load_splits(task.pairs, positives_suffice=True)
    return TaskPairs(data.splits, data.scheme.kind, task.transductive)


def task_words(pairs: PairArguments) -> list[str]:
    """The flags of stage 1 that name the pairs of these flags of stage 2."""
    words = []
    for flag in ("train_file", "validation_file", "test_file"):
        if getattr(pairs, flag):
            words += [f"--pair_{flag.removeprefix('train_')}", *getattr(pairs, flag)]
    settings = {name: value for name, value in switched_on(pairs).items() if name in PAIR_SETTINGS}
    return [*words, f"--pair_settings={json.dumps(settings)}"] if settings else words


def task_identity(task: TaskArguments) -> dict[str, Any]:
    """What of the flags decides on the result: files by their content."""
    names = ("pair_file", "pair_validation_file", "pair_test_file")
    return task.given() | {name: fingerprint_files(getattr(task, name)) for name in names if getattr(task, name)}


def build_probe(pairs: TaskPairs, tokenizer: PreTrainedTokenizerFast, max_seq_length: int) -> SideMetrics:
    """A measurement of the encoder as it is: how well cosines of mean vectors rank the validation pairs.

    Up to ``MAX_PROBE_PAIRS`` pairs, drawn with a fixed seed; nothing where theirs have one label.
    """
    validation = pairs.splits[VALIDATION]
    rows = np.sort(np.random.default_rng(SAMPLE_SEED).permutation(len(validation))[:MAX_PROBE_PAIRS])
    sample, metric = validation.subset(rows), pairs.probe_metric

    def measure(trainer: StageTrainer) -> dict[str, float]:
        encoder = SentenceEncoder(trainer.model.base_model, tokenizer, "mean", max_seq_length)
        with trainer.weights.in_place():
            left, right = (encode_texts(encoder, texts) for texts in (sample.sentence1, sample.sentence2))
        cosines = np.einsum("nd,nd->n", left, right, dtype=np.float64)
        value = compute_pair_metrics(pairs.kind, cosines, sample.labels, None)[metric]
        return {} if value is None else {PROBE: value}

    return measure


def describe_task(pairs: TaskPairs, task: TaskArguments) -> dict[str, Any]:
    """What the record says of the pairs: how many, what the probe measures, and whether held-out texts were seen."""
    counts = {name: len(part) for name, part in pairs.splits.items()}
    return {**task.given(), "pairs": counts, "probe": pairs.probe_metric, "transductive": pairs.transductive}
