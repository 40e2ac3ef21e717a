"""Whose folder this is: a run is started, continued, found finished, or refused."""

import logging
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainingArguments

from pair_pkg.errors import InputError
from pair_pkg.records import RECORD_NAME, read_record, write_record

logger = logging.getLogger("pair_pkg")

# Arguments that decide on the weights that come out; a run continued with another value of one is another run.
DECISIVE_ARGUMENTS = (
    "per_device_train_batch_size", "gradient_accumulation_steps", "world_size", "num_train_epochs", "max_steps",
    "learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "optim", "optim_args",
    "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm", "label_smoothing_factor",
    "bf16", "fp16", "seed", "data_seed",
)  # fmt: skip
RUNNING, FINISHED = "running", "finished"
CHECKPOINT = re.compile(r"checkpoint-(\d+)")
MODEL_FILES = ("config.json", "*.safetensors", "*.bin", "checkpoint-*")


@dataclass(frozen=True)
class Opened:
    """What stands in an output folder: the checkpoint to continue from, or the record of the finished run."""

    checkpoint: str | None = None
    finished: dict[str, Any] | None = None


def decisive_arguments(args: TrainingArguments) -> dict[str, Any]:
    """The training arguments that decide on the result, as JSON values."""
    values = {**args.to_dict(), "world_size": args.world_size}
    return {name: values[name] for name in DECISIVE_ARGUMENTS if name in values}


def open_run(
    output_dir: str,
    identity: dict[str, Any],
    *,
    overwrite: bool = False,
    replace_other: bool = False,
    resume_from_checkpoint: str | None = None,
) -> Opened:
    """Decide what a run does with its output folder; nothing is written.

    ``identity`` is a flat mapping of everything that decides on the result. Raises ``InputError`` where the folder
    holds another run or other model files, naming what differs, unless ``overwrite``; with ``replace_other`` (a
    folder that the pipeline owns) another run is started anew, and the same one continued.
    """
    folder = Path(output_dir)
    check_output_dir(folder)
    if overwrite:
        return Opened()
    if resume_from_checkpoint:
        return Opened(checkpoint=_checkpoint_named(folder, resume_from_checkpoint))
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
    _refuse_other_run(folder, record.get("identity", {}), identity)
    if record.get("status") == FINISHED:
        return Opened(finished=record)
    return Opened(checkpoint=newest_checkpoint(folder))


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
                shutil.rmtree(checkpoint)
        write_record(folder, {"status": RUNNING, **record})
    except OSError as error:
        raise InputError(f"{folder}: cannot be written ({error.strerror}); give another --output_dir") from error


def newest_checkpoint(folder: Path) -> str | None:
    """The checkpoint of the highest step that was saved to its end; a broken one is named and passed over."""
    for _, checkpoint in sorted(_checkpoints(folder), reverse=True):
        if (checkpoint / "trainer_state.json").is_file():  # the library writes it last
            return str(checkpoint)
        logger.warning("%s: not saved to its end; an older checkpoint is taken", checkpoint)
    return None


def _checkpoint_named(folder: Path, wanted: str) -> str:
    if wanted.lower() == "true":
        checkpoint = newest_checkpoint(folder)
        if checkpoint is None:
            raise InputError(f"{folder}: holds no checkpoint to resume; leave --resume_from_checkpoint out")
        return checkpoint
    if not Path(wanted, "trainer_state.json").is_file():
        raise InputError(f"{wanted}: no whole checkpoint (trainer_state.json is missing); give a folder checkpoint-N")
    return wanted


def _checkpoints(folder: Path) -> list[tuple[int, Path]]:
    matches = ((CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*") if path.is_dir())
    return [(int(match.group(1)), path) for match, path in matches if match]


def _refuse_other_run(folder: Path, there: dict[str, Any], here: dict[str, Any]) -> None:
    names = [name for name in {**there, **here} if there.get(name) != here.get(name)]
    if names:
        changes = "; ".join(f"{name}: {there.get(name)} -> {here.get(name)}" for name in names[:5])
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise InputError(
            f"{folder}: {RECORD_NAME} there is of another run ({changes}{more}); give another --output_dir, "
            "or --overwrite_output_dir to start anew"
        )
