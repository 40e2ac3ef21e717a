import json
import math
import os
import sys
from dataclasses import dataclass, field

import pytest
import torch
from transformers import TrainingArguments
from transformers.trainer_utils import SchedulerType

from pair_pkg.errors import InputError
from pair_pkg.modeling import precision
from pair_pkg.training.arguments import StageTrainingArguments, parse_arguments
from pair_pkg.training.legacy_flags import translate_legacy
from pair_pkg.training.settings import Setting, read_words


@dataclass
class ModelArguments:
    """Model: what is trained."""

    model_name_or_path: str | None = field(default=None, metadata={"help": "a checkpoint"})
    model_type: str | None = None
    config_overrides: str | None = None
    tokenizer_name: str | None = None
    token: str | None = None
    dtype: str | None = None
    low_cpu_mem_usage: bool = False


@dataclass
class DataArguments:
    """Data: what it is trained on.

    Only the line above is a title.
    """

    dataset_name: str | None = None
    dataset_config_name: str | None = None
    train_file: str | None = None
    validation_file: str | None = None
    mlm_probability: float = 0.15
    line_by_line: bool = False
    pad_to_max_length: bool = False
    streaming: bool = False
    shuffle: bool = True
    text_columns: list[str] = field(default_factory=lambda: ["text"])


def parse(*words):
    return parse_arguments(
        (ModelArguments, DataArguments, StageTrainingArguments), words, program="run_mlm.py", description="A test."
    )


def parse_training(*words):
    return parse("--output_dir", "out", *words)[2]


def parse_data(*words):
    return parse("--output_dir", "out", *words)[1]


@pytest.fixture
def recipe(tmp_path):
    def write(text, name="recipe.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    for name in ("TENSORBOARD_LOGGING_DIR", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_CPU"):
        monkeypatch.setenv(name, "")  # so that what a test sets is taken back
        monkeypatch.delenv(name)


def notes(caplog):
    return [record.getMessage() for record in caplog.records if "transformers 4" in record.getMessage()]


# The library's own examples.

COMMON = (
    "--per_device_train_batch_size 8 --per_device_eval_batch_size 8 --do_train --do_eval --output_dir /tmp/test-mlm"
)
HUB_DATA = "--model_name_or_path roberta-base --dataset_name wikitext --dataset_config_name wikitext-2-raw-v1"
OWN_FILES = "--model_name_or_path roberta-base --train_file path_to_train --validation_file path_to_validation"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (f"{HUB_DATA} {COMMON}", {"dataset_config_name": "wikitext-2-raw-v1"}),
        (f"{OWN_FILES} {COMMON}", {"train_file": "path_to_train", "validation_file": "path_to_validation"}),
        (f"{OWN_FILES} {COMMON} --line_by_line", {"line_by_line": True}),
        (f"{OWN_FILES} {COMMON} --pad_to_max_length --line_by_line", {"pad_to_max_length": True, "line_by_line": True}),
        (f"{HUB_DATA} {COMMON} --streaming --max_steps 10", {"streaming": True, "max_steps": 10}),
        (f"{HUB_DATA} {COMMON} --low_cpu_mem_usage", {"low_cpu_mem_usage": True}),
        (
            f"--model_type bert --tokenizer_name X --config_overrides=hidden_size=128,num_hidden_layers=2 {COMMON}",
            {"model_type": "bert", "config_overrides": "hidden_size=128,num_hidden_layers=2"},
        ),
    ],
)
def test_the_librarys_example_commands_parse(line, expected):
    model, data, training = parse(*line.split())
    values = vars(model) | vars(data) | vars(training)
    assert (training.do_train, training.do_eval, training.output_dir) == (True, True, "/tmp/test-mlm")
    assert {name: values[name] for name in expected} == expected


def test_words_of_the_process_are_the_default(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["run_mlm.py", "--output_dir", "out", "--seed", "7"])
    (training,) = parse_arguments((StageTrainingArguments,), None, program="run_mlm.py", description="")
    assert training.seed == 7


def test_instances_come_in_the_order_asked():
    types = (StageTrainingArguments, DataArguments)
    parsed = parse_arguments(types, ["--output_dir", "out"], program="x", description="")
    assert tuple(map(type, parsed)) == types


# Booleans.


@pytest.mark.parametrize(
    ("words", "value"),
    [
        (["--NAME"], True),
        (["--NAME", "true"], True),
        (["--NAME=yes"], True),
        (["--NAME=False"], False),
        (["--NAME", "off"], False),
        (["--no_NAME"], False),
        (["--no-NAME"], False),
        (["--NAME", "--no_NAME"], False),
        (["--no_NAME", "--NAME"], True),
    ],
)
@pytest.mark.parametrize("name", ["streaming", "shuffle", "bf16", "greater_is_better", "logging_first_step"])
def test_every_boolean_takes_every_form(name, words, value):
    _, data, training = parse("--output_dir", "out", *(word.replace("NAME", name) for word in words))
    assert (vars(data) | vars(training))[name] is value


def test_hyphens_serve_as_underscores():
    assert parse_training("--learning-rate", "2e-5").learning_rate == 2e-5


def test_list_and_negative_values():
    assert parse_data("--text_columns", "title", "body").text_columns == ["title", "body"]
    assert parse_training("--max_steps", "-1").max_steps == -1


# Mistakes on the command line.


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["--output_dir", "o", "--lerning_rate", "1"], ["command line", "lerning_rate", "learning_rate?"]),
        (["--output_dri", "o"], ["output_dri", "output_dir?"]),
        (["--output_dir", "o", "--xyzzy_qqq"], ["xyzzy_qqq", "--help"]),
        (["--output_dir", "o", "--learn", "1"], ["unknown flag 'learn'"]),
        (["--output_dir", "o", "--learning_rate", "fast"], ["learning_rate", "fast"]),
        (["--output_dir", "o", "--eval_strategy", "often"], ["eval_strategy", "often", "epoch"]),
        (["--output_dir", "o", "--streaming", "perhaps"], ["streaming", "perhaps"]),
        (["--output_dir", "o", "stray"], ["stray"]),
        (["stray", "--output_dir", "o"], ["stray", "recipe"]),
        (["--seed", "1"], ["required", "--output_dir"]),
        (["--output_dir", "o", "--load_best_model_at_end"], ["load_best_model_at_end"]),
        (["--output_dir", "o", "--accelerator_config", "absent.json"], ["absent.json"]),
        (["--output_dir", "o", "--lr_scheduler_kwargs", "{broken"], ["run_mlm.py"]),
    ],
)
def test_a_mistake_is_one_line_that_names_it(words, parts):
    with pytest.raises(InputError) as caught:
        parse(*words)
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_help_shows_our_groups_first_and_exits_with_0(capsys):
    with pytest.raises(SystemExit) as caught:
        parse_arguments(
            (StageTrainingArguments, ModelArguments, DataArguments), ["--help"], program="run_mlm.py", description="D."
        )
    assert caught.value.code == 0
    text = capsys.readouterr().out
    titles = ("Model: what is trained:", "Data: what it is trained on:", "Training: ")
    places = [text.index(title) for title in titles]
    assert places == sorted(places)
    assert places[0] < text.index("--model_name_or_path") < places[1] < text.index("--train_file") < places[2]
    assert places[2] < text.index("--learning_rate")
    assert "--no_streaming" not in text


# Recipes.


def test_a_recipe_keeps_the_text_of_each_value(recipe):
    path = recipe(
        "output_dir: runs/one\n"
        "eval_strategy: no\n"
        "learning_rate: 1e-4\n"
        "dataset_config_name: 001\n"
        "train_file: data/../corpus.txt\n"
        "streaming: on\n"
        "shuffle: no\n"
        "max_steps: -1\n"
        "text_columns: [no, 1.0]\n"
    )
    _, data, training = parse(path)
    assert training.eval_strategy.value == "no"
    assert training.learning_rate == 1e-4
    assert (training.output_dir, training.max_steps) == ("runs/one", -1)
    assert (data.dataset_config_name, data.train_file) == ("001", "data/../corpus.txt")
    assert (data.streaming, data.shuffle, data.text_columns) == (True, False, ["no", "1.0"])


def test_sections_are_flattened_and_flags_override(recipe):
    path = recipe(
        "data:\n  streaming: true\n  text-columns: [a, b]\ntrainer:\n  output_dir: x\n  seed: 1\n  fp16: no\n"
    )
    _, data, training = parse(path, "--seed", "2", "--no_streaming", "--text_columns", "c")
    assert (data.streaming, data.text_columns) == (False, ["c"])
    assert (training.output_dir, training.seed, training.fp16) == ("x", 2, False)


def test_json_and_yaml_recipes_are_equal(recipe):
    values = {"output_dir": "o", "t": {"learning_rate": 0.0001, "bf16": False, "save_total_limit": None, "seed": 3}}
    path = recipe(json.dumps(values, indent="\t"), "r.json")
    yaml_path = recipe("output_dir: o\nt:\n  learning_rate: 1e-4\n  bf16: false\n  save_total_limit:\n  seed: 3\n")
    from_json, from_yaml = parse(path)[2], parse(yaml_path)[2]
    assert from_json.to_dict() == from_yaml.to_dict()
    assert (from_json.learning_rate, from_json.seed, from_json.save_total_limit) == (1e-4, 3, None)


def test_numbers_of_a_json_recipe_keep_their_text(recipe):
    path = recipe('{"output_dir": "o", "dataset_config_name": 1.10, "text_columns": [1, true]}', "r.json")
    data = parse(path)[1]
    assert (data.dataset_config_name, data.text_columns) == ("1.10", ["1", "true"])


def test_null_is_none_and_can_be_overridden(recipe):
    path = recipe("output_dir: o\nsave_total_limit: null\n")
    assert parse(path)[2].save_total_limit is None
    assert parse(path, "--save_total_limit", "5")[2].save_total_limit == 5


def test_a_mapping_under_a_flag_is_its_value(recipe):
    path = recipe(
        "output_dir: o\nlr_scheduler_type: cosine_with_min_lr\nlr_scheduler_kwargs: {min_lr: 1e-6, num_cycles: 2}\n"
    )
    assert parse(path)[2].lr_scheduler_kwargs == {"min_lr": 1e-6, "num_cycles": 2}


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("output_dir: o\nlerning_rate: 1\n", ["lerning_rate", "learning_rate?"]),
        ("output_dir: o\nseed: [1\nfp16: true\n", [":3:", "YAML"]),
        ("- seed\n- 1\n", ["a list"]),
        ("", ["nothing"]),
        ("seed\n", ["a single value"]),
        ("output_dir: o\nseed: 1\nseed: 2\n", [":3:", "seed is given twice"]),
        ("seed: 1\na:\n  seed: 2\n", ["seed is given twice"]),
        ("a:\n  b:\n    seed: 2\n", ["b", "nested"]),
        ("output_dir: o\nseed:\n", ["seed is empty"]),
        ("output_dir: o\nseed: fast\n", ["seed", "fast"]),
        ("output_dir: o\nseed: [1, 2]\n", ["2"]),
        ("output_dir: o\ntext_columns: [[a]]\n", ["text_columns", "plain"]),
        ("a: 1\n--- \nb: 1\n", ["YAML"]),
        ("output_dir: \x01\n", ["cannot be read"]),
    ],
)
def test_a_recipes_mistake_is_one_line_with_its_place(recipe, text, parts):
    with pytest.raises(InputError) as caught:
        parse(recipe(text))
    assert "\n" not in str(caught.value)
    assert [part for part in parts if part not in str(caught.value)] == []


def test_broken_json_missing_file_and_bytes(recipe, tmp_path):
    with pytest.raises(InputError, match=r"r\.json:2: not valid JSON"):
        parse(recipe('{"seed": 1,\n}', "r.json"))
    with pytest.raises(InputError, match="seed is given twice"):
        parse(recipe('{"seed": 1, "seed": 2}', "r.json"))
    with pytest.raises(InputError, match="absent.yaml.*No such file"):
        parse(str(tmp_path / "absent.yaml"))
    (tmp_path / "latin.yaml").write_bytes(b"output_dir: \xe9\xff\n")
    with pytest.raises(InputError, match="latin.yaml.*not UTF-8"):
        parse(str(tmp_path / "latin.yaml"))


# Flags of transformers 4.


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("--evaluation_strategy epoch", {"eval_strategy": "epoch"}),
        ("--evaluate_during_training", {"eval_strategy": "steps"}),
        ("--evaluate_during_training off", {"eval_strategy": "no"}),
        ("--warmup_ratio 0.06", {"warmup_steps": 0.06}),
        ("--warmup_ratio 0.0", {"warmup_steps": 0}),
        ("--warmup_ratio 0.1 --warmup_steps 0", {"warmup_steps": 0.1}),
        ("--warmup_ratio 0.1 --warmup_steps 20", {"warmup_steps": 20}),
        ("--no_cuda", {"use_cpu": True}),
        ("--per_gpu_train_batch_size 3 --per_gpu_eval_batch_size=4", {"per_device_train_batch_size": 3}),
        ("--per_gpu_eval_batch_size=4", {"per_device_eval_batch_size": 4}),
        ("--push_to_hub_token hf_x --push_to_hub_model_id me/m", {"hub_token": "hf_x", "hub_model_id": "me/m"}),
        ("--adafactor", {"optim": "adafactor"}),
        ("--adafactor false --optim sgd", {"optim": "sgd"}),
        ("--include_inputs_for_metrics", {"include_for_metrics": ["inputs"]}),
        ("--include_tokens_per_second", {"include_num_input_tokens_seen": "all"}),
        ("--torchdynamo eager", {"torch_compile_backend": "eager", "torch_compile": True}),
        ("--save_safetensors --group_by_length --use_mps_device --jit_mode_eval --past_index -1 --seed 5", {"seed": 5}),
        (
            "--fp16_backend auto --half_precision_backend cuda_amp --fp16_opt_level O1 --sharded_ddp= --seed 5",
            {"seed": 5},
        ),
        ("--tpu_num_cores 8 --ray_scope last --use_ipex --tp_size 0 --split_batches False --seed 5", {"seed": 5}),
        ("--overwrite_output_dir", {"overwrite_output_dir": True}),
    ],
)
def test_old_flags_do_what_they_did(words, expected):
    training = parse_training(*words.split())
    found = {name: getattr(training, name) for name in expected}
    assert {name: getattr(value, "value", value) for name, value in found.items()} == expected


def test_a_smoothing_that_no_loss_here_knows_is_refused():
    with pytest.raises(InputError, match="label_smoothing_factor.*leave it out"):
        parse_training("--label_smoothing_factor", "0.1")


def test_old_flags_of_the_example_scripts():
    words = ["--train_data_file", "a.txt", "--eval_data_file", "b.txt", "--block_size", "9", "--mlm", "--seed", "1"]
    assert translate_legacy(read_words(words), "command line").settings == read_words(
        ["--seed", "1", "--train_file", "a.txt", "--validation_file", "b.txt", "--max_seq_length", "9"]
    )


def test_old_backend_of_a_launched_run():
    translation = translate_legacy([Setting("xpu_backend", ("gloo",))], "command line")
    assert translation.settings == [Setting("ddp_backend", ("gloo",))]


def test_old_model_flags():
    model = parse("--output_dir", "o", "--torch_dtype", "float32", "--use_auth_token", "hf_x")[0]
    assert (model.dtype, model.token) == ("float32", "hf_x")
    assert parse("--output_dir", "o", "--use_auth_token")[0].token is None


def test_one_line_lists_all_translations_without_secrets(recipe, caplog):
    path = recipe("output_dir: o\nevaluation_strategy: no\ngroup_by_length: true\nlogging_dir: null\n")
    training = parse(path, "--warmup_ratio", "0.1", "--use_auth_token", "hf_secret")[2]
    assert training.eval_strategy.value == "no"
    assert notes(caplog) == [
        "flags of transformers 4: evaluation_strategy -> eval_strategy; "
        "group_by_length dropped (batches carry no padding here); warmup_ratio -> warmup_steps 0.1; "
        "use_auth_token -> token"
    ]


def test_nothing_translated_says_nothing(caplog):
    parse_training("--warmup_steps", "0.1", "--eval_strategy", "no")
    assert notes(caplog) == []


def test_steps_before_ratio_is_said(caplog):
    parse_training("--warmup_steps", "20", "--warmup_ratio", "0.1")
    assert "warmup_steps 20 goes before it" in notes(caplog)[0]


def test_a_ratio_behind_a_recipe_overrides_its_steps(recipe):
    path = recipe("output_dir: o\nwarmup_steps: 20\n")
    assert parse(path, "--warmup_ratio", "0.1")[2].warmup_steps == 0.1


def test_logging_dir_becomes_the_environment_variable():
    parse_training("--logging_dir", "runs/tb")
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == "runs/tb"


@pytest.mark.parametrize(
    ("words", "cure"),
    [
        ("--save_safetensors False", "safetensors"),
        ("--no_save_safetensors", "safetensors"),
        ("--fp16_backend apex", "autocast"),
        ("--half_precision_backend apex", "autocast"),
        ("--past_index 0", "past state"),
        ("--sharded_ddp simple", "--fsdp"),
        ("--fsdp_min_num_params 10", "--fsdp_config"),
        ("--fsdp_transformer_layer_cls_to_wrap BertLayer", "--fsdp_config"),
        ("--push_to_hub_organization org", "--hub_model_id"),
        ("--split_batches", "--accelerator_config"),
        ("--tp_size 2", "accelerate launch"),
        ("--warmup_ratio 1.0", "--warmup_steps"),
        ("--warmup_ratio half", "--warmup_steps"),
        ("--warmup_ratio", "--warmup_steps"),
        ("--logging_dir", "folder"),
        ("--adafactor perhaps", "perhaps"),
        ("--mlm false", "masked-language"),
        ("--train_ref_file ref.txt", "--masking whole_word"),
    ],
)
def test_an_old_flag_that_would_change_results_is_refused_with_its_cure(words, cure):
    with pytest.raises(InputError, match=cure):
        parse_training(*words.split())


# All flags that releases 4.0 to 4.57 had and 5.23 has not.
GONE = [
    "overwrite_output_dir", "evaluation_strategy", "per_gpu_train_batch_size", "per_gpu_eval_batch_size",
    "logging_dir", "no_cuda", "fp16_opt_level", "tpu_num_cores", "tpu_metrics_debug", "past_index", "warmup_ratio",
    "save_safetensors", "use_mps_device", "jit_mode_eval", "use_ipex", "half_precision_backend", "sharded_ddp",
    "fsdp_min_num_params", "fsdp_transformer_layer_cls_to_wrap", "adafactor", "group_by_length",
    "use_legacy_prediction_loop", "include_inputs_for_metrics", "fp16_backend", "push_to_hub_model_id",
    "push_to_hub_organization", "push_to_hub_token", "mp_parameters", "torchdynamo", "ray_scope", "xpu_backend",
    "include_tokens_per_second", "dispatch_batches", "split_batches", "tp_size",
]  # fmt: skip


@pytest.mark.parametrize("name", GONE)
def test_no_old_flag_is_unknown(name):
    try:
        parse_training(f"--{name}", "0")
    except InputError as error:
        assert "unknown flag" not in str(error)


# Our defaults.


def test_our_defaults():
    training = parse_training()
    assert training.logging_nan_inf_filter is False
    assert training.remove_unused_columns is False
    assert training.ddp_find_unused_parameters is False
    assert training.ddp_broadcast_buffers is False
    assert training.overwrite_output_dir is False
    assert training.report_to == []
    assert (training.save_total_limit, training.seed) == (2, 42)
    assert isinstance(training.bf16, bool)


def test_only_defaults_named_here_differ_from_the_library():
    ours = {name: item.default for name, item in StageTrainingArguments.__dataclass_fields__.items()}
    theirs = {name: item.default for name, item in TrainingArguments.__dataclass_fields__.items()}
    assert {name for name in ours if name not in theirs or ours[name] != theirs[name]} == {
        "output_dir", "overwrite_output_dir", "bf16", "logging_nan_inf_filter", "save_total_limit",
        "remove_unused_columns", "ddp_find_unused_parameters", "ddp_broadcast_buffers",
        "allow_changed", "report_to",
    }  # fmt: skip


def test_several_targets_are_reported_to(recipe):
    pytest.importorskip("tensorboard")
    assert parse_training("--report_to", "none").report_to == []
    assert parse_training("--report_to=tensorboard").report_to == ["tensorboard"]
    assert parse_training("--report_to", "tensorboard", "tensorboard").report_to == ["tensorboard"] * 2
    assert parse(recipe("output_dir: o\nreport_to: [tensorboard]\n"))[2].report_to == ["tensorboard"]


def test_evaluation_follows_logging():
    assert parse_training("--eval_strategy", "steps", "--logging_steps", "7").eval_steps == 7


def test_progress_bars_are_quiet_without_a_terminal(monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: False, raising=False)
    assert parse_training().disable_tqdm is True
    assert parse_training("--disable_tqdm", "false").disable_tqdm is False
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert parse_training().disable_tqdm is False


def test_memory_is_pinned_for_an_accelerator_only(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert parse_training().dataloader_pin_memory is False


def test_bfloat16_on_a_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(precision, "CPUINFO_PATH", tmp_path / "cpuinfo")
    (tmp_path / "cpuinfo").write_text("flags\t: avx2 avx512_bf16\n")
    assert parse_training("--use_cpu").bf16 is True
    assert parse_training("--use_cpu", "--fp16").bf16 is False
    (tmp_path / "cpuinfo").write_text("flags\t: avx2\n")
    assert parse_training("--use_cpu").bf16 is False
    assert parse_training("--use_cpu", "--bf16").bf16 is True


def test_a_machine_without_accelerator_may_use_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    assert parse_training("--bf16").use_cpu is True


def test_the_launchers_cpu_is_obeyed(monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    training = parse_training()
    assert (training.use_cpu, training.device.type) == (True, "cpu")


def test_one_of_several_gpus_is_used(monkeypatch, caplog):
    training = parse_training("--per_device_train_batch_size", "4", "--use_cpu")
    training._n_gpu = 3
    training._use_one_gpu()
    assert (training.n_gpu, training.train_batch_size) == (1, 4)
    assert "3 GPUs" in caplog.text and "accelerate launch" in caplog.text


def test_the_hub_token_is_not_printed():
    assert "hf_secret" not in repr(parse_training("--hub_token", "hf_secret"))


@pytest.mark.parametrize("schedule", [kind.value for kind in SchedulerType])
def test_every_schedule_parses(schedule):
    assert parse_training("--lr_scheduler_type", schedule, "--eval_strategy", "epoch").lr_scheduler_type == schedule


@pytest.mark.parametrize(
    ("words", "steps"),
    [
        (["--warmup_steps", "30"], 30),
        (["--warmup_steps", "0.06"], math.ceil(0.06 * 1010)),
        (["--warmup_ratio", "0.06"], math.ceil(0.06 * 1010)),
        (["--warmup_ratio", "0"], 0),
        ([], 0),
    ],
)
def test_warm_up_both_ways(words, steps):
    assert parse_training(*words).get_warmup_steps(1010) == steps
