"""A model with new weights, and a tokenizer learnt from the corpus where none is given."""

from collections.abc import Iterable

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    CONFIG_MAPPING,
    AutoModelForMaskedLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from pair_pkg.data.tokens import num_ids
from pair_pkg.errors import InputError

SPECIAL_TOKENS = {
    "pad_token": "[PAD]",
    "unk_token": "[UNK]",
    "cls_token": "[CLS]",
    "sep_token": "[SEP]",
    "mask_token": "[MASK]",
}
SHORTEST_REPEAT = 2  # a piece seen once is noise


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A lower-casing WordPiece tokenizer of at most ``vocab_size`` entries, CJK characters apart, as BERT's is.

    Equal texts give an equal tokenizer. They are read twice, so a generator will not do.
    """
    assert iter(texts) is not texts, "the texts are read twice"
    names = list(SPECIAL_TOKENS.values())
    learner = _word_piece({})
    # The library numbers pieces inside words in the order of a hash map, another one in each process, and breaks ties
    # between merges by these numbers (tokenizers 0.23). Pieces given beforehand are numbered as they are given.
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        special_tokens=names + _inner_characters(texts, learner),
        min_frequency=SHORTEST_REPEAT,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    tokenizer = _word_piece(learner.get_vocab())  # for the learner the given pieces are special
    first, last = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", last), ("[CLS]", first))
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        **SPECIAL_TOKENS,
    )


def _word_piece(vocabulary: dict[str, int]) -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def _inner_characters(texts: Iterable[str], tokenizer: Tokenizer) -> list[str]:
    """The pieces of one character that stand inside words, such as ``##a``, in order."""
    strings: set[str] = set()
    for text in texts:
        strings.update(tokenizer.normalizer.normalize_str(text).split())
    words = (word for string in strings for word, _ in tokenizer.pre_tokenizer.pre_tokenize_str(string))
    return sorted({f"##{character}" for word in words for character in word[1:]})


def build_config(model_type: str, overrides: str | None, tokenizer: PreTrainedTokenizerFast) -> PreTrainedConfig:
    """The default configuration of an architecture with ``name=value,name=value`` put over it, sized for a tokenizer.

    Raises ``InputError`` for an unknown architecture or setting, and for settings that do not go together.
    """
    if model_type not in CONFIG_MAPPING:
        raise InputError(f"--model_type {model_type}: no architecture of transformers has this name; bert, say, is one")
    default = CONFIG_MAPPING[model_type]()
    names = ("pad", "cls", "sep", "bos", "eos")
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id", None) for name in names}
    settings = {name: value for name, value in ids.items() if hasattr(default, name)}
    try:
        default.update_from_string(overrides or f"vocab_size={num_ids(tokenizer)}")  # gives the values their types
        chosen = [item.split("=")[0] for item in (overrides or "").split(",") if item]
        settings |= {"vocab_size": num_ids(tokenizer), **{name: getattr(default, name) for name in chosen}}
        return CONFIG_MAPPING[model_type](**settings)  # anew, so that what a setting decides follows it
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"--config_overrides {overrides!r}: {error}; write name=value,name=value") from error


def build_masked_lm(config: PreTrainedConfig, seed: int) -> PreTrainedModel:
    """A masked-language model with new weights drawn from ``seed``. Raises ``InputError`` where none is known."""
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return AutoModelForMaskedLM.from_config(config)
    except ValueError as error:
        raise InputError(f"--model_type {config.model_type}: has no masked-language model; {error}") from error
