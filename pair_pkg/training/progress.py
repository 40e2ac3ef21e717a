"""How far a training is: a bar on a terminal, a line now and then where there is none."""

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from tqdm.auto import tqdm
from transformers import TrainerCallback

if TYPE_CHECKING:
    from pair_pkg.training.trainer import StageTrainer

logger = logging.getLogger("pair_pkg")

WINDOW_STEPS = 20  # that the shown loss and rate are of: enough to be steady, few enough to be current
LOG_SECONDS = 30  # between two lines about the progress, where there is no terminal
QUICK_SECONDS = 2  # an evaluation that is done sooner needs no bar
BAR = "{percentage:3.0f}%|{bar}| {desc} {n_fmt}/{total_fmt}{postfix}"  # eighty columns hold it
TIMINGS = ("_runtime", "_per_second", "_preparation_time")
UNTOLD = ("epoch", "total_flos", "step")

DescribeLoss = Callable[[float], str]


def plain_loss(loss: float) -> str:
    """A loss in words.

    >>> plain_loss(0.69312)
    'loss 0.6931'
    """
    return f"loss {loss:.4f}"


@dataclass
class Pace:
    """Rate and loss of the last steps, and when the last one will be done; evaluations count for the end only."""

    begin: float  # of the first step, by the same clock as all other times here, in seconds
    steps: int = 0
    last: deque[tuple[float, int, float]] = field(default_factory=lambda: deque(maxlen=WINDOW_STEPS))

    def add(self, seconds: float, tokens: int, loss: float) -> None:
        """Take a step in."""
        self.steps += 1
        self.last.append((seconds, tokens, loss))

    @property
    def tokens_per_second(self) -> float:
        return sum(tokens for _, tokens, _ in self.last) / max(sum(seconds for seconds, _, _ in self.last), 1e-9)

    @property
    def loss(self) -> float:
        return math.fsum(loss for _, _, loss in self.last) / len(self.last)

    def seconds_left(self, now: float, steps_left: int) -> float:
        """At the mean pace since the first step, with whatever came between the steps.

        >>> pace = Pace(begin=100.0)
        >>> pace.add(2.0, 500, 0.7)
        >>> pace.tokens_per_second, pace.seconds_left(now=103.0, steps_left=4)
        (250.0, 12.0)
        """
        return (now - self.begin) / self.steps * steps_left


class TrainingProgress(TrainerCallback):
    """Shows the main process's steps with tokens a second, the loss as ``describe`` words it, and the expected end.

    A bar on the standard error, or, without ``with_bar``, a log line every half minute. Evaluations get a line each.
    """

    def __init__(self, trainer: "StageTrainer", describe: DescribeLoss, with_bar: bool):
        self.trainer = trainer
        self.describe = describe
        self.with_bar = with_bar
        self.pace = Pace(time.perf_counter())
        self.training_bar: tqdm | None = None
        self.batches_bar: tqdm | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        now = time.perf_counter()
        self.pace, self.since, self.logged = Pace(now), now, now
        self.tokens, self.summed_loss = self.trainer.num_tokens_trained, float(self.trainer._tr_loss)
        if self._is_shown(state):
            self.training_bar = tqdm(
                desc="step", initial=state.global_step, total=state.max_steps, bar_format=BAR,
                dynamic_ncols=True, file=sys.stderr,
            )  # fmt: skip

    # Reading the loss waits for a GPU, as the check of the gradient norm has done just before.
    def on_step_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        now, tokens, summed = time.perf_counter(), self.trainer.num_tokens_trained, float(self.trainer._tr_loss)
        self.pace.add(now - self.since, (tokens - self.tokens) * args.world_size, summed - self.summed_loss)
        self.since, self.tokens, self.summed_loss = now, tokens, summed
        if not state.is_world_process_zero:
            return
        left = state.max_steps - state.global_step
        if self.training_bar is not None:
            self.training_bar.set_postfix_str(self._words(now, left), refresh=False)
            self.training_bar.update(1)
        elif now - self.logged >= LOG_SECONDS and left:
            self.logged = now
            logger.info("training: step %d of %d, %s", state.global_step, state.max_steps, self._words(now, left))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        if "loss" in logs:
            self.summed_loss = 0.0  # the library counts anew behind each log
            if self.training_bar is not None:
                self._say(f"step {state.global_step}: {self._logged_words(logs)}")
        elif "eval_loss" in logs and state.is_world_process_zero:
            self._say(f"step {state.global_step}, validation: {evaluation_words(logs)}")

    def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **_: Any) -> None:
        if not self._is_shown(state) or eval_dataloader is None:
            return
        if self.batches_bar is None:
            self.batches_bar = tqdm(
                desc="evaluating, batch", total=len(eval_dataloader), bar_format=BAR, leave=False,
                delay=QUICK_SECONDS, dynamic_ncols=True, file=sys.stderr,
            )  # fmt: skip
        self.batches_bar.update(1)
        if self.batches_bar.n >= self.batches_bar.total:
            self.batches_bar.close()
            self.batches_bar = None

    def on_evaluate(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        self.since = time.perf_counter()
        if self.trainer.is_in_train and not self.pace.steps:
            self.pace.begin = self.since  # of the first step: this was the evaluation before it

    def on_save(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        self.since = time.perf_counter()

    def on_train_end(self, args: Any, state: Any, control: Any, **settings: Any) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bars as they stand; whatever is printed next begins a line."""
        for bar in (self.batches_bar, self.training_bar):
            if bar is not None:
                bar.close()
        self.batches_bar = self.training_bar = None

    def _is_shown(self, state: Any) -> bool:
        return self.with_bar and state.is_world_process_zero

    def _words(self, now: float, left: int) -> str:
        """The pace at this moment."""
        end = datetime.now() + timedelta(seconds=self.pace.seconds_left(now, left))
        rate = f"{self.pace.tokens_per_second:,.0f} tokens/s"
        return f"{rate}, {self.describe(self.pace.loss)}, ends {clock_time(end, datetime.now())}"

    def _logged_words(self, logs: dict[str, Any]) -> str:
        """What the library logs of the steps since its last log."""
        rate = f"{logs['tokens_per_second']:,.0f} tokens/s"
        norm = [f"gradient norm {logs['grad_norm']:.3g}"] if "grad_norm" in logs else []
        return ", ".join([self.describe(logs["loss"]), rate, f"learning rate {logs['learning_rate']:.3g}", *norm])

    def _say(self, line: str) -> None:
        if self.training_bar is not None:
            self.training_bar.write(line, file=sys.stderr)
        else:
            logger.info("%s", line)


def evaluation_words(logs: dict[str, Any]) -> str:
    """The metrics of an evaluation in a line, without its timings.

    >>> evaluation_words({"eval_loss": 6.1, "eval_general_loss": 0.25, "eval_tokens": 1200, "eval_runtime": 3.0})
    'loss 6.1, general loss 0.25, tokens 1,200'
    """
    told = {name: value for name, value in logs.items() if name not in UNTOLD and not name.endswith(TIMINGS)}
    return ", ".join(f"{name.removeprefix('eval_').replace('_', ' ')} {_number(told[name])}" for name in told)


def _number(value: float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 1000 else f"{value:.4g}"


def clock_time(time_of_day: datetime, today: datetime) -> str:
    """A time as a clock shows it, with its date where that is not today's.

    >>> today = datetime(2026, 1, 1)
    >>> clock_time(datetime(2026, 1, 2, 0, 5), today), clock_time(datetime(2026, 1, 1, 14, 5), today)
    ('2 January 00:05', '14:05:00')
    """
    if time_of_day.date() == today.date():
        return f"{time_of_day:%H:%M:%S}"
    return f"{time_of_day.day} {time_of_day:%B %H:%M}"
