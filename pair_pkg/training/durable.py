"""A Trainer that loses nothing: its checkpoints are whole or absent, and told to stop it stops with its work saved."""

import pickle
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel, Trainer, TrainerCallback, TrainerControl
from transformers.trainer_pt_utils import nested_gather
from transformers.trainer_utils import SaveStrategy

from pair_pkg.errors import DiskFull, InputError, TrainingFailure, is_disk_full
from pair_pkg.interrupts import Interrupted, deferred, signal_name, was_signalled
from pair_pkg.records import read_record
from pair_pkg.training.checkpoints import rotate_checkpoints
from pair_pkg.training.manifest import STAGING_NAME, find_damage, read_manifest, seal_checkpoint
from pair_pkg.training.room import check_room, checkpoint_bytes, megabytes, planned_saves, run_bytes
from pair_pkg.training.sharding import divide_weights, find_broken_weight, refuse_other_owner, set_up_fsdp, wants_fsdp


class DurableTrainer(Trainer):
    """The library's Trainer with other checkpoints.

    A checkpoint is written to a hidden folder by all processes, sealed with a manifest and renamed, and only then
    are older ones of this run deleted. A signal is obeyed behind a step, or between two batches of an evaluation, by
    all processes at the same place: they save and raise ``Interrupted``. What the library would still have done at
    that place, and what it had not logged yet, is kept too, so that a continued run is bit-equal to a whole one.
    """

    control: TrainerControl

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.add_callback(_Continue(self))
        self._staging: Path | None = None
        self._resumed_from: str | None = None
        self._duties_step: int | None = None  # the step whose duties (log, evaluate, save) were done last
        self._at_epoch_end = False  # these were those of the end of its epoch
        self._saved_step: int | None = None
        self._step_numbers: dict[str, float | None] = {}  # gradient norm and learning rate of the last step

    def create_accelerator_and_postprocess(self) -> None:
        """The library's accelerator, which divides weights where FSDP was asked for. Raises ``InputError``."""
        super().create_accelerator_and_postprocess()
        if wants_fsdp(self.args):
            set_up_fsdp(self.accelerator, self.args)
            self.is_fsdp_enabled = True

    def _prepare_for_training(self, *args: Any) -> Any:
        """The library's preparation, of a model that is divided where FSDP was asked for."""
        if self.is_fsdp_enabled:
            divide_weights(self.model, self.accelerator)
        return super()._prepare_for_training(*args)

    # ---- saving ----

    def _get_output_dir(self, trial: Any) -> str:
        return super()._get_output_dir(trial) if self._staging is None else str(self._staging)

    def _save_checkpoint(self, model: PreTrainedModel, trial: Any, *, scheduled: bool = True) -> None:
        """Save a checkpoint, whole or not at all; one that was not ``scheduled`` is never the best one."""
        folder, step = Path(self.args.output_dir), self.state.global_step
        place = folder / f"checkpoint-{step}"
        best = self._best_checkpoint(scheduled)
        facts = self._facts(scheduled)
        with self._writing(folder / STAGING_NAME) as staging:
            super()._save_checkpoint(model, trial)
            self.state.best_model_checkpoint = best
            self.accelerator.wait_for_everyone()
            if self.args.should_save:
                written = staging / place.name
                self.state.save_to_json(str(written / "trainer_state.json"))
                seal_checkpoint(written, place, facts)
                kept = {step, self.state.best_global_step}
                rotate_checkpoints(folder, self.args.save_total_limit, kept, facts["identity"])
        self.accelerator.wait_for_everyone()
        self._saved_step = step

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The library's save. Raises ``TrainingFailure`` for a weight that broke and that no batch has used since."""
        broken = find_broken_weight(self.model)
        if broken is not None:
            raise TrainingFailure(
                f"step {self.state.global_step}: the weights {broken} hold NaN or infinity; nothing was saved from "
                "this step, the newest checkpoint stands; lower --learning_rate, or --max_grad_norm"
            )
        super().save_model(output_dir, _internal_call)

    def _check_room(self) -> None:
        """Refuse a run whose checkpoints and model its disk cannot hold. Raises ``DiskFull``."""
        args, folder = self.args, Path(self.args.output_dir)
        model, checkpoint = checkpoint_bytes(self.model.parameters(), args.optim)
        checkpoint = model if args.save_only_model else checkpoint
        saves, there = planned_saves(args, self.state), len([*folder.glob("checkpoint-*")])
        why = f"a checkpoint takes {megabytes(checkpoint)}, the model {megabytes(model)}; free some space, "
        check_room(
            folder,
            run_bytes(model, checkpoint, saves, args.save_total_limit, there),
            f"{why}save less often or keep fewer (--save_total_limit), or give another --output_dir",
        )

    @contextmanager
    def _writing(self, staging: Path) -> Iterator[Path]:
        """The library writes to ``staging`` in this block. Raises ``DiskFull``."""
        if self.args.should_save:
            shutil.rmtree(staging, ignore_errors=True)  # of a run that was killed in a save
        self.accelerator.wait_for_everyone()
        self._staging = staging
        try:
            yield staging
        except Exception as error:  # safetensors, torch and the system have an error class each
            if not is_disk_full(error):
                raise
            raise DiskFull(
                f"{self.args.output_dir}: the disk is full, step {self.state.global_step} could not be saved and the "
                "checkpoint before it stands; free some space and give the same command"
            ) from error
        finally:
            self._staging = None
            if self.args.should_save:
                shutil.rmtree(staging, ignore_errors=True)

    def _facts(self, scheduled: bool) -> dict[str, Any]:
        """What a manifest says of the run and of the place in it; all processes take part."""
        record = read_record(self.args.output_dir) or {}
        loss = nested_gather(self._tr_loss, self.args.parallel_mode).mean().item()
        return {
            "step": self.state.global_step,
            "identity": record.get("identity"),
            "world_size": self.args.world_size,
            "can_be_continued": not self.args.save_only_model,
            "scheduled": scheduled,
            "at_epoch_end": self._at_epoch_end,
            "not_logged": {"loss": loss, "since_step": self._globalstep_last_logged, **self._step_numbers},
        }

    def _best_checkpoint(self, scheduled: bool) -> str | None:
        """The path of the best checkpoint behind this save."""
        state = self.state
        if self.args.save_strategy == SaveStrategy.NO or not state.best_global_step:
            return state.best_model_checkpoint
        path = Path(self.args.output_dir, f"checkpoint-{state.best_global_step}")
        if state.best_global_step == state.global_step:
            return str(path) if scheduled else state.best_model_checkpoint
        manifest = read_manifest(path)
        return str(path) if manifest and manifest["scheduled"] else state.best_model_checkpoint

    def init_hf_repo(self, token: str | None = None, private: bool | None = None) -> None:
        """Nothing: the library would upload all of ``output_dir``, publicly; a stage pushes its model by itself."""

    def push_to_hub(self, *args: Any, **settings: Any) -> None:
        """Nothing, as in ``init_hf_repo``."""

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        """Nothing, as in ``init_hf_repo``."""

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        try:
            return super()._determine_best_metric(metrics, trial)
        except KeyError as error:  # a known metric that these pairs do not define
            raise InputError(
                f"--metric_for_best_model {self.args.metric_for_best_model}: the validation pairs do not define it; "
                f"take one of {', '.join(name.removeprefix('eval_') for name in metrics if name.startswith('eval_'))}"
            ) from error

    def _finalize_training(self, *args: Any) -> Any:
        """The library's end of training, without its deletion of older checkpoints."""
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            return super()._finalize_training(*args)
        finally:
            self.args.save_total_limit = limit

    def _load_best_model(self) -> None:
        damage = find_damage(Path(self.state.best_model_checkpoint))
        if damage:
            raise InputError(
                f"{self.state.best_model_checkpoint}: the best checkpoint, {damage}; restore it from a copy, or give "
                "--load_best_model_at_end false"
            )
        super()._load_best_model()

    # ---- stopping ----

    def train(self, resume_from_checkpoint: str | None = None, **settings: Any) -> Any:
        """The library's training, from a sealed checkpoint. Raises ``Interrupted`` once what is done is saved."""
        self._resumed_from = resume_from_checkpoint
        if resume_from_checkpoint is not None:
            manifest = read_manifest(Path(resume_from_checkpoint))
            assert manifest is not None, f"{resume_from_checkpoint} is no sealed checkpoint"
            refuse_other_owner(resume_from_checkpoint, manifest["identity"] or {}, self.args)
            self._tell_place(manifest)
        try:
            with deferred():
                return super().train(resume_from_checkpoint=resume_from_checkpoint, **settings)
        except pickle.UnpicklingError as error:  # a whole one, by its manifest: somebody has written both
            raise InputError(
                f"{resume_from_checkpoint}: holds a pickle that is damaged, or would run code, which is never done; "
                "delete this checkpoint"
            ) from error

    def is_told_to_stop(self) -> bool:
        """Whether a process of this run got a signal; all have to ask at the same place."""
        if self.args.world_size == 1:
            return was_signalled()
        told = torch.tensor(int(was_signalled()), device=self.args.device)
        dist.all_reduce(told, dist.ReduceOp.MAX)
        return bool(told)

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, model: PreTrainedModel, *rest: Any, learning_rate: float | None = None
    ) -> None:
        """The duties behind a step or an epoch; then a signal is obeyed."""
        self._at_epoch_end = self._duties_step == self.state.global_step
        self._duties_step = self.state.global_step
        norm = None if grad_norm is None else float(grad_norm)
        self._step_numbers = {"grad_norm": norm, "learning_rate": learning_rate}
        try:
            super()._maybe_log_save_evaluate(tr_loss, grad_norm, model, *rest, learning_rate=learning_rate)
        except Interrupted:  # between two batches of an evaluation, which is done anew by whoever continues
            self._stop(model)
        is_last = self._epoch_is_over() and not self._at_epoch_end  # the duties of the epoch come at once
        if not is_last and self.is_told_to_stop():
            self._stop(model)

    def _stop(self, model: PreTrainedModel) -> None:
        step = self.state.global_step
        if self._saved_step != step:
            self._save_checkpoint(model, None, scheduled=False)
        raise Interrupted(
            f"{signal_name()}: saved behind step {step} in {self.args.output_dir}; the same command goes on from there"
        )

    # ---- continuing ----

    def _tell_place(self, manifest: dict[str, Any]) -> None:
        """Say where in its data the run goes on, where that is another place than the checkpoint's."""

    def _epoch_is_over(self) -> bool:
        return float(self.state.epoch).is_integer() or self.state.global_step >= self.state.max_steps

    def _continue(self) -> None:
        """Do what was left undone where the checkpoint was saved."""
        if self._resumed_from is None:
            return
        manifest = read_manifest(Path(self._resumed_from))
        assert manifest is not None, f"{self._resumed_from} is no sealed checkpoint"
        self._load_rng_state(self._resumed_from)  # a save that is due writes it anew
        not_logged = manifest["not_logged"]
        self._tr_loss += not_logged["loss"]
        self._globalstep_last_logged = not_logged["since_step"]
        self._step_numbers = {name: not_logged[name] for name in ("grad_norm", "learning_rate")}
        self._saved_step = self.state.global_step
        left = self.state.stateful_callbacks["TrainerControl"]["args"]
        if left["should_evaluate"]:  # it was interrupted there
            self.control.should_evaluate, self.control.should_save = True, left["should_save"]
            self._duties_step = self.state.global_step if manifest["at_epoch_end"] else None
            self._do_duties()
        if self._epoch_is_over() and not manifest["at_epoch_end"]:
            self._duties_step = self.state.global_step
            self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
            self._do_duties()

    def _do_duties(self) -> None:
        norm, rate = self._step_numbers["grad_norm"], self._step_numbers["learning_rate"]
        place = (self.model_wrapped, None, self.state.epoch, None, time.time())
        self._maybe_log_save_evaluate(self._tr_loss, norm, *place, learning_rate=rate)

    def _run_epoch(self, **settings: Any) -> None:
        """The library's epoch; none where the last step was done before the run was continued."""
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
            return
        super()._run_epoch(**settings)


class _Continue(TrainerCallback):
    """Tells the trainer that everything is loaded and the next step is to be taken."""

    def __init__(self, trainer: DurableTrainer):
        self.trainer = trainer

    def on_train_begin(self, args, state, control, **settings: Any) -> None:
        self.trainer._check_room()
        self.trainer._continue()
