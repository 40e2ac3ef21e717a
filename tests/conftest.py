"""What many tests start from: a tiny tokenizer, a tiny corpus and a tiny checkpoint, written once a session."""

import logging
import random
from pathlib import Path

import pytest
import torch
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertForSequenceClassification, BertModel
from transformers.utils import logging as transformers_logging

from pair_pkg.data.labels import LabelScheme
from pair_pkg.modeling.embedding import SentenceEncoder
from pair_pkg.modeling.loading import load_config, load_model, load_tokenizer
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.modeling.sentence_folder import save_sentence_encoder
from pair_pkg.pairs.cross_encoder import configure_labels
from pair_pkg.pairs.decision import Decision, save_decision
from pair_pkg.records import write_record

torch.set_num_threads(1)  # tiny tensors: more threads only wait for each other

ENGLISH = (
    ("the old pump", "a small valve", "the new filter", "one spare hose", "the blue meter", "this heavy lid"),
    ("leaks", "sticks", "hums", "stops", "works", "rattles"),
    ("in the cold morning", "after a long rain", "when the door is open", "on the second floor", "at full load"),
)
CHINESE = (
    ("旧水泵", "小阀门", "新滤网", "备用软管", "蓝色水表", "这个重盖子"),
    ("漏水", "卡住", "有杂音", "停机", "正常", "晃动"),
    ("在寒冷的早晨", "下了很久的雨以后", "门开着的时候", "在二楼", "满负荷时"),
)
VOCABULARY = 300


@pytest.fixture(scope="session")
def tiny_documents() -> list[str]:
    """200 different documents of one to five sentences, English and Chinese by turns."""
    draw = random.Random(7)
    documents: dict[str, None] = {}
    while len(documents) < 200:
        chinese = len(documents) % 2 == 1
        things, verbs, whens = CHINESE if chinese else ENGLISH
        parts = [
            (draw.choice(whens), draw.choice(things), draw.choice(verbs)) for _ in range(draw.choice((1, 2, 2, 3, 5)))
        ]
        documents["".join(f"{''.join(part)}。" if chinese else f"{' '.join(part)} . " for part in parts).strip()] = None
    return list(documents)


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory, tiny_documents) -> str:
    """The documents as a text file, one a line; its path."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join(tiny_documents) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture(scope="session")
def tiny_pairs() -> list[tuple[str, str]]:
    """180 pairs of one statement in two word orders, all texts different, all words known to the tokenizer."""
    things, verbs, whens = ENGLISH
    statements = [(thing, verb, when) for thing in things for verb in verbs for when in whens]
    random.Random(3).shuffle(statements)
    return [(f"{thing} {verb} {when}", f"{when} {thing} {verb}") for thing, verb, when in statements]


@pytest.fixture(scope="session")
def tiny_tokenizer(tiny_documents):
    return train_tokenizer(tiny_documents, VOCABULARY)


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory, tiny_tokenizer) -> str:
    """Folder of a masked-language model whose checkpoint holds a pooler, as published BERTs do, and its tokenizer."""
    folder = tmp_path_factory.mktemp("models") / "tiny_bert"
    config = BertConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
        pad_token_id=tiny_tokenizer.pad_token_id,
    )
    with torch.random.fork_rng():
        torch.manual_seed(11)
        model = BertForMaskedLM(config)
        model.bert.pooler = BertModel(config).pooler
    model.save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def token_cache(tmp_path_factory) -> str:
    """A folder for ``--token_cache_dir``, so that no test reads or fills the user's cache."""
    return str(tmp_path_factory.mktemp("tokens"))


@pytest.fixture(scope="session")
def mlm_words(tiny_bert, tiny_corpus, token_cache):
    """``mlm_words(output_dir, "--flag", value, ...)``: the words of a small float32 run of stage 1 on a CPU."""

    def words(output_dir, *more) -> list[str]:
        flags = {
            "model_name_or_path": tiny_bert,
            "train_file": tiny_corpus,
            "output_dir": output_dir,
            "token_cache_dir": token_cache,
            "max_seq_length": 48,
            "per_device_train_batch_size": 8,
            "logging_steps": 1,
            "save_strategy": "no",
            "bf16": "false",
            "use_cpu": "true",
        }
        return [f"--{name}={value}" for name, value in flags.items()] + [str(word) for word in more]

    return words


@pytest.fixture(autouse=True)
def _own_log(monkeypatch):
    """A door sets log levels and the package's logger up for a terminal; each test begins with them as they were."""
    logger = logging.getLogger("pair_pkg")
    for name, value in (("handlers", []), ("propagate", True), ("level", logger.level)):
        monkeypatch.setattr(logger, name, value)
    verbosity = transformers_logging.get_verbosity()
    yield
    transformers_logging.set_verbosity(verbosity)


@pytest.fixture(scope="session")
def tiny_bi_encoder(tmp_path_factory) -> str:
    """Folder of the embedded sample encoder as a bi-encoder: mean of the tokens, unit rows, 128 wide, 128 tokens."""
    folder = tmp_path_factory.mktemp("models") / "tiny_bi_encoder"
    name = str(Path(__file__).parents[1] / "data/tiny_encoder")
    model = load_model(AutoModel, name, load_config(name))
    save_sentence_encoder(SentenceEncoder(model, load_tokenizer(name), "mean", max_seq_length=128), folder)
    return str(folder)


@pytest.fixture(scope="session")
def tiny_cross_encoder(tmp_path_factory, tiny_bert, tiny_tokenizer) -> str:
    """Folder of a finished cross-encoder of labels 0 and 1 with random weights, as stage 2 leaves it."""
    folder = tmp_path_factory.mktemp("models") / "tiny_cross_encoder"
    scheme = LabelScheme("binary", ["0", "1"])
    config = BertConfig.from_pretrained(tiny_bert, initializer_range=0.4)  # as small as usual, all pairs score alike
    configure_labels(config, scheme, 2)
    with torch.random.fork_rng():
        torch.manual_seed(5)
        BertForSequenceClassification(config).save_pretrained(folder)
    tiny_tokenizer.save_pretrained(folder)
    save_decision(Decision("binary", temperature=1.0, threshold=0.5), folder)
    record = {"architecture": "cross_encoder", "labels": scheme.to_json(), "max_seq_length": 48, "settings": {}}
    write_record(folder, record)
    return str(folder)
