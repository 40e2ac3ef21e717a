"""``--push_to_hub``: a stage's model to the Hub by ``hub``, never by the library, which uploads whatever lies there.

The repository is opened before anything is trained. What is pushed while training goes on is staged at a save and sent
by a thread of its own: it neither stops training nor slows it, and what failed is told at the end.
"""

import logging
import tempfile
import threading
from pathlib import Path
from typing import Any

from huggingface_hub import get_token
from transformers import TrainerCallback, TrainingArguments
from transformers.trainer_utils import HubStrategy

from pair_pkg.errors import InputError, PushFailure, one_line
from pair_pkg.hub.staging import stage_model
from pair_pkg.hub.upload import open_repository, push_files
from pair_pkg.stages.push import card_of, publish
from pair_pkg.training.arguments import StageTrainingArguments
from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")

LONGEST_WAIT = 600.0  # seconds that the end of training waits for a push of a save; the result is pushed after it


def open_hub(args: StageTrainingArguments) -> None:
    """Open the repository that ``--push_to_hub`` wants, on the main process, before the hours of training.

    ``args.hub_model_id`` is its full name from then on. Raises ``InputError``.
    """
    if not _pushes(args):
        return
    _tell_differences(args)
    try:
        args.hub_model_id = open_repository(_repository(args), private=_is_private(args), token=_token(args))
    except PushFailure as error:
        raise InputError(f"--push_to_hub: {error}; mend the network, or leave the flag out") from error


def push_saves(trainer: StageTrainer, record: dict[str, Any]) -> None:
    """Push the model of each checkpoint while training goes on, where ``--hub_strategy`` wants more than the end."""
    args = trainer.args
    if _pushes(args) and args.hub_strategy != HubStrategy.END:
        trainer.add_callback(SavePusher(args, record))


def push_result(args: StageTrainingArguments) -> None:
    """Push the finished model of ``output_dir``, whether it was trained just now or before.

    Raises ``InputError`` and ``PushFailure``; the folder is whole in any case.
    """
    if not _pushes(args):
        return
    name = _repository(args)
    try:
        publish(Path(args.output_dir), name, private=_is_private(args), token=_token(args), revision=args.hub_revision)
    except PushFailure as error:
        again = f"python -m pair_pkg push {args.output_dir} {name}"
        raise PushFailure(f"{error}; the model is whole in {args.output_dir}: {again}") from error


class SavePusher(TrainerCallback):
    """Sends the newest checkpoint's model by a thread; while one is under way, a new save is passed over."""

    def __init__(self, args: TrainingArguments, record: dict[str, Any]):
        self.repo_id, self.token, self.revision = _repository(args), _token(args), args.hub_revision
        self.record = record
        self.thread: threading.Thread | None = None
        self.pushed = self.failed = self.passed_over = 0

    def on_save(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Stage the checkpoint now, for rotation may delete it, and send it in the background."""
        if self.thread is not None and self.thread.is_alive():
            self.passed_over += 1
            return
        staging = tempfile.TemporaryDirectory()
        try:
            checkpoint = Path(args.output_dir, f"checkpoint-{state.global_step}")
            card = str(card_of(checkpoint, self.record, self.repo_id))
            stage_model(checkpoint, Path(staging.name), card, (self.token,))
        except (InputError, OSError) as error:
            self._fail(state.global_step, error)
            staging.cleanup()
            return
        self.thread = threading.Thread(target=self._send, args=(staging, state.global_step), daemon=True)
        self.thread.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Wait for what is under way, but not for ever, and tell what became of all of them."""
        if self.thread is not None:
            self.thread.join(LONGEST_WAIT)
            if self.thread.is_alive():
                self._fail(state.global_step, PushFailure(f"the last push is still under way after {LONGEST_WAIT:g} s"))
        if self.failed or self.passed_over:
            logger.warning(
                "--push_to_hub: of the pushes during training %d arrived, %d failed, %d were passed over because one "
                "was still under way",
                self.pushed, self.failed, self.passed_over,
            )  # fmt: skip

    def _send(self, staging: tempfile.TemporaryDirectory, step: int) -> None:
        with staging:
            try:
                message = f"Step {step}, by pair_pkg"
                push_files(Path(staging.name), self.repo_id, message, token=self.token, revision=self.revision)
                self.pushed += 1
            except (InputError, PushFailure, OSError) as error:
                self._fail(step, error)

    def _fail(self, step: int, error: Exception) -> None:
        self.failed += 1
        logger.warning("--push_to_hub: step %d was not pushed (%s); training goes on", step, one_line(str(error)))


def _pushes(args: TrainingArguments) -> bool:
    return args.push_to_hub and args.should_save


def _repository(args: TrainingArguments) -> str:
    return args.hub_model_id or Path(args.output_dir).absolute().name


def _is_private(args: TrainingArguments) -> bool:
    return args.hub_private_repo is not False


def _tell_differences(args: TrainingArguments) -> None:
    """What the library's flags promise and this way does not do, in one warning each."""
    if args.hub_strategy in (HubStrategy.CHECKPOINT, HubStrategy.ALL_CHECKPOINTS):
        logger.warning(
            "--hub_strategy %s: the states that a run is resumed from are pickles, and stay here; each save's model is "
            "pushed, as by every_save",
            HubStrategy(args.hub_strategy).value,
        )
    if args.hub_always_push:
        logger.warning("--hub_always_push: a save during a push is passed over in any case, so that none piles up")


def _token(args: TrainingArguments) -> str:
    token = args.hub_token or get_token()
    if token is None:
        raise InputError("--push_to_hub: no token for the Hub: log in by `hf auth login`, or set HF_TOKEN")
    return token
