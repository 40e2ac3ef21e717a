"""Pair training: pairs a second, ours against sentence-transformers with its defaults and in bfloat16."""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from sentence_transformers import (
    CrossEncoder,
    SentenceTransformer,
    SentenceTransformerTrainer,
    SentenceTransformerTrainingArguments,
)
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from sentence_transformers.sentence_transformer.losses import OnlineContrastiveLoss
from transformers import AutoModelForSequenceClassification, PreTrainedTokenizerFast, Trainer

from benchmarks.inputs import minilm_dir, pairs_path, read_pairs
from benchmarks.mlm_sides import QUIET
from benchmarks.result import Result, comparison
from benchmarks.timing import alternate
from benchmarks.training_laps import BuildTrainer, training_contestant
from pair_pkg.data.batches import Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.texts import TextTokens
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import load_config, load_model, load_tokenizer
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.modeling.sentence_folder import load_sentence_encoder
from pair_pkg.pairs.bi_encoder import bind_bi_encoder
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.embedding_loss import cosine_row_metrics, embedding_loss, score_embedded_pairs
from pair_pkg.pairs.loss import pair_loss, pair_row_metrics, score_pairs
from pair_pkg.pairs.text_dataset import PairTexts
from pair_pkg.stages.arguments.pairs import PairTrainingArguments
from pair_pkg.training.trainer import StageTrainer

BATCH_SIZE = 32
MAX_SEQ_LENGTH = 256  # our default; MQP's longest pair is shorter
OURS = "ours"

Settings = Callable[[int, int], dict[str, Any]]  # (max_steps, seed) -> what both sides' arguments share


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", help="a file of binary pairs; unset: MQP")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="pairs a step, on both sides")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 3 with --quick, else 5")
    parser.add_argument("--ablation", action="store_true", help="ours with one technique at a time switched off")


def run(
    quick: bool,
    pairs: str | None = None,
    batch_size: int = BATCH_SIZE,
    rounds: int | None = None,
    ablation: bool = False,
) -> Result:
    path, notes = pairs_path(pairs)
    data, scheme = read_pairs(path)
    whole_batches = len(data) // batch_size * batch_size
    if scheme.kind != "binary" or not whole_batches:
        raise InputError(f"{path}: {len(data)} pairs with {scheme.kind} labels; give a batch or more of binary ones")
    data = data.subset(range(whole_batches))  # so that every step has as many pairs
    steps, rounds = (5 if quick else 20), rounds or (3 if quick else 5)
    result = Result(notes=notes)
    with tempfile.TemporaryDirectory() as work_dir:

        def settings(max_steps: int, seed: int) -> dict[str, Any]:
            batch = {"per_device_train_batch_size": batch_size, "max_steps": max_steps, "seed": seed}
            return {"output_dir": work_dir, **batch, **QUIET}

        architectures = {"cross-encoder": _cross_encoders, "bi-encoder": _bi_encoders}
        if ablation:
            architectures = {"bi-encoder, each technique off": _bi_encoder_ablation}
        for title, sides_of in architectures.items():
            sides = sides_of(data, scheme, settings)
            contestants = {name: training_contestant(build, batch_size, steps) for name, build in sides.items()}
            laps = alternate(contestants, rounds)
            result.tables.append(comparison(f"{title}, batch {batch_size}", "pairs/s", laps, OURS))
            result.values[title] = laps.to_json()
    return result


def _cross_encoders(data: Pairs, scheme: LabelScheme, settings: Settings) -> dict[str, BuildTrainer]:
    """MiniLM with one logit and binary cross-entropy, on both sides."""
    config = load_config(minilm_dir())
    configure_labels(config, scheme, num_labels=1)
    tokenizer = load_tokenizer(minilm_dir())
    rows = PairRows(data, scheme, tokenizer, MAX_SEQ_LENGTH, flat=True)
    dataset = _as_dataset(data)

    def ours(max_steps: int, seed: int) -> StageTrainer:
        model = load_model(AutoModelForSequenceClassification, minilm_dir(), config)
        bind_cross_encoder(model)
        return StageTrainer(
            model=model,
            args=PairTrainingArguments(do_train=True, **settings(max_steps, seed)),
            train_dataset=rows,
            processing_class=tokenizer,
            compute_loss_func=pair_loss(scheme.kind),
            score_batch=partial(score_pairs, scheme=scheme),
            row_metrics=partial(pair_row_metrics, scheme=scheme),
        )

    def peer(bf16: bool, max_steps: int, seed: int) -> CrossEncoderTrainer:
        args = CrossEncoderTrainingArguments(**_peer_settings(bf16), **settings(max_steps, seed))
        return CrossEncoderTrainer(CrossEncoder(minilm_dir(), num_labels=1), args, dataset)

    return {OURS: ours, **_in_both_precisions("CrossEncoderTrainer", peer)}


def _bi_encoders(data: Pairs, scheme: LabelScheme, settings: Settings) -> dict[str, BuildTrainer]:
    """MiniLM with its own pooling and online contrastive loss, on both sides."""
    rows = PairTexts(data, scheme, load_tokenizer(minilm_dir()), MAX_SEQ_LENGTH, flat=True)
    dataset = _as_dataset(data)

    def peer(bf16: bool, max_steps: int, seed: int) -> SentenceTransformerTrainer:
        model = SentenceTransformer(minilm_dir())
        args = SentenceTransformerTrainingArguments(**_peer_settings(bf16), **settings(max_steps, seed))
        return SentenceTransformerTrainer(model, args, dataset, loss=OnlineContrastiveLoss(model))

    ours = partial(_our_bi_encoder, rows, scheme, settings)
    return {OURS: ours, **_in_both_precisions("SentenceTransformerTrainer", peer)}


def _bi_encoder_ablation(data: Pairs, scheme: LabelScheme, settings: Settings) -> dict[str, BuildTrainer]:
    """Ours, and ours with one technique at a time switched off."""
    inputs = (data, scheme, load_tokenizer(minilm_dir()), MAX_SEQ_LENGTH)
    rows = PairTexts(*inputs, flat=True)
    build = partial(_our_bi_encoder, rows, scheme, settings)
    sides = {
        OURS: build,
        "each text as often as it stands": partial(
            _our_bi_encoder, RepeatedTexts(*inputs, flat=True), scheme, settings
        ),
        "tokenized at every step": partial(_our_bi_encoder, TextsOfAStep(*inputs, flat=True), scheme, settings),
        "the stock forward, padded": partial(
            _our_bi_encoder, PairTexts(*inputs, flat=False), scheme, settings, why_stock="a benchmark"
        ),
        "attention dropout 0.1": partial(build, attention_dropout=0.1),
        "the library's walk over all parameters": partial(build, trainer_class=WalkingTrainer),
    }
    return sides | ({"float32": partial(build, bf16=False)} if supports_bfloat16("cpu") else {})


def _our_bi_encoder(
    rows: PairTexts,
    scheme: LabelScheme,
    settings: Settings,
    max_steps: int,
    seed: int,
    *,
    trainer_class: type[StageTrainer] = StageTrainer,
    bf16: bool | None = None,
    **binding: Any,
) -> StageTrainer:
    """Our bi-encoder's trainer, as stage 2 sets it up; ``binding`` goes to ``bind_bi_encoder``."""
    encoder = load_sentence_encoder(minilm_dir())
    bind_bi_encoder(encoder.model, encoder.pooling, head=encoder.head, **binding)
    return trainer_class(
        model=encoder.model,
        args=PairTrainingArguments(do_train=True, bf16=bf16, **settings(max_steps, seed)),
        train_dataset=rows,
        processing_class=load_tokenizer(minilm_dir()),
        compute_loss_func=embedding_loss("online_contrastive"),
        score_batch=partial(score_embedded_pairs, scheme=scheme),
        row_metrics=partial(cosine_row_metrics, scheme=scheme),
    )


class RepeatedTexts(PairTexts):
    """Both texts of each pair by themselves, also where a batch has a text twice."""

    def __init__(self, *inputs: Any, **settings: Any):
        super().__init__(*inputs, **settings)
        texts = self.sentences.ravel()
        ids, token_types = self.tokens.take(texts)
        self.tokens = TextTokens(ids, token_types, self.tokens.lengths[texts], self.tokens.num_truncated)
        self.sentences = np.arange(len(texts)).reshape(-1, 2)


class TextsOfAStep(PairTexts):
    """The texts of a batch tokenized with it, besides what stands ready."""

    def __init__(self, pairs: Pairs, scheme: LabelScheme, tokenizer: PreTrainedTokenizerFast, *more: Any, **flat: Any):
        super().__init__(pairs, scheme, tokenizer, *more, **flat)
        self._pairs, self._tokenizer = pairs, tokenizer

    def build_batch(self, items: Sequence[Item]) -> dict[str, Any]:
        for side in (self._pairs.sentence1, self._pairs.sentence2):
            self._tokenizer([side[item.row] for item in items])
        return super().build_batch(items)


class WalkingTrainer(StageTrainer):
    """Counts the parameters anew at every step, as the library does."""

    floating_point_ops = Trainer.floating_point_ops


def _as_dataset(data: Pairs) -> Dataset:
    labels = data.labels.astype(float).tolist()
    return Dataset.from_dict({"sentence1": data.sentence1, "sentence2": data.sentence2, "label": labels})


def _peer_settings(bf16: bool) -> dict[str, bool]:
    return {"bf16": bf16, "use_cpu": not torch.cuda.is_available()}


def _in_both_precisions(name: str, peer: Callable[[bool, int, int], Trainer]) -> dict[str, BuildTrainer]:
    """The peer in float32, its default, and in bfloat16 where the processor multiplies in it."""
    precisions = {"float32": False, "bfloat16": True} if supports_bfloat16("cpu") else {"float32": False}
    return {f"{name}, {precision}": partial(peer, bf16) for precision, bf16 in precisions.items()}
