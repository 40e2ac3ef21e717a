"""The library's Trainer with this project's batches, exact evaluation and refusals; one for both stages."""

import math
import time
from collections.abc import Callable, Iterator, Sequence, Sized
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback
from transformers.trainer_utils import EvalLoopOutput

from pair_pkg.data.batches import EvaluationSampler, TrainSampler, rows_of_step
from pair_pkg.errors import TrainingFailure
from pair_pkg.interrupts import Interrupted, ignore_signals
from pair_pkg.training.adversarial import AdversarialEmbeddings
from pair_pkg.training.checkpoints import decisive_arguments
from pair_pkg.training.cost import EnergyMeter
from pair_pkg.training.durable import DurableTrainer
from pair_pkg.training.gathering import gather_rows
from pair_pkg.training.loaders import EpochLoader, skipping_by_arithmetic
from pair_pkg.training.position import warn_of_other_place
from pair_pkg.training.progress import DescribeLoss, TrainingProgress, plain_loss
from pair_pkg.training.sharding import has_divided_weights, untied
from pair_pkg.training.streaming import TrainingStream
from pair_pkg.training.weights import ResultWeights

ScoreBatch = Callable[[nn.Module, dict[str, Any]], dict[str, Tensor]]
RowMetrics = Callable[[dict[str, np.ndarray]], dict[str, Any]]
SideMetrics = Callable[["StageTrainer"], dict[str, float]]
DivideGroups = Callable[[list[dict[str, Any]]], list[dict[str, Any]]]
MAX_NORM_BATCHES = 200  # of training rows that tell an averaged model's norm its statistics


class StageTrainer(DurableTrainer):
    """A Trainer whose data sets build their own batches and whose evaluation is a sum over rows.

    A data set has ``build_batch(items)`` (see ``data.batches.Item``) and ``row_tokens()``. ``score_batch(model,
    batch)`` gives columns of values with one row each, ``row`` among them; they are gathered over processes, put
    into the order of the rows, and ``row_metrics(columns)`` makes metrics of them, so that no batch size and no
    number of processes can change a metric. Evaluation runs in ``eval`` mode, without gradients, and leaves the
    random state as it was.

    ``side_metrics`` measure what else an evaluation tells, on every process alike; their names are their own.
    ``describe_loss`` words the training loss for whoever watches.

    What is added to plain training is composed, not subclassed: ``adversary`` runs a step's passes, ``weights`` says
    what is evaluated, saved and kept, and ``divide_groups`` divides the optimizer's parameter groups; from a
    ``stream``, not from rows that are known before, the batches may come.
    """

    def __init__(
        self,
        *,
        score_batch: ScoreBatch,
        row_metrics: RowMetrics,
        adversary: AdversarialEmbeddings | None = None,
        weights: ResultWeights | None = None,
        divide_groups: DivideGroups | None = None,
        stream: TrainingStream | None = None,
        side_metrics: Sequence[SideMetrics] = (),
        describe_loss: DescribeLoss = plain_loss,
        **settings: Any,
    ):
        super().__init__(**settings)
        for librarys_own in (ProgressCallback, PrinterCallback):
            self.remove_callback(librarys_own)
        self.progress = TrainingProgress(self, describe_loss, with_bar=not self.args.disable_tqdm)
        self.add_callback(self.progress)
        self.score_batch = score_batch
        self.row_metrics = row_metrics
        self.adversary = adversary
        self.weights = weights or ResultWeights(self.model)
        self.weights.attach(self._forwards)
        self.add_callback(self.weights)
        self.divide_groups = divide_groups
        self.stream = stream
        self.side_metrics = side_metrics
        self.energy = EnergyMeter()
        self.add_callback(self.energy)
        self.num_encoder_parameters = self.model.num_parameters(exclude_embeddings=True)
        self.num_tokens_trained = 0  # of this process, since the run was last started
        self._tokens_since_log = 0
        self._clock = time.perf_counter()

    # ---- batches ----

    def get_train_dataloader(self) -> DataLoader:
        if self.stream is not None:
            return self._build_loader(self.train_dataset, self.stream.build_sampler(self._resumed_from))
        args, size = self.args, len(self.train_dataset)
        batch_size = args.per_device_train_batch_size
        sampler = TrainSampler(size, batch_size, self._data_seed, args.process_index, args.world_size)
        return self._build_loader(self.train_dataset, sampler)

    @property
    def _data_seed(self) -> int:
        return self.args.seed if self.args.data_seed is None else self.args.data_seed

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        args = self.args
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        batch_size = args.per_device_eval_batch_size
        in_step = has_divided_weights(args)
        sampler = EvaluationSampler(dataset.row_tokens(), batch_size, args.process_index, args.world_size, in_step)
        return self._build_loader(dataset, sampler)

    def _build_loader(self, dataset: Any, sampler: Sampler) -> DataLoader:
        return EpochLoader(
            dataset,
            batch_sampler=sampler,
            collate_fn=dataset.build_batch,
            num_workers=self.args.dataloader_num_workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=self.args.dataloader_persistent_workers,
            prefetch_factor=self.args.dataloader_prefetch_factor,
            worker_init_fn=ignore_signals,
        )

    # ---- training ----

    def _run_epoch(self, **settings: Any) -> None:
        with skipping_by_arithmetic():
            super()._run_epoch(**settings)

    def training_step(self, model: PreTrainedModel, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """The library's step, refusing a non-finite loss (on a GPU the gradient norm tells, without a sync here)."""
        num_tokens = count_tokens(inputs)
        self._tokens_since_log += num_tokens
        self.num_tokens_trained += num_tokens
        loss = self._passes(model, inputs, num_items_in_batch)
        if loss.device.type == "cpu" and not math.isfinite(loss.item()):
            raise self._failure(f"the training loss is {loss.item()}")
        return loss

    def _passes(self, model: PreTrainedModel, inputs: dict[str, Any], num_items_in_batch: Any) -> Tensor:
        """Forward and backward of a batch, or the two of an adversary, each counting half; gives the loss."""
        if self.adversary is None:
            return super().training_step(model, inputs, num_items_in_batch)
        inputs = self._prepare_inputs(inputs)
        backward = partial(super().training_step, model, inputs, 2 * num_items_in_batch)
        return self.adversary.step(self.model, inputs, backward, partial(self.accelerator.no_sync, model))

    def create_optimizer(self, model: PreTrainedModel | None = None) -> torch.optim.Optimizer:
        """The library's optimizer, its groups divided where that was asked for."""
        is_new = self.optimizer is None
        optimizer = super().create_optimizer(model)
        if is_new and self.divide_groups is not None:
            optimizer.param_groups = self.divide_groups(optimizer.param_groups)
        return optimizer

    def _get_grad_norm(self, model: PreTrainedModel, grad_norm: Any = None) -> Any:
        """The gradient norm, refused where it is not finite: the optimizer has not stepped yet."""
        norm = super()._get_grad_norm(model, grad_norm)
        scaled = getattr(self.accelerator, "scaler", None) is not None  # float16: the scaler skips such steps itself
        if not scaled and not math.isfinite(float(norm)):
            raise self._failure(f"the gradient norm is {float(norm)}")
        return norm

    def _failure(self, what: str) -> TrainingFailure:
        args, step = self.args, self.state.global_step
        rows_per_step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        if self.stream is None:
            rows = rows_of_step(len(self.train_dataset), rows_per_step, self._data_seed, step)
            named = f"{_some(rows)} of the training rows"
        else:
            named = self.stream.name_rows(step)
        return TrainingFailure(
            f"step {step + 1}: {what}; nothing was saved from this step, the newest checkpoint stands; lower "
            f"--learning_rate, or --max_grad_norm, or look at the rows of this step, {named}"
        )

    def floating_point_ops(self, inputs: dict[str, Any]) -> float:
        """Forward and backward operations of a batch without padding; the library would walk all parameters."""
        return 6.0 * count_tokens(inputs) * self.num_encoder_parameters

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, with real tokens a second of this process since the last training log."""
        if "loss" in logs:
            elapsed = time.perf_counter() - self._clock
            logs["tokens_per_second"] = round(self._tokens_since_log * self.args.world_size / max(elapsed, 1e-9), 1)
            self._tokens_since_log, self._clock = 0, time.perf_counter()
        super().log(logs, start_time)

    def train(self, *args: Any, **settings: Any) -> Any:
        self._tokens_since_log, self._clock = 0, time.perf_counter()
        try:
            return super().train(*args, **settings)
        finally:
            self.progress.close()

    # ---- evaluation ----

    def evaluate(self, *args: Any, **settings: Any) -> dict[str, float]:
        begin = time.perf_counter()
        metrics = super().evaluate(*args, **settings)
        self._clock += time.perf_counter() - begin  # not training time
        return metrics

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self.measure(dataloader).items()}
        num_samples = len(cast(Sized, dataloader.dataset))
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=num_samples)

    def measure(self, dataloader: DataLoader) -> dict[str, float]:
        """The metrics of the model as it is, those of ``side_metrics`` among them; nothing is logged."""
        columns = self.score_dataset(dataloader)
        self._refuse_broken_columns(columns)
        metrics = self.row_metrics(columns)
        numbers = {name: value for name, value in metrics.items() if isinstance(value, int | float)}
        for measure in self.side_metrics:
            numbers |= measure(self)
        return numbers

    def _refuse_broken_columns(self, columns: dict[str, np.ndarray]) -> None:
        for name, values in columns.items():
            broken = columns["row"][~np.isfinite(values)]
            if len(broken):
                raise TrainingFailure(
                    f"step {self.state.global_step}: the {name} of an evaluation is NaN or infinite at {_some(broken)} "
                    f"of the {len(values):,} rows; nothing was saved from this step, the newest checkpoint stands; "
                    "lower --learning_rate"
                )

    def score_dataset(
        self, dataloader: DataLoader, full_precision: bool = False, score_batch: ScoreBatch | None = None
    ) -> dict[str, np.ndarray]:
        """The columns of ``score_batch`` (its own by default) over all rows and processes, in the order of the rows.

        ``full_precision`` (after training) multiplies in float32, as whoever loads the saved weights does.
        """
        model = self.model_wrapped if self.is_in_train else self.model
        was_training = model.training
        model.eval()
        scored: list[dict[str, np.ndarray]] = []
        self.callback_handler.eval_dataloader = dataloader
        precision = self._own_forward() if full_precision else self.accelerator.autocast()
        with self.weights.in_place(), torch.no_grad(), torch.random.fork_rng(), precision:
            sampler = cast(EvaluationSampler, dataloader.batch_sampler)
            for number, batch in enumerate(dataloader):
                if self.is_in_train and number < sampler.num_shared and self.is_told_to_stop():
                    raise Interrupted("told to stop in an evaluation; the same command goes on from what is saved")
                columns = (score_batch or self.score_batch)(model, self._prepare_inputs(batch))
                if number < sampler.num_own:
                    scored.append({name: _to_numpy(values) for name, values in columns.items()})
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        model.train(was_training)
        return gather_rows(scored)

    @contextmanager
    def _own_forward(self) -> Iterator[None]:
        """The model's forward without the half precision that accelerate has put around it for training."""
        wrapped, own = (self.model.__dict__.get(name) for name in ("forward", "_original_forward"))
        if own is not None:
            self.model.forward = own
        try:
            yield
        finally:
            if own is not None:
                self.model.forward = wrapped

    # ---- checkpoints ----

    def _tell_place(self, manifest: dict[str, Any]) -> None:
        if self.stream is None:
            now, num_rows = decisive_arguments(self.args), len(self.train_dataset)
            warn_of_other_place(manifest["identity"] or {}, now, num_rows, manifest["step"])

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """The library's files, but for ``training_args.bin``: a pickle, and it holds the Hub token in clear."""
        with self.weights.in_place():
            gathered = state_dict and untied(state_dict, self.model)
            super()._save(output_dir, self.weights.state_dict() if gathered is None else gathered)
        Path(output_dir or self.args.output_dir, "training_args.bin").unlink(missing_ok=True)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.args.should_save:
            self.weights.save_training(output_dir)

    def _save_rng_state(self, output_dir: str) -> None:
        """What is each process's own: its random states, and its place in the stream."""
        super()._save_rng_state(output_dir)
        if self.stream is not None:
            self.stream.save(output_dir, self.state.global_step)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        """The weights that learn; those of the folder's model where they are the same."""
        if not self.weights.load_training(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        """The best checkpoint's model, which is a plain one, as ours has to be for it."""
        self.weights.keep()
        super()._load_best_model()

    def _forwards(self) -> Iterator[Any]:
        """The model on the training batches of epoch 0, in the mode that it is in, one at each turn."""
        for _, batch in zip(range(MAX_NORM_BATCHES), self.get_train_dataloader()):
            inputs = self._prepare_inputs(batch)
            inputs.pop("labels", None)
            with self.accelerator.autocast():
                outputs = self.model(**inputs)
            yield outputs


def count_tokens(batch: dict[str, Any]) -> int:
    """Real tokens of a batch; padding does not count."""
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else int(mask.sum())


def _to_numpy(values: Tensor) -> np.ndarray:
    return (values.float() if values.dtype == torch.bfloat16 else values).cpu().numpy()


def _some(rows: np.ndarray) -> str:
    """The first of some row numbers, in words.

    >>> _some(np.array([3, 1])), _some(np.arange(20))
    ('rows 3, 1', 'rows 0, 1, 2, 3, 4, 5, 6, 7 and 12 more')
    """
    more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
    return f"rows {', '.join(map(str, rows[:8]))}{more}"
