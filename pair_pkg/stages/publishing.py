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
from transformers import TrainerCallback
from transformers.trainer_utils import HubStrategy

from pair_pkg.errors import InputError, PushFailure, one_line
from pair_pkg.hub.staging import stage_model
from pair_pkg.hub.upload import open_repository, push_files
from pair_pkg.report.card import build_card
from pair_pkg.stages.push import publish
from pair_pkg.training.arguments import StageTrainingArguments
from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")


def open_hub(args: StageTrainingArguments) -> None:
    """Open the repository that ``--push_to_hub`` wants, on the main process, before the hours of training.

    ``args.hub_model_id`` is its full name from then on. Raises ``InputError``.
    """
    if not (args.push_to_hub and args.should_save):
        return
    name = args.hub_model_id or Path(args.output_dir).absolute().name
    token = _token(args)
    try:
        args.hub_model_id = open_repository(name, private=args.hub_private_repo is not False, token=token)
    except PushFailure as error:
        raise InputError(f"--push_to_hub: {error}; mend the network, or leave the flag out") from error


def push_saves(trainer: StageTrainer, record: dict[str, Any]) -> None:
    """Push the model of each checkpoint while training goes on, where ``--hub_strategy`` wants more than the end."""
    args = trainer.args
    if args.push_to_hub and args.should_save and args.hub_strategy != HubStrategy.END:
        trainer.add_callback(SavePusher(args, record))


def push_result(args: StageTrainingArguments) -> None:
    """Push the finished model of ``output_dir``. Raises ``PushFailure``; the folder is whole in any case."""
    if not (args.push_to_hub and args.should_save):
        return
    try:
        publish(
            Path(args.output_dir),
            args.hub_model_id,
            private=args.hub_private_repo is not False,
            token=_token(args),
            revision=args.hub_revision,
        )
    except PushFailure as error:
        again = f"python -m pair_pkg push {args.output_dir} {args.hub_model_id}"
        raise PushFailure(f"{error}; the model is whole in {args.output_dir}: {again}") from error


class SavePusher(TrainerCallback):
    """Sends the newest checkpoint's model by a thread; while one is under way, a new save is passed over."""

    def __init__(self, args: StageTrainingArguments, record: dict[str, Any]):
        self.repo_id, self.token, self.revision = args.hub_model_id, _token(args), args.hub_revision
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
            card = str(build_card(self.record, repo_id=self.repo_id))
            secrets = (self.token,) if self.token else ()
            stage_model(Path(args.output_dir, f"checkpoint-{state.global_step}"), Path(staging.name), card, secrets)
        except (InputError, OSError) as error:
            self._fail(state.global_step, error)
            staging.cleanup()
            return
        self.thread = threading.Thread(target=self._send, args=(staging, state.global_step), daemon=True)
        self.thread.start()

    def on_train_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        """Wait for what is under way, and tell what became of all of them."""
        if self.thread is not None:
            self.thread.join()
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
            except (InputError, PushFailure) as error:
                self._fail(step, error)

    def _fail(self, step: int, error: Exception) -> None:
        self.failed += 1
        logger.warning("--push_to_hub: step %d was not pushed (%s); training goes on", step, one_line(str(error)))


def _token(args: StageTrainingArguments) -> str | None:
    token = args.hub_token or get_token()
    if token is None:
        raise InputError("--push_to_hub: no token for the Hub: log in by `hf auth login`, or set HF_TOKEN")
    return token
