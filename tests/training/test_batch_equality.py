"""Batch 8 = 2 x 4 accumulated = 2 processes x 4, for each architecture: losses, norms, weights and perplexity."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    ElectraConfig,
    ElectraForMaskedLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    RobertaConfig,
    RobertaForMaskedLM,
)

from pair_pkg.records import read_record
from pair_pkg.stages import adapt

SIZES = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, pad_token_id=0)
MODELS = {
    "bert": (BertForMaskedLM, BertConfig, SIZES),
    "roberta": (RobertaForMaskedLM, RobertaConfig, SIZES),
    "distilbert": (DistilBertForMaskedLM, DistilBertConfig,
                   dict(dim=32, n_layers=2, n_heads=4, hidden_dim=48, pad_token_id=0)),
    "electra": (ElectraForMaskedLM, ElectraConfig, SIZES | {"embedding_size": 16}),
    "modernbert": (ModernBertForMaskedLM, ModernBertConfig, SIZES | {"global_attn_every_n_layers": 2}),
    "tsdae": (BertForMaskedLM, BertConfig, SIZES),
    "retromae": (RobertaForMaskedLM, RobertaConfig, SIZES),
}  # fmt: skip
OBJECTIVES = {name: [f"--objective={name}", "--objective_share=0.3"] for name in ("tsdae", "retromae")}
# An epsilon at the size of rounding keeps Adam from blowing up gradients that are zero but for it.
SETTINGS = ("--hidden_dropout_prob=0", "--attention_probs_dropout_prob=0", "--max_train_samples=31", "--max_steps=6",
            "--learning_rate=1e-3", "--adam_epsilon=1e-6", "--eval_steps=100", "--disable_tqdm")  # fmt: skip


@pytest.fixture(scope="module", params=MODELS)
def architecture(request, tmp_path_factory, tiny_tokenizer):
    """Its name, and the folder of a seeded model of it."""
    folder = tmp_path_factory.mktemp("models") / request.param
    return request.param, build_folder(request.param, folder, tiny_tokenizer)


def build_folder(name, folder, tokenizer):
    model_class, config_class, sizes = MODELS[name]
    unset = model_class in (RobertaForMaskedLM, ModernBertForMaskedLM)
    special = {"bos_token_id": None, "eos_token_id": None} if unset else {}
    config = config_class(vocab_size=len(tokenizer), max_position_embeddings=64, **sizes, **special)
    with torch.random.fork_rng():
        torch.manual_seed(13)
        model_class(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def equal_run(close_run):
    """``equal_run(folder, reference)``: two runs are equal, the perplexity among it."""

    def check(folder, reference):
        close_run(folder, reference, 6)
        found, expected = (read_record(place)["metrics"] for place in (folder, reference))
        assert found["eval_perplexity"] == pytest.approx(expected["eval_perplexity"], rel=1e-6)
        assert found["eval_predicted_tokens"] == expected["eval_predicted_tokens"] > 20

    return check


def test_batch_8_is_4_accumulated_twice(architecture, mlm_words, equal_run, tmp_path):
    name, model = architecture
    common = [f"--model_name_or_path={model}", *SETTINGS, *OBJECTIVES.get(name, [])]
    adapt.main(mlm_words(tmp_path / "whole", *common))
    cut = ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=2", "--per_device_eval_batch_size=3"]
    adapt.main(mlm_words(tmp_path / "cut", *common, *cut))
    equal_run(tmp_path / "cut", tmp_path / "whole")


SEVERAL = {"DDP, 2 processes": (2, False), "DDP, 4 processes": (4, False), "FSDP, 2 processes": (2, True),
           "FSDP, 4 processes": (4, True)}  # fmt: skip
DIVIDED = [name for name in MODELS if name not in OBJECTIVES]


def cases(kind):
    """The architectures that a kind of processes is tried with: all in two, BERT in four."""
    processes, is_divided = SEVERAL[kind]
    return ["bert"] if processes == 4 else DIVIDED if is_divided else list(MODELS)


@pytest.fixture(scope="module")
def several(run_forked, fsdp_environment, mlm_words, tiny_tokenizer, tmp_path_factory):
    """Folder of the runs: ``whole/bert`` of one process, and one folder for each kind of several."""
    folder = tmp_path_factory.mktemp("several")

    def run(kind, name, *flags):
        words = mlm_words(folder / kind / name, f"--model_name_or_path={folder / name}", *SETTINGS)
        return {"door": "run_mlm.py", "words": [*words, *OBJECTIVES.get(name, []), *flags]}

    for name in MODELS:
        build_folder(name, folder / name, tiny_tokenizer)
    groups = [{"processes": 1, "runs": [run("whole", name) for name in MODELS]}]
    for kind, (processes, is_divided) in SEVERAL.items():
        flags = [f"--per_device_train_batch_size={8 // processes}", "--per_device_eval_batch_size=3"]
        runs = [run(kind, name, *flags, "--ddp_backend=gloo") for name in cases(kind)]
        environment = fsdp_environment if is_divided else {}
        groups.append({"processes": processes, "environment": environment, "runs": runs})
    run_forked(*groups)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in SEVERAL for name in cases(kind)])
def test_batch_8_is_that_of_several_processes(several, equal_run, kind, name):
    equal_run(several / kind / name, several / "whole" / name)
