"""A tokenizer learnt from a corpus."""

import pytest
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from pair_pkg.modeling.scratch import build_config, train_tokenizer


def test_equal_texts_give_an_equal_tokenizer(tiny_documents):
    """Also in another process: the vocabulary's order is that of the characters, not of a hash map."""
    first, second = (train_tokenizer(tiny_documents, 300) for _ in range(2))
    assert first.backend_tokenizer.to_str() == second.backend_tokenizer.to_str()
    inner = [piece for piece in sorted(first.get_vocab(), key=first.get_vocab().get) if piece.startswith("##")]
    characters = [piece for piece in inner if len(piece) == 3]
    assert characters == sorted(characters) == inner[: len(characters)]


def test_pieces_are_wordpieces_and_special_tokens_are_five(tiny_tokenizer):
    assert tiny_tokenizer.convert_ids_to_tokens(range(5)) == ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    assert sorted(tiny_tokenizer.all_special_ids) == [0, 1, 2, 3, 4]
    assert tiny_tokenizer.tokenize("The PUMP 漏水") == ["the", "pump", "漏", "水"]
    assert "".join(piece.removeprefix("##") for piece in tiny_tokenizer.tokenize("pumpleaks")) == "pumpleaks"
    assert not any(piece.startswith("##") and "一" <= piece[2] <= "鿿" for piece in tiny_tokenizer.get_vocab())


def test_the_vocabulary_keeps_its_size(tiny_documents):
    assert len(train_tokenizer(tiny_documents, 150)) == 150


def test_a_generator_is_refused(tiny_documents):
    with pytest.raises(AssertionError, match="read twice"):
        train_tokenizer((text for text in tiny_documents), 300)


def test_a_model_has_a_row_for_every_id_of_a_vocabulary_with_gaps():
    backend = Tokenizer(models.WordPiece({"[UNK]": 0, "loan": 40}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]")
    assert build_config("bert", None, tokenizer).vocab_size == 41
