"""Accuracy by slices: bands by rank, counts by hand, what a model fills in."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM

from pair_pkg.data.rows import cut_windows, rows_line_by_line
from pair_pkg.data.tokens import ordinary_ids, special_affixes, tokenize_in_memory
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.fill_mask import fill_masks
from pair_pkg.mlm.head import PredictedLogits, bind_sparse_forward
from pair_pkg.mlm.masking import Masking
from pair_pkg.mlm.slices import BANDS, TERMS, frequency_bands, score_slices, slice_metrics


def test_bands_are_by_rank():
    counts = np.arange(8000)[::-1]
    ids = np.repeat(np.arange(8000), counts % 5 + (counts > 7000) * 9)  # any counts
    bands = frequency_bands([ids[:1000], ids[1000:]], 8000)
    assert np.bincount(bands).tolist() == [100, 900, 4000, 3000]
    number = np.bincount(ids, minlength=8000)
    for low, high in ((0, 1), (1, 2), (2, 3)):
        assert number[bands == low].min() >= number[bands == high].max()


def test_counts_by_hand():
    """Labels 0, 1, 2, 3 of ranks 1, 2, 5 and 6 by their logits; tokens 0 and 1 in band 0, 2 in band 1, 3 in band 3."""
    logits = torch.tensor(
        [
            [9.0, 1, 1, 1, 1, 1, 1],
            [9.0, 5, 1, 1, 1, 1, 1],
            [9.0, 8, 4, 7, 6, 1, 1],
            [9.0, 8, 7, 3, 6, 5, 1],
            [0.0, 0, 0, 0, 0, 0, 0],  # dead
        ]
    )
    labels, bands = torch.arange(4), torch.tensor([0, 0, 1, 3, 0, 0, 0])
    rows, row_of_label = torch.tensor([4, 7]), torch.tensor([0, 0, 1, 1])
    is_term = torch.tensor([False, True, False, True])
    found = score_slices(PredictedLogits(logits), labels, rows, row_of_label, bands, is_term)
    assert found["row"].tolist() == [4, 7]
    first, second = found["counts"].tolist()
    assert first == [[2, 1, 2], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 1]]
    assert second == [[0, 0, 0], [1, 0, 1], [0, 0, 0], [1, 0, 0], [1, 0, 0]]
    metrics = slice_metrics(found["counts"].numpy())
    assert list(metrics) == [list(BANDS)[0], list(BANDS)[1], "rarer", TERMS, "all"]
    assert metrics["all"] == {"tokens": 4, "accuracy_at_1": 0.25, "accuracy_at_5": 0.75}
    assert metrics[TERMS] == {"tokens": 2, "accuracy_at_1": 0.0, "accuracy_at_5": 0.5}


@pytest.mark.parametrize("flat", [True, False])
def test_masks_are_filled_with_the_models_best_guesses(tiny_bert, tiny_tokenizer, tiny_documents, flat):
    model = AutoModelForMaskedLM.from_pretrained(tiny_bert)
    bind_sparse_forward(model, why_stock=None if flat else "a test")
    store = tokenize_in_memory(tiny_documents[:20:2], tiny_tokenizer)
    rows = rows_line_by_line(*cut_windows(store.offsets, np.arange(10), 40))
    masking = Masking(1, tiny_tokenizer.mask_token_id, ordinary_ids(tiny_tokenizer))
    dataset = MaskedRows(store, rows, masking, special_affixes(tiny_tokenizer), 0, flat=flat, with_rows=True)
    filled = fill_masks(model, dataset, tiny_tokenizer, 4)
    assert 1 <= len(filled) <= 4
    for part in filled:
        assert "____" in part.context and len(part.guesses) == 3
        assert part.token in tiny_tokenizer.decode(store.ids)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.cls.predictions.bias[tiny_tokenizer.convert_tokens_to_ids("pump")] = 1.0
    assert {part.guesses[0] for part in fill_masks(model, dataset, tiny_tokenizer, 4)} == {"pump"}
