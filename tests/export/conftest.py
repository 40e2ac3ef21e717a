"""Small finished models of every architecture and head, in folders as stage 2 and the libraries leave them."""

import copy
import functools

import pytest
import torch
from torch import nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    RobertaModel,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

from pair_pkg.data.labels import LabelScheme
from pair_pkg.export.rows import build_proof_rows
from pair_pkg.export.source import load_finished
from pair_pkg.modeling.embedding import SentenceEncoder
from pair_pkg.modeling.sentence_folder import save_sentence_encoder
from pair_pkg.pairs.cross_encoder import configure_labels
from pair_pkg.pairs.decision import Decision, save_decision
from pair_pkg.records import write_record

LENGTH = 40  # tokens: below the (1, 128) that a model is traced with, and no power of two

SHAPES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "initializer_range": 0.4,  # as small as usual, all texts would give one output
}
CONFIGS = {
    "bert": functools.partial(BertConfig, max_position_embeddings=LENGTH),
    "roberta": functools.partial(RobertaConfig, max_position_embeddings=LENGTH + 1),
    "xlm-roberta": functools.partial(XLMRobertaConfig, max_position_embeddings=LENGTH + 1),
    "modernbert": functools.partial(
        ModernBertConfig, max_position_embeddings=LENGTH, local_attention=8, global_attn_every_n_layers=2
    ),
}
CLASSIFIERS = {
    "bert": BertForSequenceClassification,
    "roberta": RobertaForSequenceClassification,
    "xlm-roberta": XLMRobertaForSequenceClassification,
    "modernbert": ModernBertForSequenceClassification,
}
ENCODERS = {
    "bert": BertModel, "roberta": RobertaModel, "xlm-roberta": XLMRobertaModel, "modernbert": ModernBertModel
}  # fmt: skip

# head -> labels, outputs, decision
HEADS = {
    "two logits": (LabelScheme("binary", ["no", "yes"]), 2, Decision("binary", 1.7, 0.0, 0.4)),
    "one logit": (LabelScheme("binary", ["no", "yes"]), 1, Decision("binary", 0.6, 0.0, 0.55)),
    "classes": (LabelScheme("classes", ["a", "b", "c"]), 3, Decision("classes", 2.5)),
    "scores": (LabelScheme("scores", [], 0.0, 5.0), 1, None),
}
COSINES = Decision("binary", 0.1, 0.35, 0.5)


@pytest.fixture(scope="session")
def cross_folder(tmp_path_factory, tiny_tokenizer):
    """``cross_folder(architecture, head)``: the folder of a finished cross-encoder, written once."""

    @functools.cache
    def write(architecture: str = "bert", head: str = "two logits") -> str:
        scheme, num_labels, decision = HEADS[head]
        tokenizer = tokenizer_of(architecture, tiny_tokenizer)
        config = CONFIGS[architecture](vocab_size=len(tokenizer), **special_ids(tokenizer), **SHAPES)
        configure_labels(config, scheme, num_labels)
        folder = tmp_path_factory.mktemp("cross") / "model"
        with torch.random.fork_rng():
            torch.manual_seed(5)
            model = CLASSIFIERS[architecture](config)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        if decision:
            save_decision(decision, folder)
        record = {"architecture": "cross_encoder", "labels": scheme.to_json(), "max_seq_length": LENGTH, "settings": {}}
        write_record(folder, record)
        return str(folder)

    return write


@pytest.fixture(scope="session")
def bi_folder(tmp_path_factory, tiny_tokenizer):
    """``bi_folder(architecture, pooling, with_head)``: the folder of a finished bi-encoder, written once."""

    @functools.cache
    def write(architecture: str = "bert", pooling: str = "mean", with_head: bool = False) -> str:
        tokenizer = tokenizer_of(architecture, tiny_tokenizer)
        config = CONFIGS[architecture](vocab_size=len(tokenizer), **special_ids(tokenizer), **SHAPES)
        folder = tmp_path_factory.mktemp("bi") / "model"
        with torch.random.fork_rng():
            torch.manual_seed(6)
            model = ENCODERS[architecture](config).eval()
            head = nn.Linear(32, 24) if with_head else nn.Identity()
        save_sentence_encoder(SentenceEncoder(model, tokenizer, pooling, LENGTH, head), folder)
        save_decision(COSINES, folder)
        scheme = LabelScheme("binary", ["no", "yes"])
        record = {"architecture": "bi_encoder", "labels": scheme.to_json(), "max_seq_length": LENGTH, "settings": {}}
        write_record(folder, record)
        return str(folder)

    return write


@pytest.fixture(scope="session")
def any_folder(cross_folder, bi_folder):
    """``any_folder("cross", ...)`` or ``any_folder("bi", ...)``."""
    return lambda kind, *more: (cross_folder if kind == "cross" else bi_folder)(*more)


@pytest.fixture(scope="session")
def few_rows():
    """``few_rows(finished)``: a proof of 40 pairs, for tests that need no power."""
    return lambda finished, *pairs: build_proof_rows(finished, *pairs, num_pairs=40)


@pytest.fixture(scope="session")
def tiny_cross(cross_folder):
    return load_finished(cross_folder())


@pytest.fixture(scope="session")
def tiny_bi(bi_folder):
    return load_finished(bi_folder())


def tokenizer_of(architecture: str, tiny_tokenizer):
    """The tiny tokenizer, with token types for BERT only."""
    tokenizer = copy.deepcopy(tiny_tokenizer)
    if architecture != "bert":
        tokenizer.model_input_names = ["input_ids", "attention_mask"]
    return tokenizer


def special_ids(tokenizer) -> dict[str, int]:
    return {
        "pad_token_id": tokenizer.pad_token_id,
        "bos_token_id": tokenizer.cls_token_id,
        "eos_token_id": tokenizer.sep_token_id,
        "cls_token_id": tokenizer.cls_token_id,
        "sep_token_id": tokenizer.sep_token_id,
    }
