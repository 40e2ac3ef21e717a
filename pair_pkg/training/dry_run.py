"""What a run would cost, measured on a few of its own batches; nothing is trained and nothing written."""

import math
import resource
import sys
import time
from dataclasses import dataclass

import torch

from pair_pkg.training.trainer import StageTrainer, count_tokens

MEASURED_STEPS = 3  # the first warms up and is left out
BYTES_PER_PARAMETER = 16  # float32 weight, gradient and AdamW's two moments


@dataclass(frozen=True)
class Cost:
    """Expected cost of a training run on this machine."""

    steps: int
    tokens_per_step: float
    seconds: float
    peak_bytes: int

    def describe(self) -> list[str]:
        tokens = self.tokens_per_step
        return [
            f"steps: {self.steps:,} of about {tokens:,.0f} tokens ({self.steps * tokens:,.0f} in all)",
            f"expected time: {_duration(self.seconds)} at {self.steps * tokens / self.seconds:,.0f} tokens/s, "
            "evaluations and saves not counted",
            f"expected memory: {self.peak_bytes / 2**30:.1f} GiB",
        ]


def measure_cost(trainer: StageTrainer) -> Cost:
    """Forward and backward on the first batches of epoch 0, without a step of the optimizer."""
    args, model = trainer.args, trainer.model
    loader = trainer.get_train_dataloader()
    updates_per_epoch = max(math.ceil(len(loader) / args.gradient_accumulation_steps), 1)
    steps = args.max_steps if args.max_steps > 0 else math.ceil(args.num_train_epochs * updates_per_epoch)
    model.train()
    seconds, tokens = [], []
    batches = iter(loader)
    for _ in range(min(MEASURED_STEPS, len(loader))):
        batch = trainer._prepare_inputs(next(batches))
        tokens.append(count_tokens(batch))
        begin = time.perf_counter()
        with trainer.accelerator.autocast():
            trainer.training_step(model, batch, torch.tensor(len(batch["labels"]), device=args.device))
        model.zero_grad()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - begin)
    steady = seconds[1:] or seconds
    return Cost(
        steps=steps,
        tokens_per_step=sum(tokens) / len(tokens) * args.gradient_accumulation_steps * args.world_size,
        seconds=steps * args.gradient_accumulation_steps * sum(steady) / len(steady),
        peak_bytes=_peak_bytes() + (BYTES_PER_PARAMETER // 2) * trainer.model.num_parameters(only_trainable=True),
    )


def _peak_bytes() -> int:
    """Most memory so far: of the GPU where there is one, else of the process (weights and gradients are in it)."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, as far as they matter.

    >>> _duration(3725), _duration(42.4)
    ('1 h 2 min', '42 s')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
