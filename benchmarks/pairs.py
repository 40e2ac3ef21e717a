"""Pair training: pairs a second, ours against sentence-transformers with its defaults and in bfloat16."""

import argparse
import tempfile
from functools import partial

import torch
from datasets import Dataset
from sentence_transformers import CrossEncoder
from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
from transformers import AutoModelForSequenceClassification

from benchmarks.inputs import minilm_dir, pairs_path, read_pairs
from benchmarks.mlm_sides import QUIET
from benchmarks.result import Result, comparison
from benchmarks.timing import Contestant, alternate
from benchmarks.training_laps import count_texts, training_contestant
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.loading import load_config, load_model, load_tokenizer
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.pairs.cross_encoder import bind_cross_encoder, configure_labels
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.loss import pair_loss, pair_row_metrics, score_pairs
from pair_pkg.stages.arguments import PairTrainingArguments
from pair_pkg.training.trainer import StageTrainer

BATCH_SIZE = 32
MAX_SEQ_LENGTH = 256  # our default; MQP's longest pair is shorter
OURS = "ours"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--pairs", help="a file of labelled pairs; unset: MQP")
    parser.add_argument("--batch_size", type=int, default=BATCH_SIZE, help="pairs a step, on both sides")
    parser.add_argument("--rounds", type=int, help="rounds of laps; unset: 3 with --quick, else 5")


def run(quick: bool, pairs: str | None = None, batch_size: int = BATCH_SIZE, rounds: int | None = None) -> Result:
    path, notes = pairs_path(pairs)
    data, scheme = read_pairs(path)
    result = Result(notes=notes)
    steps = 4 if quick else 20
    with tempfile.TemporaryDirectory() as work_dir:
        laps = alternate(cross_encoder_sides(data, scheme, batch_size, steps, work_dir), rounds or (3 if quick else 5))
    result.tables.append(comparison(f"cross-encoder, batch {batch_size}", "pairs/s", laps, OURS))
    result.values["cross-encoder"] = laps.to_json()
    return result


def cross_encoder_sides(
    data: Pairs, scheme: LabelScheme, batch_size: int, steps: int, work_dir: str
) -> dict[str, Contestant]:
    """Both sides train MiniLM with one logit and the same loss."""
    config = load_config(minilm_dir())
    configure_labels(config, scheme, num_labels=1)
    tokenizer = load_tokenizer(minilm_dir())
    rows = PairRows(data, scheme, tokenizer, MAX_SEQ_LENGTH, flat=True)

    def ours(max_steps: int, seed: int) -> StageTrainer:
        model = load_model(AutoModelForSequenceClassification, minilm_dir(), config)
        bind_cross_encoder(model)
        settings = _settings(work_dir, batch_size, max_steps, seed)
        return StageTrainer(
            model=model,
            args=PairTrainingArguments(do_train=True, **settings),
            train_dataset=rows,
            processing_class=tokenizer,
            compute_loss_func=pair_loss(scheme.kind),
            score_batch=partial(score_pairs, scheme=scheme),
            row_metrics=partial(pair_row_metrics, scheme=scheme),
        )

    columns = {"sentence1": data.sentence1, "sentence2": data.sentence2, "label": data.labels.astype(float).tolist()}
    dataset = Dataset.from_dict(columns)

    def peer(bf16: bool, max_steps: int, seed: int) -> CrossEncoderTrainer:
        args = CrossEncoderTrainingArguments(
            bf16=bf16,
            use_cpu=not torch.cuda.is_available(),
            **_settings(work_dir, batch_size, max_steps, seed),
        )
        return CrossEncoderTrainer(CrossEncoder(minilm_dir(), num_labels=1), args, dataset)

    builders = {OURS: ours}
    builders |= {name: partial(peer, bf16) for name, bf16 in _peer_precisions("CrossEncoderTrainer").items()}
    count = count_texts(tokenizer.cls_token_id)
    return {name: training_contestant(build, count, steps) for name, build in builders.items()}


def _peer_precisions(name: str) -> dict[str, bool]:
    """The peer in float32, its default, and in bfloat16 where the processor has it."""
    precisions = {f"{name}, float32": False}
    return precisions | {f"{name}, bfloat16": True} if supports_bfloat16("cpu") else precisions


def _settings(work_dir: str, batch_size: int, max_steps: int, seed: int) -> dict[str, object]:
    return {
        "output_dir": work_dir,
        "per_device_train_batch_size": batch_size,
        "max_steps": max_steps,
        "seed": seed,
        **QUIET,
    }
