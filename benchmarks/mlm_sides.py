"""Masked-language-model training as this project runs it, and as the library's own recipe does."""

import copy
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from torch import nn
from transformers import DataCollatorForLanguageModeling, PreTrainedTokenizerFast, Trainer, TrainingArguments

from benchmarks.arithmetic import mean_attended
from pair_pkg.data.rows import Documents
from pair_pkg.data.tokens import TokenStore, load_or_build_store, special_affixes
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss, perplexity_metrics, score_rows
from pair_pkg.mlm.masking import Masking
from pair_pkg.records import fingerprint
from pair_pkg.stages.arguments.mlm import MlmTrainingArguments
from pair_pkg.stages.corpus import cut_rows
from pair_pkg.training.trainer import StageTrainer

MLM_PROBABILITY = 0.15
QUIET = {"save_strategy": "no", "report_to": "none", "disable_tqdm": True}


def build_store(texts: list[str], tokenizer: PreTrainedTokenizerFast, cache_dir: Path) -> TokenStore:
    """The texts as ids on disk."""
    return load_or_build_store(cache_dir, fingerprint(texts), tokenizer, lambda: texts, dict, quiet=True)


def build_rows(
    store: TokenStore,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    line_by_line: bool,
    documents: Documents | None = None,
    with_rows: bool = False,
) -> MaskedRows:
    """Our rows of some documents of a store (all of them where left out), as ``run_mlm.py`` cuts and masks them."""
    affixes = special_affixes(tokenizer)
    num_special = len(affixes[0]) + len(affixes[1])
    rows = cut_rows(store, documents or Documents(store.num_documents), max_seq_length, num_special, line_by_line)
    ordinary = np.setdiff1d(np.arange(len(tokenizer)), tokenizer.all_special_ids)
    return MaskedRows(
        store,
        rows,
        Masking(0, tokenizer.mask_token_id, ordinary, MLM_PROBABILITY),
        affixes,
        tokenizer.pad_token_id,
        flat=True,
        with_rows=with_rows,
    )


def describe_rows(dataset: MaskedRows) -> tuple[float, float]:
    """(keys that a token sees, share of the input tokens that is predicted) on average."""
    lengths = dataset.rows.lengths + dataset.affixes.count
    return mean_attended(lengths), MLM_PROBABILITY * dataset.rows.num_tokens / float(lengths.sum())


def our_trainer(
    start: nn.Module,
    dataset: MaskedRows,
    tokenizer: PreTrainedTokenizerFast,
    output_dir: str,
    *,
    batch_size: int,
    max_steps: int,
    seed: int,
    bf16: bool | None = None,
    attention_dropout: float = 0.0,
    evaluation: MaskedRows | None = None,
    **settings: Any,
) -> StageTrainer:
    """Our trainer on a copy of ``start``, set up as stage 1 does; ``bf16=None`` leaves the choice to the machine."""
    model = copy.deepcopy(start)
    assert bind_sparse_forward(model, attention_dropout), "the shapes measured here all have a padding-free forward"
    args = MlmTrainingArguments(
        output_dir=output_dir,
        do_train=True,
        per_device_train_batch_size=batch_size,
        max_steps=max_steps,
        seed=seed,
        bf16=bf16,
        **QUIET,
        **settings,
    )
    return StageTrainer(
        model=model,
        args=args,
        train_dataset=dataset,
        eval_dataset=evaluation,
        processing_class=tokenizer,
        compute_loss_func=masked_lm_loss,
        score_batch=_score_batch,
        row_metrics=perplexity_metrics,
    )


def build_stock_dataset(
    texts: list[str], tokenizer: PreTrainedTokenizerFast, max_seq_length: int, line_by_line: bool
) -> Dataset:
    """The library's recipe: texts joined and cut into full blocks, or one truncated text a row."""
    dataset = Dataset.from_dict({"text": texts})
    return stock_map(dataset, tokenizer, max_seq_length, line_by_line, num_proc=None)


def stock_map(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    line_by_line: bool,
    num_proc: int | None,
    batch_size: int = 1000,
) -> Dataset:
    """Tokenize, and group unless ``line_by_line``, by ``map`` in batches of 1,000 where not said, its default."""
    settings = {"batched": True, "num_proc": num_proc, "batch_size": batch_size}

    def tokenize(batch: dict[str, list]) -> dict[str, list]:
        cut = {"truncation": True, "max_length": max_seq_length} if line_by_line else {"verbose": False}
        return tokenizer(batch["text"], return_special_tokens_mask=True, **cut)

    def group(batch: dict[str, list]) -> dict[str, list]:
        joined = {name: list(chain.from_iterable(rows)) for name, rows in batch.items()}
        whole = len(joined["input_ids"]) // max_seq_length * max_seq_length
        return {
            name: [values[begin : begin + max_seq_length] for begin in range(0, whole, max_seq_length)]
            for name, values in joined.items()
        }

    tokenized = dataset.map(tokenize, remove_columns=dataset.column_names, **settings)
    return tokenized if line_by_line else tokenized.map(group, **settings)


def stock_trainer(
    start: nn.Module,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    output_dir: str,
    *,
    batch_size: int,
    max_steps: int,
    seed: int,
    bf16: bool,
    **settings: Any,
) -> Trainer:
    """The library's Trainer and collator with their defaults on a copy of ``start``; batches padded to the longest."""
    args = TrainingArguments(
        output_dir=output_dir,
        per_device_train_batch_size=batch_size,
        max_steps=max_steps,
        seed=seed,
        bf16=bf16,
        **{"use_cpu": not torch.cuda.is_available(), **QUIET, **settings},
    )
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=MLM_PROBABILITY)
    return Trainer(copy.deepcopy(start), args, data_collator=collator, train_dataset=dataset)


def _score_batch(model: nn.Module, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
    labels, rows, row_of_label = (batch.pop(name) for name in ("labels", "rows", "row_of_label"))
    return score_rows(model(**batch), labels, rows, row_of_label, loss_only=True)
