"""The weights that a run evaluates, saves and keeps, where those that learn are others: averages, adapters, more."""

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel, TrainerCallback

from pair_pkg.errors import InputError
from pair_pkg.modeling.adapters import Adapters
from pair_pkg.training.averaging import Forwards, WeightAveraging

TRAINING_WEIGHTS_NAME = "training_weights.pt"


class ResultWeights(TrainerCallback):
    """What is evaluated and saved is the average, with adapters merged; a checkpoint holds beside it what learns.

    ``temporary`` names a module of the model that serves training only: no checkpoint's model has it.

    So every folder of a run holds the plain model that its evaluation saw, and training goes on from
    ``training_weights.pt`` to the bit.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        averaging: WeightAveraging | None = None,
        adapters: Adapters | None = None,
        temporary: str | None = None,
    ):
        self.model = model
        self.averaging = averaging
        self.adapters = adapters
        self.temporary = temporary
        self.forwards: Forwards = tuple

    def attach(self, forwards: Forwards) -> None:
        """Learn from the trainer how to run the model on its training batches, for the norms of an average."""
        self.forwards = forwards

    def on_step_end(self, args, state, control, **settings: Any) -> None:
        if self.averaging is not None:
            self.averaging.update(state.global_step, state.max_steps)

    def on_train_end(self, args, state, control, **settings: Any) -> None:
        self.keep()

    def in_place(self) -> AbstractContextManager:
        """The model has the weights to evaluate inside this block; adapters stay apart, which changes no result."""
        return nullcontext() if self.averaging is None else self.averaging.in_place(self.forwards)

    def state_dict(self) -> dict[str, Tensor] | None:
        """What to save of the model as it is now; None: its own state."""
        if self.temporary is None:
            return None if self.adapters is None else self.adapters.merged_state_dict()
        state = self.model.state_dict() if self.adapters is None else self.adapters.merged_state_dict()
        return {name: values for name, values in state.items() if not name.startswith(f"{self.temporary}.")}

    def keep(self) -> None:
        """Training is over: the model gets the weights to keep, and is a plain one again."""
        if self.averaging is not None:
            self.averaging.keep(self.forwards)
        if self.adapters is not None:
            self.adapters.merge()
            self.adapters = None
        if self.temporary is not None:
            delattr(self.model, self.temporary)
            self.temporary = None

    @property
    def _learn_others(self) -> bool:
        """Whether the weights that learn are others than those of the folder's model."""
        return self.averaging is not None or self.adapters is not None or self.temporary is not None

    def save_training(self, folder: str) -> None:
        """Write the weights that learn, and their average so far, where the folder does not hold them anyway."""
        if not self._learn_others:
            return
        state = {"model": self.model.state_dict()}
        if self.averaging is not None:
            state["average"] = self.averaging.state_dict()
        torch.save(state, Path(folder, TRAINING_WEIGHTS_NAME))

    def load_training(self, folder: str) -> bool:
        """Read what ``save_training`` wrote, and say whether there was anything to read. Raises ``InputError``."""
        if not self._learn_others:
            return False
        path = Path(folder, TRAINING_WEIGHTS_NAME)
        if not path.is_file():
            raise InputError(f"{path}: is missing, so this checkpoint cannot be continued; take an earlier one")
        state = torch.load(path, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        if self.averaging is not None:
            self.averaging.load_state_dict(state["average"])
        return True
