"""A batch holds what the tokenizer makes of its pairs, whatever the tokenizer."""

import numpy as np
import pytest
import torch
from tokenizers import ByteLevelBPETokenizer, Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.pairs.dataset import PairRows, pair_template, tokenize_texts, truncate_longest_first

LEFT = ["what helps a cold", "how long is a cold contagious in small children", "a", "花呗怎么还款", "a cold"]
RIGHT = ["a cold", "is a cold contagious", "how long is a small cold contagious for children and adults", "还款", "a"]
PAIRS = Pairs(LEFT, RIGHT, np.array([0, 1, 0, 1, 1]), [f"pairs:{row}" for row in range(5)])
BINARY = LabelScheme("binary", ["no", "yes"])
SCORES = LabelScheme("scores", [], 0.0, 5.0)


def bert_tokenizer():
    return train_tokenizer([*LEFT, *RIGHT] * 3, 200)


def roberta_tokenizer():
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator([*LEFT, *RIGHT], 300, special_tokens=names, show_progress=False)
    backend = Tokenizer.from_str(trained.to_str())
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
        model_input_names=["input_ids", "attention_mask"],
    )


def modernbert_tokenizer():
    """BPE with a template whose second sentence has type 1, though the model has no token types."""
    backend = Tokenizer(models.BPE(unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = ["[UNK]", "[CLS]", "[SEP]", "[PAD]"]
    backend.train_from_iterator([*LEFT, *RIGHT], trainers.BpeTrainer(special_tokens=names, show_progress=False))
    backend.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", model_input_names=["input_ids", "attention_mask"]
    )


def xlnet_tokenizer():
    """Special tokens at the end with a type of their own, padding on the left."""
    backend = bert_tokenizer().backend_tokenizer
    backend.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]:2",
        pair="$A [SEP] $B:1 [SEP]:1 [CLS]:2",
        special_tokens=[("[CLS]", backend.token_to_id("[CLS]")), ("[SEP]", backend.token_to_id("[SEP]"))],
    )
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", padding_side="left")


def truncating_left():
    tokenizer = bert_tokenizer()
    tokenizer.truncation_side = "left"
    return tokenizer


BUILDERS = [bert_tokenizer, roberta_tokenizer, modernbert_tokenizer, xlnet_tokenizer, truncating_left]


@pytest.fixture(scope="module", params=BUILDERS, ids=lambda builder: builder.__name__)
def tokenizer(request):
    return request.param()


def items(*rows, is_filler=False):
    return [Item(row, FROZEN, is_filler) for row in rows]


def stock(tokenizer, rows, max_length, **settings):
    texts = [LEFT[row] for row in rows], [RIGHT[row] for row in rows]
    return tokenizer(*texts, truncation="longest_first", max_length=max_length, **settings)


@pytest.mark.parametrize("max_seq_length", range(5, 24))
def test_a_padded_batch_is_the_tokenizers_own(tokenizer, max_seq_length):
    rows = PairRows(PAIRS, BINARY, tokenizer, max_seq_length, flat=False, with_rows=True)
    batch = rows.build_batch(items(0, 1, 2, 3, 4))
    expected = stock(tokenizer, batch["rows"].tolist(), max_seq_length, padding=True, return_tensors="pt")
    assert expected.keys() == batch.keys() - {"wanted", "labels", "rows"}
    for name in expected:
        assert torch.equal(batch[name], expected[name]), name
    assert batch["wanted"].tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("max_seq_length", [6, 11, 40])
def test_a_flat_batch_holds_the_same_tokens_without_padding(tokenizer, max_seq_length):
    rows = PairRows(PAIRS, BINARY, tokenizer, max_seq_length, flat=True, with_rows=True)
    batch = rows.build_batch(items(4, 2, 0, 1))
    expected = stock(tokenizer, batch["rows"].tolist(), max_seq_length)["input_ids"]
    lengths = [len(ids) for ids in expected]
    assert batch["layout"].lengths == lengths == sorted(lengths, reverse=True)
    assert batch["input_ids"].tolist() == sum(expected, [])
    assert batch["position_ids"].tolist() == [place for length in lengths for place in range(length)]
    assert batch["wanted"].tolist() == np.cumsum([0, *lengths[:-1]]).tolist()
    assert batch["labels"].tolist() == [PAIRS.labels[row] for row in batch["rows"].tolist()]
    assert rows.row_tokens()[batch["rows"]].tolist() == lengths


def test_token_types_are_zero_where_the_model_has_none():
    bert, modern = (PairRows(PAIRS, BINARY, build(), 40, flat=True) for build in (bert_tokenizer, modernbert_tokenizer))
    assert bert.build_batch(items(4))["token_type_ids"].tolist() == [0, 0, 0, 0, 1, 1]  # [CLS] a cold [SEP] a [SEP]
    assert modern.build_batch(items(0))["token_type_ids"].sum() == 0


def test_the_template_of_known_tokenizers():
    bert, roberta = (
        "".join("AB"[piece.sentence] if piece.sentence is not None else str(piece.token_id) for piece in template)
        for template in (pair_template(bert_tokenizer()), pair_template(roberta_tokenizer()))
    )
    assert (bert, roberta) == ("2A3B3", "0A22B2")


def test_truncated_pairs_are_counted():
    lengths = PairRows(PAIRS, BINARY, bert_tokenizer(), 100, flat=True).row_tokens()
    rows = PairRows(PAIRS, BINARY, bert_tokenizer(), 9, flat=True)
    assert 0 < rows.num_truncated == (lengths > 9).sum() < 5
    assert rows.row_tokens().tolist() == np.minimum(lengths, 9).tolist()


def test_every_cut_is_the_tokenizers(tokenizer):
    word = tokenizer("a", add_special_tokens=False)["input_ids"]
    num_special = sum(piece.sentence is None for piece in pair_template(tokenizer))
    texts = [" ".join(["a"] * count) for count in range(1, 8)]
    ids, offsets = tokenize_texts(texts, tokenizer)
    lengths = np.diff(offsets)
    assert ids[: offsets[1]].tolist() == word
    for capacity in range(2, 12):
        for left in range(7):
            for right in range(7):
                encoding = tokenizer(
                    texts[left], texts[right], truncation="longest_first", max_length=capacity + num_special
                )
                kept = [encoding.sequence_ids(0).count(sentence) for sentence in (0, 1)]
                pair = np.array([[lengths[left], lengths[right]]])
                assert truncate_longest_first(pair, capacity).tolist() == [kept], (capacity, left, right)


def test_scores_become_targets_between_0_and_1():
    pairs = Pairs(LEFT, RIGHT, np.array([0, 5, 2.5, 1, 4], dtype=np.float32), PAIRS.places)
    rows = PairRows(pairs, SCORES, bert_tokenizer(), 40, flat=True)
    labels = torch.cat([rows.build_batch(items(row))["labels"] for row in range(5)])
    assert labels.dtype == torch.float32
    torch.testing.assert_close(labels, torch.tensor([0.0, 1.0, 0.5, 0.2, 0.8]))


@pytest.mark.parametrize("flat", [True, False])
def test_a_filler_wants_nothing_and_has_no_label(flat):
    batch = PairRows(PAIRS, BINARY, bert_tokenizer(), 40, flat=flat).build_batch(items(2, is_filler=True))
    assert batch["input_ids"].numel() > 0
    assert len(batch["wanted"]) == len(batch["labels"]) == 0 and batch["labels"].dtype == torch.int64


def test_pairs_without_labels_have_batches_without_labels():
    pairs = Pairs(LEFT, RIGHT, None, PAIRS.places)
    assert "labels" not in PairRows(pairs, BINARY, bert_tokenizer(), 40, flat=True).build_batch(items(0, 1))
