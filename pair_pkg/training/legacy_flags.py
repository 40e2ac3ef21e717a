"""Flags of transformers 4 that version 5 dropped or renamed, said in version 5's words.

A flag that only chose among equal ways is dropped, one that would change results or memory is refused with its cure.
Compared with the ``TrainingArguments`` of releases 4.0, 4.12, 4.30, 4.36, 4.41, 4.45, 4.50 and 4.57, and with the
example scripts ``run_language_modeling.py`` and ``run_mlm_wwm.py``. docs/classic-flags.md tells users of each.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pair_pkg.errors import InputError
from pair_pkg.training.settings import Setting, is_switched_on

RENAMED = {
    "block_size": "max_seq_length",
    "eval_data_file": "validation_file",
    "evaluation_strategy": "eval_strategy",
    "per_gpu_train_batch_size": "per_device_train_batch_size",
    "per_gpu_eval_batch_size": "per_device_eval_batch_size",
    "push_to_hub_model_id": "hub_model_id",
    "push_to_hub_token": "hub_token",
    "torch_dtype": "dtype",
    "torchdynamo": "torch_compile_backend",
    "train_data_file": "train_file",
    "xpu_backend": "ddp_backend",
}

# A boolean that is now a value of another flag; switched off it says nothing.
SWITCHES = {
    "adafactor": Setting("optim", ("adafactor",)),
    "evaluate_during_training": Setting("eval_strategy", ("steps",)),
    "include_inputs_for_metrics": Setting("include_for_metrics", ("inputs",)),
    "include_tokens_per_second": Setting("include_num_input_tokens_seen", ("true",)),
    "no_cuda": Setting("use_cpu", ("true",)),
}

DROPPED = {
    "fp16_opt_level": "a level of apex, which the library no longer uses",
    "group_by_length": "batches carry no padding here",
    "jit_mode_eval": "it changed speed only",
    "mp_parameters": "the SageMaker launcher passes its own",
    "ray_scope": "it belongs to a hyperparameter search",
    "tpu_metrics_debug": "it belongs to TPUs",
    "tpu_num_cores": "the launcher starts the processes",
    "use_ipex": "it changed speed only",
    "use_legacy_prediction_loop": "there is one evaluation loop now",
    "use_mps_device": "an Apple GPU is found by itself",
}

REF_FILE = "the words of Chinese are found in the text itself: leave this flag out and give --masking whole_word"
AUTOCAST = ("auto", "amp", "cuda_amp", "cpu_amp")
FALSE = ("false", "no", "0", "none")


class Refusal(NamedTuple):
    """Values (in lower case) that change nothing, and the cure for all others."""

    harmless: tuple[str, ...]
    cure: str


REFUSED = {
    "dispatch_batches": Refusal(FALSE, "use --accelerator_config '{\"dispatch_batches\": true}'"),
    "split_batches": Refusal(FALSE, "use --accelerator_config '{\"split_batches\": true}'"),
    "fp16_backend": Refusal(AUTOCAST, "only torch's own autocast is left: leave this flag out"),
    "half_precision_backend": Refusal(AUTOCAST, "only torch's own autocast is left: leave this flag out"),
    "fsdp_min_num_params": Refusal(("0",), "use --fsdp_config '{\"min_num_params\": N}'"),
    "fsdp_transformer_layer_cls_to_wrap": Refusal(
        (), 'use --fsdp_config \'{"transformer_layer_cls_to_wrap": ["NAME"]}\''
    ),
    "mlm": Refusal(("", "true", "yes", "1"), "masked-language modelling is all that stage 1 does: leave this flag out"),
    "no_save_safetensors": Refusal((), "weights are always written as safetensors: leave this flag out"),
    "save_safetensors": Refusal(
        ("", "true", "yes", "1"), "weights are always written as safetensors: leave this flag out"
    ),
    "past_index": Refusal(("-1",), "the encoders trained here carry no past state: leave this flag out"),
    "push_to_hub_organization": Refusal((), "use --hub_model_id ORGANIZATION/NAME"),
    "sharded_ddp": Refusal(("", *FALSE), "use --fsdp"),
    "tp_size": Refusal(("0", "1"), "start one process per GPU with accelerate launch instead"),
    "train_ref_file": Refusal((), REF_FILE),
    "validation_ref_file": Refusal((), REF_FILE),
}


OLD_NAMES = {*RENAMED, *SWITCHES, *DROPPED, *REFUSED, "warmup_ratio", "logging_dir", "use_auth_token"}


class Translation(NamedTuple):
    """Settings in version 5's words, what to tell the user, and environment variables to set."""

    settings: list[Setting]
    notes: list[str]
    environment: dict[str, str]


def translate_legacy(settings: Sequence[Setting], place: str) -> Translation:
    """Translate the old flags among ``settings``; what they became stands last and wins, as it did in version 4.

    Raises ``InputError`` at ``place`` for an old flag that cannot be honoured.

    >>> translate_legacy([Setting("no_cuda", ()), Setting("seed", ("1",))], "command line").settings
    [Setting(name='seed', values=('1',)), Setting(name='use_cpu', values=('true',))]
    """
    kept, added = [], Translation([], [], {})
    for setting in settings:
        if setting.name not in OLD_NAMES:
            kept.append(setting)
        elif setting.values is not None:  # null in a recipe: not set
            translation = _translate(setting, settings, place)
            added.settings.extend(translation.settings)
            added.notes.extend(translation.notes)
            added.environment.update(translation.environment)
    return added._replace(settings=kept + added.settings)


def _translate(setting: Setting, settings: Sequence[Setting], place: str) -> Translation:
    name = setting.name
    if name in RENAMED:
        return _became(name, Setting(RENAMED[name], setting.values))
    if name in SWITCHES:
        return _became(name, SWITCHES[name]) if is_switched_on(setting, place) else _dropped(name, "it says nothing")
    if name in DROPPED:
        return _dropped(name, DROPPED[name])
    if name in REFUSED:
        return _refuse(setting, place)
    if name == "warmup_ratio":
        return _translate_warmup(setting, settings, place)
    if name == "logging_dir":
        return _translate_logging_dir(setting, place)
    return _translate_auth_token(setting)


def _became(name: str, *settings: Setting) -> Translation:
    return Translation(list(settings), [f"{name} -> {settings[0].name}"], {})


def _dropped(name: str, reason: str) -> Translation:
    return Translation([], [f"{name} dropped ({reason})"], {})


def _refuse(setting: Setting, place: str) -> Translation:
    if setting.text.lower() in REFUSED[setting.name].harmless:
        return _dropped(setting.name, "it says nothing")
    raise InputError(f"{place}: transformers 5 has no {setting.name}; {REFUSED[setting.name].cure}")


def _translate_warmup(setting: Setting, settings: Sequence[Setting], place: str) -> Translation:
    """A share of the steps, which version 5 reads from ``warmup_steps`` below 1; a number of steps goes before."""
    text, share = setting.text, _number(setting.text)
    if share is None or not 0 <= share < 1:
        raise InputError(f"{place}: warmup_ratio {text!r} is no share in [0, 1); give --warmup_steps a number of steps")
    steps = [given.text for given in settings if given.name == "warmup_steps"]
    if steps and _number(steps[-1]) != 0:
        return _dropped("warmup_ratio", f"warmup_steps {steps[-1]} goes before it")
    if share == 0:
        return _dropped("warmup_ratio", "it says nothing")
    return Translation([Setting("warmup_steps", (text,))], [f"warmup_ratio -> warmup_steps {text}"], {})


def _translate_logging_dir(setting: Setting, place: str) -> Translation:
    folder = setting.text
    if not folder:
        raise InputError(f"{place}: logging_dir expects a folder; name one or leave the flag out")
    note = f"logging_dir -> TENSORBOARD_LOGGING_DIR={folder} (written with --report_to tensorboard)"
    return Translation([], [note], {"TENSORBOARD_LOGGING_DIR": folder})


def _translate_auth_token(setting: Setting) -> Translation:
    """Once a switch, later a token; the token itself stays out of the note."""
    if setting.text.lower() in ("", "true", *FALSE):
        return _dropped("use_auth_token", "the stored login is used by itself")
    return _became("use_auth_token", Setting("token", setting.values))


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
