"""What stage 2 prints at the end of a run."""

from typing import Any

from pair_pkg.columns import VALIDATION
from pair_pkg.pairs.decision import Decision
from pair_pkg.pairs.metrics import BINARY, format_accuracy
from pair_pkg.report.evaluation import SHOWN_METRICS, result_table, slice_table, spread_table
from pair_pkg.report.numbers import format_value, metric_title
from pair_pkg.report.tables import format_table
from pair_pkg.stages.pair_evaluation import WORST_NAME
from pair_pkg.stages.predictions import TEST_NAME
from pair_pkg.stages.terminal import announce


def print_metrics(metrics: dict[str, Any], output_dir: str) -> None:
    """The test figures beside the baselines, by slices and over seeds; the decision, and where everything is."""
    title = f"{metrics['test_split']} pairs"
    figures = {"model": metrics["test"], **metrics["baselines"]}
    announce("", result_table(title, figures, metrics.get("intervals")), "")
    if metrics.get("slices"):
        announce(slice_table(f"slice of the {title}", metrics["slices"]), "")
    if "seeds" in metrics:
        announce(*seed_lines(metrics["seeds"], title), "")
    if "correct" in metrics["test"]:
        announce(f"accuracy: {format_accuracy(metrics['test']['correct'], metrics['test']['total'])}")
    announce(*decision_lines(metrics), *symmetry_lines(metrics))
    files = f"the model, run.json, {TEST_NAME}, {WORST_NAME}, log_history.json, history.png"
    announce(f"written to {output_dir}: {files}")


def seed_lines(seeds: dict[str, Any], title: str) -> list[str]:
    """The figures of several seeds: their spread, each run's own, and which was taken."""
    names = [name for name in SHOWN_METRICS if name in seeds["test"]]
    chosen_by = seeds["chosen_by"].removeprefix("eval_")
    rows = [
        [
            f"{seed}{' (taken)' if seed == seeds['taken'] else ''}",
            format_value(chosen_by, seeds["validation"][place]),
            *(format_value(name, seeds["test"][name]["by_seed"][place]) for name in names),
        ]
        for place, seed in enumerate(seeds["seeds"])
    ]
    header = ["seed", f"validation {metric_title(chosen_by)}", *map(metric_title, names)]
    return [
        spread_table(f"{title}, {len(rows)} seeds", seeds["test"]),
        "",
        format_table(header, rows, "l" + "r" * (len(header) - 1)),
        "",
        f"taken: seed {seeds['taken']}, {seeds['why']}; the tables above and the decision are of that run",
    ]


def decision_lines(metrics: dict[str, Any]) -> list[str]:
    """The threshold and the calibration in words; nothing for scores, which need no decision."""
    if metrics.get("decision") is None:
        return []
    decision, calibration = Decision(**metrics["decision"]), metrics["calibration"]
    lines = []
    if decision.kind == BINARY:
        lines.append(f"decision: positive from probability {decision.threshold:.3f} on ({_reason(decision)})")
    before, after = (calibration[metrics["test_split"]][when]["ece"] for when in ("before", "after"))
    lines.append(
        f"calibration: temperature {decision.temperature:.3g}; expected calibration error of the "
        f"{metrics['test_split']} pairs {before:.3f} before, {after:.3f} after"
    )
    if decision.kind == BINARY and "imbalance" in metrics:
        lines.append(_imbalance_line(metrics["imbalance"], calibration[VALIDATION]))
    return lines


def _imbalance_line(imbalance: dict[str, Any], calibration: dict[str, Any]) -> str:
    before, after = calibration["before"], calibration["after"]
    weights = imbalance["class_weights"]
    weighed = [f"class weights {weights[0]:.3g} and {weights[1]:.3g}"] if weights else []
    weighed += [f"focal gamma {imbalance['focal_gamma']:g}"] if imbalance["focal_gamma"] else []
    shift = f" (the weights move the logit margin by {imbalance['margin_shift']:+.2f})" if weights else ""
    return (
        f"{' and '.join(weighed)}: of the validation pairs {before['hit_fraction']:.3f} are positive, and their "
        f"mean probability is {before['mean_confidence']:.3f} as trained{shift} and {after['mean_confidence']:.3f} "
        "calibrated; the decision fitted there takes back such a monotone change, and no ranking is changed by it"
    )


def symmetry_lines(metrics: dict[str, Any]) -> list[str]:
    """How far the two orders of the test pairs lie apart in words; nothing where one order was read."""
    if "asymmetry" not in metrics:
        return []
    gap = metrics["asymmetry"][metrics["test_split"]]
    line = (
        f"symmetry: p(A, B) and p(B, A) differ by {gap['mean_difference']:.3f} on average and by "
        f"{gap['max_difference']:.3f} at most"
    )
    if "flipped" not in gap:
        return [f"{line.replace('p(', 'score(')}; their average is the score"]
    flipped = f"{gap['flipped']} of {metrics['test']['total']} pairs"
    return [f"{line}; {flipped} would get another verdict in the other order, so their average is the score"]


def _reason(decision: Decision) -> str:
    if decision.decide_by is None:
        return "not fitted: all validation pairs have one label"
    if decision.wanted_precision is not None:
        return f"the most recall at precision {decision.wanted_precision:g} of the validation pairs"
    return f"the best {metric_title(decision.decide_by)} of the validation pairs"
