"""Training and evaluation as a stage runs them, and what a finished run leaves in its folder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from pair_pkg.records import write_json, write_record
from pair_pkg.training.checkpoints import FINISHED
from pair_pkg.training.cost import peak_memory
from pair_pkg.training.sharding import has_divided_weights
from pair_pkg.training.trainer import StageTrainer

HISTORY_NAME = "log_history.json"


def train_and_evaluate(
    trainer: StageTrainer, checkpoint: str | None, settle: Callable[[StageTrainer], bool] | None = None
) -> dict[str, Any]:
    """Train and evaluate as the arguments say: metrics before the first step (``before``) and of the result.

    A continued run finds the metrics before the first step in its log history. ``settle`` may change the trained
    weights before they are saved, and says whether it did.
    """
    args = trainer.args
    metrics: dict[str, Any] = {}
    changed = False
    if args.do_train:
        result = trainer.train(resume_from_checkpoint=checkpoint)
        metrics |= {name: value for name, value in result.metrics.items() if name.startswith("train_")}
        changed = settle is not None and settle(trainer)
        trainer.save_model()
    evaluations = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if args.do_eval:
        if evaluations and evaluations[0]["step"] == 0:
            metrics["before"] = _eval_metrics(evaluations[0])
        fresh = [entry for entry in evaluations if entry["step"] == _step_of_result(trainer)]
        metrics |= _eval_metrics(fresh[-1] if fresh and not changed else trainer.evaluate())
    return metrics


def _step_of_result(trainer: StageTrainer) -> int:
    """The step whose weights the model has: the last one, or that of the best checkpoint."""
    best = trainer.state.best_global_step if trainer.args.load_best_model_at_end else None
    return trainer.state.global_step if best is None else best


def finish_run(trainer: StageTrainer, record: dict[str, Any], metrics: dict[str, Any]) -> dict[str, Any]:
    """Write the log history and the record of a finished run, on the main process; the record is returned."""
    cost = {"tokens": trainer.num_tokens_trained * trainer.args.world_size, **peak_memory()}
    if trainer.energy.joules is not None:
        cost["energy_joules"] = trainer.energy.joules
    finished = {"status": FINISHED, **record, "global_step": trainer.state.global_step, "cost": cost}
    finished["metrics"] = metrics
    if trainer.args.should_save:
        write_json(Path(trainer.args.output_dir, HISTORY_NAME), trainer.state.log_history)
        write_record(trainer.args.output_dir, finished)
    return finished


def stock_reason(args: TrainingArguments) -> str | None:
    """Why a run's own settings need the stock forward, or None."""
    if args.neftune_noise_alpha is not None:
        return "NEFTune scales its noise by the length of padded rows"
    if args.gradient_checkpointing:
        return "gradient checkpointing recomputes the stock modules"
    if has_divided_weights(args):
        return "sharded weights are gathered by the stock modules"
    return None


def _eval_metrics(entry: dict[str, Any]) -> dict[str, Any]:
    """An evaluation's results without its timings."""
    timings = ("_runtime", "_per_second", "_preparation_time")
    return {name: value for name, value in entry.items() if name.startswith("eval_") and not name.endswith(timings)}
