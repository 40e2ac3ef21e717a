"""Turn a command line or a recipe file into dataclasses, with one parser for both doors."""

import dataclasses
import difflib
import inspect
import logging
import math
import os
import sys
from argparse import SUPPRESS
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, get_args, get_type_hints

import torch
from accelerate.utils import parse_flag_from_env
from transformers import HfArgumentParser, TrainingArguments
from transformers.integrations import get_reporting_integration_callbacks
from transformers.training_args import trainer_log_levels

from pair_pkg.errors import InputError, one_line
from pair_pkg.modeling.precision import choose_precision
from pair_pkg.processes import Processes, one_first
from pair_pkg.training.flag_help import FlagHelp
from pair_pkg.training.legacy_flags import translate_legacy
from pair_pkg.training.settings import Setting, is_recipe, read_bool, read_recipe, read_words, to_words

logger = logging.getLogger("pair_pkg")

COMMAND_LINE = "command line"
LIBRARY_GROUP = "Training: the rest of the library's arguments, as it explains them"
PASSIVE = -1  # the library's word for: leave the level as it is


def parse_arguments(
    dataclass_types: Sequence[type],
    argv: Sequence[str] | None,
    *,
    program: str,
    description: str,
    place: str = COMMAND_LINE,
) -> tuple[Any, ...]:
    """An instance of each dataclass, in their order, from ``[recipe.yaml] [--flag value ...]``; flags override.

    ``argv=None`` means the words of this process; ``place`` tells where other words came from. Flags of
    transformers 4 are translated, and one warning lists them. ``--help`` prints and exits with status 0. Raises
    ``InputError`` for everything that a user can mend.
    """
    program = program if place == COMMAND_LINE else place
    parser = StageParser(dataclass_types, program, description)
    sources = _read_sources(list(sys.argv[1:] if argv is None else argv), parser.flags, place)
    translations = [translate_legacy(settings, place) for place, settings in sources]
    for (place, _), translation in zip(sources, translations):
        _refuse_unknown(translation.settings, parser.flags, place)
        _refuse_empty(translation.settings, dataclass_types, place)
    settings = [setting for translation in translations for setting in translation.settings]
    # Words cannot say None, so a recipe's null becomes the default, which flags behind the recipe override.
    parser.set_defaults(**{name: None for name, values in settings if values is None})
    values = vars(parser.parse_args(to_words(settings)))
    level = trainer_log_levels.get(values.get("log_level"), PASSIVE)
    if level != PASSIVE:
        logger.setLevel(level)
    notes = [note for translation in translations for note in translation.notes]
    if notes:
        logger.warning("flags of transformers 4: %s", "; ".join(notes))
    for translation in translations:
        os.environ.update(translation.environment)
    return tuple(_build(dataclass_type, values, program) for dataclass_type in dataclass_types)


def own_fields(training: type) -> set[str]:
    """The names of the training arguments that this package adds to the library's, or gives another default."""
    ours = (kind for kind in training.__mro__ if issubclass(kind, TrainingArguments) and kind is not TrainingArguments)
    return {name for kind in ours for name in inspect.get_annotations(kind)}


def refuse_below(arguments: Any, **lowest: float) -> None:
    """Raise ``InputError`` for the first field that is set, and below its lowest value or not finite."""
    for name, least in lowest.items():
        value = getattr(arguments, name)
        if value is not None and not least <= value < math.inf:
            raise InputError(f"--{name} {value} is out of range; give {least} or more")


def _read_sources(words: list[str], flags: Collection[str], place: str) -> list[tuple[str, list[Setting]]]:
    """The recipe, if the first word names one, and the words behind it, each with its place."""
    if words and is_recipe(words[0]):
        return [(words[0], read_recipe(words[0], flags)), (place, read_words(words[1:]))]
    return [(place, read_words(words))]


def _refuse_unknown(settings: Iterable[Setting], flags: Collection[str], place: str) -> None:
    for name, _ in settings:
        if name not in flags:
            near = difflib.get_close_matches(name, flags, n=1)
            cure = f"did you mean {near[0]}?" if near else "--help lists all flags"
            raise InputError(f"{place}: unknown flag {name!r}; {cure}")


def _refuse_empty(settings: Iterable[Setting], dataclass_types: Iterable[type], place: str) -> None:
    hints = {name: hint for kind in dataclass_types for name, hint in get_type_hints(kind).items()}
    for name, values in settings:
        if values is None and type(None) not in get_args(hints.get(name)):
            raise InputError(f"{place}: {name} is empty; give it a value, or leave the line out for the default")


def _build(dataclass_type: type, values: dict[str, Any], program: str) -> Any:
    names = [item.name for item in dataclasses.fields(dataclass_type) if item.init]
    try:
        return dataclass_type(**{name: values[name] for name in names})
    except InputError:
        raise
    except (ValueError, OSError, ImportError) as error:  # values that do not go together, a package that is missing
        raise InputError(f"{program}: {one_line(str(error))}; --help tells what each flag takes") from error


class StageParser(HfArgumentParser):
    """The library's parser with one help group per dataclass, errors as ``InputError``, and every boolean alike."""

    def __init__(self, dataclass_types: Iterable[Any], program: str, description: str):
        ours_first = sorted(dataclass_types, key=lambda kind: issubclass(kind, TrainingArguments))
        usage = f"{program} [recipe.yaml] [--flag value ...]"
        super().__init__(ours_first, prog=program, usage=usage, description=description, formatter_class=FlagHelp)

    @property
    def flags(self) -> set[str]:
        """The names of all flags, without dashes in front and with underscores."""
        return {option.lstrip("-").replace("-", "_") for option in self._option_string_actions}

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{self.prog}: {one_line(message)}; --help lists all flags")

    def _add_dataclass_arguments(self, dtype: Any) -> None:
        title = (inspect.getdoc(dtype) or dtype.__name__).splitlines()[0]
        dtype._argument_group_name = title.rstrip(".")  # the library's own hook for a group
        super()._add_dataclass_arguments(dtype)
        if issubclass(dtype, TrainingArguments):
            self._put_ours_first(dtype)

    def _put_ours_first(self, dtype: type) -> None:
        """Divide the last group: what this package adds or sets otherwise, then what is the library's alone."""
        mine = own_fields(dtype)
        group = self._action_groups[-1]
        librarys = self.add_argument_group(LIBRARY_GROUP)
        librarys._group_actions = [action for action in group._group_actions if action.dest not in mine]
        group._group_actions = [action for action in group._group_actions if action.dest in mine]

    @staticmethod
    def _parse_dataclass_field(parser: Any, field: dataclasses.Field) -> None:
        HfArgumentParser._parse_dataclass_field(parser, field)
        if field.type not in (bool, bool | None):
            return
        # The library lets only some booleans stand bare, and only those that default to True be denied.
        action = parser._option_string_actions[f"--{field.name}"]
        action.nargs, action.const, action.type = "?", True, read_bool
        if f"--no_{field.name}" not in parser._option_string_actions:
            options = (f"--no_{field.name}", f"--no-{field.name.replace('_', '-')}")
            parser.add_argument(
                *dict.fromkeys(options), action="store_false", dest=field.name, default=action.default, help=SUPPRESS
            )


@dataclass(repr=False)  # the library's own repr hides the Hub token
class StageTrainingArguments(TrainingArguments):
    """Training: what this project adds to the library's arguments, or gives another default."""

    output_dir: str = field(metadata={"help": "folder of this run: checkpoints, the final model and its record"})
    overwrite_output_dir: bool = field(
        default=False,
        metadata={
            "help": "start anew in a folder that holds another run; otherwise the newest checkpoint there is resumed"
        },
    )
    allow_changed: list[str] | None = field(
        default=None,
        metadata={
            "help": "settings whose change does not keep this run from going on from its checkpoint, by the names that "
            "the refusal gives them, such as learning_rate"
        },
    )
    log_level: str = field(
        default="passive",
        metadata={
            "help": "the least important lines to show on the standard error, ours and the libraries'; passive: info "
            "and warnings",
            "choices": list(trainer_log_levels),
        },
    )
    report_to: list[str] | None = field(
        default=None,
        metadata={
            "help": "where losses, metrics and tokens a second go beside log_history.json: tensorboard, wandb, mlflow, "
            "trackio and the library's other targets, one or more, or all that are installed; unset: nowhere",
            "nargs": "+",
        },
    )
    debug: str = field(
        default="",
        metadata={"help": "bare: show the traceback of an error too; underflow_overflow: the library's own search"},
    )
    bf16: bool | None = field(  # a bool again once __post_init__ has chosen
        default=None,
        metadata={"help": "train in bfloat16; unset: where the hardware multiplies in it, emulation being far slower"},
    )
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "log the last finite loss in place of NaN; off, because it hides a failed run"},
    )
    save_total_limit: int | None = field(
        default=2,
        metadata={"help": "checkpoints to keep, 0 for all; 2: the newest and one in reserve, for they fill a disk"},
    )
    remove_unused_columns: bool = field(
        default=False,
        metadata={"help": "drop columns that the model does not name; off, because our batches are built from them"},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "search the graph for idle parameters at each step; off, because all of ours learn"},
    )
    ddp_broadcast_buffers: bool | None = field(
        default=False,
        metadata={"help": "send buffers at each forward; off, because an encoder's buffers are constants"},
    )

    def __post_init__(self) -> None:
        # Without use_cpu the library refuses bfloat16 on a processor and does not join the processes of a CPU run;
        # with it memory is not pinned either, which serves a GPU only.
        if parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available():
            self.use_cpu = True
        self.bf16 = choose_precision(self.bf16, self.fp16, self.use_cpu)
        if self.disable_tqdm is None and not sys.stderr.isatty():
            self.disable_tqdm: bool | None = True
        self.report_to = self.report_to or ["none"]
        if self.label_smoothing_factor:  # the library smooths its models' own losses only, and would say nothing
            raise InputError("--label_smoothing_factor: the losses of both stages smooth no labels; leave it out")
        super().__post_init__()
        self._use_one_gpu()
        refuse_below(self, per_device_train_batch_size=1, per_device_eval_batch_size=1, gradient_accumulation_steps=1)
        refuse_below(self, learning_rate=0, seed=0, data_seed=0, dataloader_num_workers=0, neftune_noise_alpha=0)
        get_reporting_integration_callbacks(self.report_to)  # refuses an unknown one, now and not after the data

    @contextmanager
    def main_process_first(self, local: bool = True, desc: str = "work") -> Iterator[None]:
        """The library's, without ``ddp_timeout``: half an hour is short for a corpus.

        ``local``: the first process of each machine, as each may have a cache of its own.
        """
        with one_first((self.local_process_index if local else self.process_index) == 0):
            yield

    @property
    def processes(self) -> Processes:
        """This process among those of the run."""
        return Processes(self.process_index, self.world_size)

    def _use_one_gpu(self) -> None:
        """Take one GPU where the library would wrap the model in DataParallel, which cannot split our batches."""
        if self.n_gpu > 1:
            logger.warning("%d GPUs are visible and one is used; `accelerate launch` uses them all", self.n_gpu)
            self._n_gpu = 1
