"""How sure a figure is, and whether two models differ: bootstrap intervals, McNemar's exact test, and the verdict."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest

from pair_pkg.pairs.metrics import BINARY, DECIDED
from pair_pkg.report.numbers import LOWER_IS_BETTER, format_change, format_value, metric_title
from pair_pkg.report.weighted_metrics import WEIGHTED_METRICS, WeightedMetric

HELPED, HURT, NOT_TOLD_APART = "helped", "hurt", "not told apart"
WEIGHTS_PER_CHUNK = 2_000_000  # 16 MB a matrix: a test set of any size is resampled in bounded memory


@dataclass(frozen=True)
class Difference:
    """A metric of two models over the same pairs and S seeds; None where these pairs do not define it.

    ``base`` and ``adapted`` are means over the seeds, ``difference`` is adapted minus base, ``low`` and ``high``
    bound its interval at ``confidence``. ``num_undefined`` of ``num_resamples`` did not define the metric.
    """

    base: float | None
    adapted: float | None
    difference: float | None
    low: float | None
    high: float | None
    num_resamples: int
    num_undefined: int
    confidence: float
    by_seed: tuple[float | None, ...]  # adapted minus base of each seed


@dataclass(frozen=True)
class Interval:
    """A metric's percentile interval; None where no resample defines it (``num_undefined`` of them do not)."""

    low: float | None
    high: float | None
    num_undefined: int


@dataclass(frozen=True)
class McNemar:
    """``only_base`` pairs that only the base model gets right, ``only_adapted`` the reverse, two-sided p."""

    only_base: int
    only_adapted: int
    p_value: float


@dataclass(frozen=True)
class Verdict:
    """``answer`` is "helped", "hurt" or "not told apart"; ``sentence`` says it with the numbers."""

    answer: str
    sentence: str


def compare_metrics(
    kind: str,
    labels: np.ndarray,
    base: np.ndarray,
    adapted: np.ndarray,
    *,
    base_threshold: float | Sequence[float] = 0.5,
    adapted_threshold: float | Sequence[float] = 0.5,
    groups: np.ndarray | None = None,
    num_resamples: int = 2000,
    seed: int,
    confidence: float = 0.95,
) -> dict[str, Difference]:
    """Every metric of the kind, compared by ``paired_bootstrap`` over the same resamples.

    A threshold is one number or one of each seed; it decides binary pairs and is not used for other kinds.
    """
    differences = {}
    for name, metric in WEIGHTED_METRICS[kind].items():
        differences[name] = paired_bootstrap(
            metric,
            labels,
            _as_decided(kind, name, base, base_threshold),
            _as_decided(kind, name, adapted, adapted_threshold),
            groups=groups,
            num_resamples=num_resamples,
            seed=seed,
            confidence=confidence,
        )
    return differences


def bootstrap_metrics(
    kind: str,
    labels: np.ndarray,
    predictions: np.ndarray,
    *,
    threshold: float | None = 0.5,
    groups: np.ndarray | None = None,
    num_resamples: int = 2000,
    seed: int,
    confidence: float = 0.95,
) -> dict[str, Interval]:
    """The percentile interval of every metric of one set of predictions, (N,) or for classes (N, C).

    Without a threshold, binary metrics that need one are left out.

    As in ``paired_bootstrap``, whole ``groups`` (N,) of pairs are drawn; the interval says how far the figure may be
    from that of all pairs such as these, for this one trained model: it knows nothing of other training seeds.
    """
    undecided = DECIDED if kind == BINARY and threshold is None else ()
    metrics = {name: metric for name, metric in WEIGHTED_METRICS[kind].items() if name not in undecided}
    seen = {name: _as_decided(kind, name, predictions, threshold) for name in metrics}
    drawn: dict[str, list[np.ndarray]] = {name: [] for name in metrics}
    for weights in _draw_pairs(len(labels), groups, num_resamples, np.random.default_rng(seed)):
        for name, metric in metrics.items():
            drawn[name].append(metric(seen[name], labels, weights))
    return {name: _interval(np.concatenate(values), confidence) for name, values in drawn.items()}


def paired_bootstrap(
    metric: WeightedMetric,
    labels: np.ndarray,
    base: np.ndarray,
    adapted: np.ndarray,
    *,
    groups: np.ndarray | None = None,
    num_resamples: int = 2000,
    seed: int,
    confidence: float = 0.95,
) -> Difference:
    """The percentile interval of a metric's difference between two models.

    ``labels`` (N,); ``base`` and ``adapted`` (S, N), for classes (S, N, C): one row of predictions a training seed.
    Each resample draws N pairs and S seeds with replacement, the same for both models. Pairs that share a text are
    not independent: where ``groups`` (N,) names the component of each pair, whole components are drawn.

    Few seeds say little about seeds. In simulations with 3 seeds and 400 pairs the 95 % interval covered the true
    difference of accuracy in over 99 % of runs where seeds hardly differ, in 92 % where a seed moves each model by
    2.6 points (standard deviation), and in only 82 % at 8 points; with 5 seeds in 90 % there.
    """
    labels, base, adapted = np.asarray(labels), np.asarray(base), np.asarray(adapted)
    assert base.shape == adapted.shape and base.shape[1] == len(labels), (base.shape, adapted.shape, labels.shape)
    once = np.ones((1, len(labels)))
    base_by_seed, adapted_by_seed = (_by_seed(metric, rows, labels, once)[:, 0] for rows in (base, adapted))
    resampled = _resampled_differences(metric, labels, base, adapted, groups, num_resamples, seed)
    interval = _interval(resampled, confidence)
    return Difference(
        base=_or_none(base_by_seed.mean()),
        adapted=_or_none(adapted_by_seed.mean()),
        difference=_or_none(adapted_by_seed.mean() - base_by_seed.mean()),
        low=interval.low,
        high=interval.high,
        num_resamples=num_resamples,
        num_undefined=interval.num_undefined,
        confidence=confidence,
        by_seed=tuple(_or_none(value) for value in adapted_by_seed - base_by_seed),
    )


def spread(values: Sequence[float | None]) -> dict[str, float | int | None]:
    """Mean, standard deviation (of a sample, N - 1), min and max of one figure of several runs.

    Runs that do not define it are left out and counted; one run has no standard deviation.

    >>> spread([0.5, 0.75, None])["mean"], spread([0.5, 0.75, None])["num_undefined"], spread([1])["standard_deviation"]
    (0.625, 1, None)
    """
    defined = [value for value in values if value is not None]
    return {
        "mean": float(np.mean(defined)) if defined else None,
        "standard_deviation": float(np.std(defined, ddof=1)) if len(defined) > 1 else None,
        "min": min(defined, default=None),
        "max": max(defined, default=None),
        "num_undefined": len(values) - len(defined),
    }


def mcnemar_exact(base_correct: np.ndarray, adapted_correct: np.ndarray) -> McNemar:
    """Test whether two models of one seed err equally often, on the pairs (N,) where only one of them is right.

    >>> mcnemar_exact(np.array([1, 1, 0, 0, 0, 0]), np.array([1, 0, 1, 1, 1, 0]))
    McNemar(only_base=1, only_adapted=3, p_value=0.625)
    """
    base_correct, adapted_correct = np.asarray(base_correct, dtype=bool), np.asarray(adapted_correct, dtype=bool)
    only_base, only_adapted = int((base_correct & ~adapted_correct).sum()), int((adapted_correct & ~base_correct).sum())
    discordant = only_base + only_adapted
    return McNemar(only_base, only_adapted, float(binomtest(only_adapted, discordant).pvalue) if discordant else 1.0)


def verdict(difference: Difference, metric_name: str, higher_is_better: bool | None = None) -> Verdict:
    """Answer whether adaptation helped: it is told apart where the interval leaves out zero.

    Without ``higher_is_better`` the metric's name decides it.

    >>> difference = Difference(0.808, 0.831, 0.023, 0.004, 0.041, 2000, 0, 0.95, (0.023,))
    >>> verdict(difference, "accuracy").sentence
    'Adaptation helped: accuracy rose from 80.8 % to 83.1 % (+2.3 points, 95 % interval +0.4 to +4.1).'
    """
    title = metric_title(metric_name)
    if higher_is_better is None:
        higher_is_better = metric_name not in LOWER_IS_BETTER
    if None in (difference.difference, difference.low):
        return Verdict(NOT_TOLD_APART, f"This test set cannot tell: {title} is not defined on it or on its resamples.")
    base, adapted = format_value(metric_name, difference.base), format_value(metric_name, difference.adapted)
    low, high = format_change(metric_name, difference.low), format_change(metric_name, difference.high)
    change = format_change(metric_name, difference.difference, unit=True)
    numbers = f"from {base} to {adapted} ({change}, {100 * difference.confidence:g} % interval {low} to {high}"
    if difference.low <= 0 <= difference.high:
        head = "Adaptation made no difference that this test set can show"
        return Verdict(NOT_TOLD_APART, f"{head}: {title} went {numbers}, which includes zero).")
    rose = difference.low > 0
    answer = HELPED if rose == higher_is_better else HURT
    return Verdict(answer, f"Adaptation {answer}: {title} {'rose' if rose else 'fell'} {numbers}).")


def _as_decided(kind: str, metric_name: str, predictions: np.ndarray, threshold: float | Sequence[float]) -> np.ndarray:
    """Predictions as a weighted metric takes them: (..., N) of 0 or 1 where a threshold decides.

    ``threshold`` is one number, or with predictions (S, N) one of each seed.
    """
    if kind != BINARY or metric_name not in DECIDED:
        return np.asarray(predictions)
    thresholds = np.asarray(threshold)
    return (np.asarray(predictions) >= thresholds.reshape(*thresholds.shape, 1)).astype(np.float64)


def _interval(resampled: np.ndarray, confidence: float) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(defined, [tail, 1 - tail]) if defined.size else (np.nan, np.nan)
    return Interval(_or_none(low), _or_none(high), resampled.size - defined.size)


def _by_seed(metric: WeightedMetric, rows: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return np.stack([metric(predictions, labels, weights) for predictions in rows])  # (S, R)


def _resampled_differences(
    metric: WeightedMetric,
    labels: np.ndarray,
    base: np.ndarray,
    adapted: np.ndarray,
    groups: np.ndarray | None,
    num_resamples: int,
    seed: int,
) -> np.ndarray:
    """Adapted minus base of each resample, (R,); NaN where a drawn seed does not define the metric."""
    pair_rng, seed_rng = np.random.default_rng(seed).spawn(2)
    means = []
    for weights in _draw_pairs(len(labels), groups, num_resamples, pair_rng):
        by_seed = _by_seed(metric, adapted, labels, weights) - _by_seed(metric, base, labels, weights)  # (S, R)
        drawn = seed_rng.integers(len(base), size=by_seed.shape)
        means.append(np.take_along_axis(by_seed, drawn, axis=0).mean(axis=0))
    return np.concatenate(means)


def _draw_pairs(
    num_pairs: int, groups: np.ndarray | None, num_resamples: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Chunks of resamples, (R, N) each: how often each pair is drawn."""
    group_of_pair = np.arange(num_pairs) if groups is None else np.unique(groups, return_inverse=True)[1]
    num_groups = int(group_of_pair.max()) + 1
    chunk_size = max(1, WEIGHTS_PER_CHUNK // num_pairs)
    for start in range(0, num_resamples, chunk_size):
        num_rows = min(chunk_size, num_resamples - start)
        drawn = rng.integers(num_groups, size=(num_rows, num_groups)) + num_groups * np.arange(num_rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=num_rows * num_groups).reshape(num_rows, num_groups)
        yield counts[:, group_of_pair].astype(np.float64)


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
