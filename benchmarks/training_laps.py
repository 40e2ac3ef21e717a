"""Laps of a real ``Trainer.train()``: its data loading, optimizer and every overhead count, its start does not."""

import gc
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from transformers import PrinterCallback, Trainer, TrainerCallback

from benchmarks.timing import Contestant, Lap, synchronized

BuildTrainer = Callable[[int, int], Trainer]  # (max_steps, seed) -> a trainer with fresh weights
Count = Callable[[Tensor], Tensor]  # the token ids of a forward, of any shape -> units of work
UnitsOfStep = int
WARM_UP_STEPS = 1


def training_contestant(
    build_trainer: BuildTrainer, count: Count | UnitsOfStep, steps: int, warm_up: int = WARM_UP_STEPS
) -> Contestant:
    """Each lap trains a fresh trainer for ``warm_up`` steps and then, on the clock, ``steps`` more.

    ``count`` sees the token ids of every forward, or is what every step does. Each lap has another seed, so that laps
    differ in their batches.
    """
    seed = 0

    def lap() -> Lap:
        nonlocal seed
        seed += 1
        trainer = build_trainer(warm_up + steps, seed)
        meter = _Meter(warm_up, count)
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(meter)
        if callable(count):
            _word_embeddings(trainer.model).register_forward_pre_hook(meter.count_forward)
        trainer.train()
        del trainer
        gc.collect()  # a trainer and its model refer to each other
        return Lap(meter.units() if callable(count) else float(count * steps), meter.seconds)

    return lap


def count_real_tokens(pad_token_id: int) -> Count:
    """Tokens of a batch that are not padding, special tokens included."""
    return lambda input_ids: (input_ids != pad_token_id).sum()


def best_batch_size(
    candidates: Iterable[int], contestant_of: Callable[[int], Contestant], largest: int | None = None
) -> tuple[int, dict[int, float]]:
    """The batch size with the most units a second in one lap each, and what all of them reached.

    With ``largest``, a best one at an edge of ``candidates`` is not believed: halves or doubles are tried, up to
    ``largest`` and as far as memory goes, until the best stands inside.
    """
    rates: dict[int, float] = {}

    def fits(batch_size: int) -> bool:
        try:
            rates[batch_size] = contestant_of(batch_size)().rate
        except torch.OutOfMemoryError:
            return False
        return True

    for batch_size in candidates:
        if not fits(batch_size):
            largest = largest and batch_size - 1
            break  # larger ones do not fit either
    while largest is not None:
        best = max(rates, key=rates.__getitem__)
        if best == max(rates) and 2 * best <= largest:
            largest = largest if fits(2 * best) else best
        elif best == min(rates) and best > 1:
            fits(best // 2)
        else:
            break
    gc.collect()
    return max(rates, key=rates.__getitem__), rates


def _word_embeddings(model: nn.Module) -> nn.Module:
    """The one module that every path calls with its token ids: sentence-transformers passes by the model's hooks."""
    return next(module for module in model.modules() if isinstance(module, nn.Embedding))


class _Meter(TrainerCallback):
    """Times and counts from the end of the last warm-up step to the end of the last step."""

    def __init__(self, warm_up: int, count: Count | UnitsOfStep):
        self.seconds = 0.0
        self._warm_up = warm_up
        self._count = count
        self._counted: list[Tensor] = []
        self._begin = 0.0

    def units(self) -> float:
        return float(sum(int(units) for units in self._counted))

    def count_forward(self, module: nn.Module, args: tuple[Tensor]) -> None:
        self._counted.append(self._count(args[0]))  # not read here: on a GPU that would wait for the device

    def on_step_end(self, args, state, control, **_) -> None:
        if state.global_step == self._warm_up:
            self._counted.clear()
            self._begin = synchronized()
        if state.global_step == state.max_steps:
            self.seconds = synchronized() - self._begin
