"""``--merge_alpha``: the weights that are kept lie between those of the base and the adapted ones."""

from collections.abc import Sequence
from typing import Any

from pair_pkg.modeling.base_weights import BaseWeights
from pair_pkg.report.numbers import format_value
from pair_pkg.report.tables import Cells
from pair_pkg.stages.task_pairs import PROBE
from pair_pkg.training.trainer import StageTrainer


def merge(trainer: StageTrainer, base: BaseWeights, alphas: Sequence[float]) -> dict[str, Any]:
    """Give the trainer's model the encoder between ``base`` (0) and its own (1), and tell what each alpha measures.

    Of several, the one with the best probe stays, the smallest of equals; both ends are measured beside them.
    """
    model, adapted = trainer.model, BaseWeights(trainer.model)
    sweep = {}
    measured = sorted({0.0, *alphas, 1.0}) if trainer.args.do_eval else []
    for alpha in measured:
        base.interpolate(model, adapted, alpha)
        sweep[alpha] = trainer.measure(trainer.get_eval_dataloader())
    chosen = alphas[0] if len(alphas) == 1 else max(sorted(alphas), key=lambda alpha: sweep[alpha][PROBE])
    base.interpolate(model, adapted, chosen)
    return {"alpha": chosen, "sweep": {str(alpha): metrics for alpha, metrics in sweep.items()}}


def merge_cells(merged: dict[str, Any]) -> Cells:
    """The sweep."""
    measured = next(iter(merged["sweep"].values()))
    names = [name for name in ("perplexity", "general_perplexity", PROBE) if name in measured]
    rows = [
        [f"{alpha} (kept)" if float(alpha) == merged["alpha"] else alpha, *(format_value(n, metrics[n]) for n in names)]
        for alpha, metrics in merged["sweep"].items()
    ]
    return Cells(["alpha", *(name.replace("_", " ") for name in names)], rows, "l" + "r" * len(names))
