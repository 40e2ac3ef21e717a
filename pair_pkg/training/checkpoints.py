"""Whose folder this is: a run is started, continued, found finished, or refused."""

import logging
import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from pair_pkg.errors import InputError, is_disk_full
from pair_pkg.records import RECORD_NAME, read_record, write_record
from pair_pkg.training.manifest import find_damage, read_manifest, remove_checkpoint
from pair_pkg.training.sharding import OWNER, state_owner

logger = logging.getLogger("pair_pkg")

# Arguments that decide on the weights that come out; a run continued with another value of one is another run.
DECISIVE_ARGUMENTS = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "num_train_epochs", "max_steps",
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor",
    "bf16", "fp16", "seed", "data_seed", "neftune_noise_alpha", "optim_target_modules",
)  # fmt: skip
CHOOSING_ARGUMENTS = ("metric_for_best_model", "greater_is_better", "eval_strategy", "save_strategy", "eval_delay")
RUNNING, FINISHED = "running", "finished"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "checkpoint-*")


@dataclass(frozen=True)
class Opened:
    """What stands in an output folder: the checkpoint to continue from, or the record of the finished run."""

    checkpoint: str | None = None
    finished: dict[str, Any] | None = None


def decisive_arguments(args: TrainingArguments) -> dict[str, Any]:
    """The training arguments that decide on the result, as JSON values, and who divides the optimizer's state."""
    values = {**args.to_dict(), "world_size": args.world_size}
    decisive = {name: values[name] for name in DECISIVE_ARGUMENTS if name in values}
    if args.load_best_model_at_end:  # the weights are then those of one evaluation among others
        by_steps = [values[f"{what}_steps"] for what in ("eval", "save") if values[f"{what}_strategy"] == "steps"]
        decisive["load_best_model_at_end"] = [*(values[name] for name in CHOOSING_ARGUMENTS), *by_steps]
    owner = state_owner(args)
    return decisive | ({OWNER: owner} if owner else {})


def open_run(
    output_dir: str,
    identity: dict[str, Any],
    *,
    overwrite: bool = False,
    replace_other: bool = False,
    resume_from_checkpoint: str | None = None,
    allowed: Collection[str] = (),
) -> Opened:
    """Decide what a run does with its output folder; nothing is written.

    ``identity`` is a flat mapping of everything that decides on the result. Raises ``InputError`` where the folder
    holds another run or other model files, naming what differs, unless ``overwrite``; with ``replace_other`` (a
    folder that the pipeline owns) another run is started anew, and the same one continued. Values of ``allowed``
    keys may differ, and are named.
    """
    folder = Path(output_dir)
    check_output_dir(folder)
    if overwrite:
        return Opened()
    if resume_from_checkpoint:
        return Opened(checkpoint=_checkpoint_named(folder, resume_from_checkpoint, identity, allowed))
    record = read_record(folder)
    if record is None:
        found = next((path.name for pattern in MODEL_FILES for path in sorted(folder.glob(pattern))), None)
        if found:
            raise InputError(
                f"{folder}: holds {found} of something else; give another --output_dir, or --overwrite_output_dir"
            )
        return Opened()
    if replace_other and record.get("identity") != identity:
        return Opened()
    changes = _changes(record.get("identity", {}), identity)
    refused = [change for name, change in changes.items() if name not in allowed]
    if refused:
        raise InputError(
            f"{folder}: {RECORD_NAME} there is of another run ({_shortened(refused)}); give another --output_dir, "
            "--overwrite_output_dir to start anew, or --allow_changed with these names to go on all the same"
        )
    if record.get("status") == FINISHED:
        return Opened(finished=record)
    if changes:
        logger.warning("%s: goes on changed, as --allow_changed says (%s)", folder, _shortened(changes.values()))
    return Opened(checkpoint=newest_checkpoint(folder, identity, allowed))


def check_output_dir(folder: Path) -> None:
    """Refuse, before any work, a folder that is a file or cannot be written. Raises ``InputError``."""
    nearest = next(path for path in (folder, *folder.parents) if path.exists())
    if not nearest.is_dir():
        raise InputError(f"{nearest}: is a file; give a folder as --output_dir")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f"{nearest}: may not be written; give another --output_dir, or change its permissions")


def begin_run(output_dir: str, record: dict[str, Any], *, keep_checkpoints: bool) -> None:
    """Mark a folder as this run's, clearing checkpoints of the run before unless they are continued."""
    folder = Path(output_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not keep_checkpoints:
            for _, checkpoint in _checkpoints(folder):
                remove_checkpoint(checkpoint)
        write_record(folder, {"status": RUNNING, **record})
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --output_dir") from error


def newest_checkpoint(folder: Path, identity: dict[str, Any], allowed: Collection[str] = ()) -> str | None:
    """The whole checkpoint of the highest step of this run; a broken or foreign one is named and passed over."""
    checkpoints = sorted(_checkpoints(folder), reverse=True)
    for _, checkpoint in checkpoints:
        reason = _why_not(checkpoint, identity, allowed)
        if reason is None:
            return str(checkpoint)
        logger.warning("%s: %s; an older checkpoint is taken", checkpoint, reason)
    if checkpoints:
        logger.warning("%s: no checkpoint is whole, so the run starts from its beginning", folder)
    return None


def rotate_checkpoints(folder: Path, limit: int | None, kept: Collection[int | None], identity: dict | None) -> None:
    """Delete the oldest checkpoints of a run beyond ``limit`` (None or 0: none), but no step of ``kept``.

    Folders without a manifest, or of another run, are nobody's to delete and do not count.
    """
    sealed = ((step, path, read_manifest(path)) for step, path in sorted(_checkpoints(folder)))
    ours = [(step, path) for step, path, manifest in sealed if manifest and manifest["identity"] == identity]
    surplus = max(len(ours) - limit, 0) if limit else 0
    for step, path in ours:
        if surplus and step not in kept:
            remove_checkpoint(path)
            surplus -= 1


def _checkpoint_named(folder: Path, wanted: str, identity: dict[str, Any], allowed: Collection[str]) -> str:
    if wanted.lower() == "true":
        checkpoint = newest_checkpoint(folder, identity, allowed)
        if checkpoint is None:
            raise InputError(f"{folder}: holds no checkpoint to resume; leave --resume_from_checkpoint out")
        return checkpoint
    reason = _why_not(Path(wanted), identity, allowed)
    if reason:
        raise InputError(f"{wanted}: no whole checkpoint of this run ({reason}); give another folder checkpoint-N")
    return wanted


def _why_not(checkpoint: Path, identity: dict[str, Any], allowed: Collection[str]) -> str | None:
    """Why a run cannot be continued from a checkpoint, or None."""
    damage = find_damage(checkpoint)
    if damage:
        return damage
    manifest = read_manifest(checkpoint)
    changes = _changes(manifest["identity"] or {}, identity)
    refused = [change for name, change in changes.items() if name not in allowed]
    if refused:
        return f"it is of another run ({_shortened(refused)})"
    return None if manifest["can_be_continued"] else "it holds the model only, as --save_only_model asked"


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    matches = ((CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*") if path.is_dir())
    return [(int(match.group(1)), path) for match, path in matches if match]


def _changes(there: dict[str, Any], here: dict[str, Any]) -> dict[str, str]:
    """The settings that differ, each with its old and its new value."""
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    return {name: f"{name}: {there.get(name)} -> {here.get(name)}" for name in names}


def _shortened(changes: Collection[str]) -> str:
    more = f" and {len(changes) - 5} more" if len(changes) > 5 else ""
    return "; ".join(list(changes)[:5]) + more
