"""How sentence-pair predictions are scored: one metric of ``evaluate``'s interface, with no network and no files."""

from collections.abc import Callable
from functools import partial

import datasets
import evaluate
import numpy as np
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_squared_error,
    precision_score,
    recall_score,
    roc_auc_score,
)

from pair_pkg.errors import InputError, TrainingFailure

# N pairs, C classes
BINARY = "binary"  # predictions (N,): the probability of label 1, or any score; labels 0 and 1
CLASSES = "classes"  # predictions (N, C): one probability a class, or any score; labels 0 to C-1
SCORES = "scores"  # predictions (N,): any real number; labels the same
KINDS = (BINARY, CLASSES, SCORES)
DECIDED = ("accuracy", "f1", "precision", "recall", "mcc")  # metrics of binary pairs that need a threshold


class PairMetrics(evaluate.Metric):
    """All metrics of one kind of pairs: ``PairMetrics("binary").compute(predictions=..., references=...)``.

    ``compute`` returns what ``compute_pair_metrics`` does; for binary pairs it takes a ``threshold`` too.
    The pairs stay in memory, so that any number of processes can score at once.
    """

    def __init__(self, kind: str):
        super().__init__(config_name=kind, keep_in_memory=True)

    def _build_data_dir(self) -> str:
        return ""  # the base class would make a folder in the user's cache, though nothing is kept on disk

    def _info(self) -> evaluate.MetricInfo:
        prediction = datasets.Value("float64")
        return evaluate.MetricInfo(
            description="Metrics of sentence-pair predictions.",
            citation="",
            inputs_description=compute_pair_metrics.__doc__,
            features=datasets.Features(
                {
                    "predictions": datasets.Sequence(prediction) if self.config_name == CLASSES else prediction,
                    "references": datasets.Value("float64" if self.config_name == SCORES else "int64"),
                }
            ),
        )

    def _compute(self, *, predictions: list, references: list, threshold: float | None = 0.5) -> dict:
        return compute_pair_metrics(self.config_name, predictions, references, threshold)


def compute_pair_metrics(kind: str, predictions, labels, threshold: float | None = 0.5) -> dict:
    """Score predictions against labels (N,).

    - binary, predictions (N,), label 1 from ``threshold`` on: accuracy, correct, total, f1, precision, recall,
      average_precision, roc_auc, mcc; without a threshold average_precision and roc_auc only
    - classes, predictions (N, C): accuracy, correct, total, macro_f1 (over the classes that occur), mcc
    - scores, predictions (N,): pearson, spearman, mean_squared_error

    A metric that these pairs do not define is None, with its reason under "undefined": {name: reason}.
    Raises ``TrainingFailure`` at the first row whose prediction is not finite, ``InputError`` where N is 0.

    >>> result = compute_pair_metrics("binary", [0.9, 0.2, 0.6, 0.1], [1, 0, 0, 0])
    >>> result["accuracy"], result["correct"], result["total"], result["undefined"]
    (0.75, 3, 4, {})
    """
    predictions, labels = np.asarray(predictions, dtype=np.float64), np.asarray(labels)
    assert len(predictions) == len(labels) and predictions.ndim == (2 if kind == CLASSES else 1), predictions.shape
    if not len(labels):
        raise InputError("pair metrics: there are no pairs to score; give the split at least one labelled pair")
    _refuse_non_finite(predictions)
    if kind == BINARY:
        return _binary_metrics(predictions, labels.astype(int), threshold)
    if kind == CLASSES:
        return _class_metrics(predictions, labels.astype(int))
    assert kind == SCORES, kind
    return _score_metrics(predictions, labels.astype(np.float64))


def metric_names(kind: str) -> set[str]:
    """The names of what ``compute_pair_metrics`` measures on pairs that define everything.

    >>> sorted(metric_names("scores"))
    ['mean_squared_error', 'pearson', 'spearman']
    """
    predictions = np.eye(2) if kind == CLASSES else np.array([0.0, 1.0])
    return set(compute_pair_metrics(kind, predictions, np.array([0, 1]))) - {"undefined"}


def format_accuracy(correct: int, total: int) -> str:
    """Write an accuracy so that it can be checked by hand.

    >>> format_accuracy(918, 2000)
    '918/2000 = 0.459'
    """
    return f"{correct}/{total} = {correct / total:.3f}"


def _refuse_non_finite(predictions: np.ndarray) -> None:
    bad_rows = np.flatnonzero(~np.isfinite(predictions.reshape(len(predictions), -1)).all(axis=1))
    if bad_rows.size:
        row = bad_rows[0]
        raise TrainingFailure(
            f"pair metrics: the prediction of row {row} is {predictions[row]} ({bad_rows.size} of {len(predictions)} "
            "rows are not finite); the model has diverged, train it again with a lower learning rate"
        )


def _binary_metrics(scores: np.ndarray, labels: np.ndarray, threshold: float | None) -> dict:
    one_label = f"all labels are {labels[0]}" if (labels == labels[0]).all() else ""
    ranking = {
        "average_precision": (partial(average_precision_score, labels, scores), one_label),
        "roc_auc": (partial(roc_auc_score, labels, scores), one_label),
    }
    if threshold is None:
        undecided = {name: (lambda: 0.0, "there is no threshold") for name in DECIDED}
        return _measure(undecided | ranking)
    decided = (scores >= threshold).astype(int)
    one_decision = f"all predictions are {decided[0]}" if (decided == decided[0]).all() else ""
    no_positive_label = "" if labels.any() else "no label is 1"
    no_positive_decision = "" if decided.any() else "no prediction is 1"
    neither = "no label and no prediction is 1" if no_positive_label and no_positive_decision else ""
    measured: dict[str, tuple[Callable[[], float], str]] = {
        "f1": (partial(f1_score, labels, decided), neither),
        "precision": (partial(precision_score, labels, decided), no_positive_decision),
        "recall": (partial(recall_score, labels, decided), no_positive_label),
        **ranking,
        "mcc": (partial(matthews_corrcoef, labels, decided), one_label or one_decision),
    }
    return _accuracy(decided, labels) | _measure(measured)


def _class_metrics(probabilities: np.ndarray, labels: np.ndarray) -> dict:
    decided = probabilities.argmax(axis=1)
    one_label = f"all labels are {labels[0]}" if (labels == labels[0]).all() else ""
    one_decision = f"all predictions are {decided[0]}" if (decided == decided[0]).all() else ""
    return _accuracy(decided, labels) | _measure(
        {
            "macro_f1": (partial(f1_score, labels, decided, average="macro"), ""),
            "mcc": (partial(matthews_corrcoef, labels, decided), one_label or one_decision),
        }
    )


def _score_metrics(scores: np.ndarray, labels: np.ndarray) -> dict:
    constant = "all labels are equal" if _is_constant(labels) else ""
    constant = constant or ("all predictions are equal" if _is_constant(scores) else "")
    return _measure(
        {
            "pearson": (lambda: pearsonr(scores, labels).statistic, constant),
            "spearman": (lambda: spearmanr(scores, labels).statistic, constant),
            "mean_squared_error": (partial(mean_squared_error, labels, scores), ""),
        }
    )


def _accuracy(decided: np.ndarray, labels: np.ndarray) -> dict:
    correct, total = int((decided == labels).sum()), len(labels)
    return {"accuracy": correct / total, "correct": correct, "total": total}


def _measure(metrics: dict[str, tuple[Callable[[], float], str]]) -> dict:
    """Compute each metric, or keep the reason why these pairs do not define it."""
    values = {name: None if reason else float(compute()) for name, (compute, reason) in metrics.items()}
    return values | {"undefined": {name: reason for name, (_, reason) in metrics.items() if reason}}


def _is_constant(values: np.ndarray) -> bool:
    """Equal up to rounding: a correlation with such values would be one with the rounding error."""
    return np.ptp(values) <= 1e-12 * np.abs(values).max()
