"""A finished model as it is exported: its graph, its tokenizer and its decision."""

import inspect
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoModelForSequenceClassification, PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.columns import BI_ENCODER, CROSS_ENCODER
from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import InputError
from pair_pkg.export.graph import BiEncoderGraph, CrossEncoderGraph
from pair_pkg.modeling.loading import check_vocabulary, load_config, load_model, load_tokenizer, max_positions
from pair_pkg.modeling.sentence_folder import load_sentence_encoder
from pair_pkg.pairs.decision import Decision, load_decision, plain_decision
from pair_pkg.pairs.metrics import BINARY, CLASSES, SCORES
from pair_pkg.records import read_record

logger = logging.getLogger("pair_pkg")

LONGEST = 512  # tokens where neither the run's record nor the architecture sets an end


@dataclass(frozen=True)
class Finished:
    """A fine-tuned model in float32 on the CPU, and what its outputs mean."""

    model_dir: str
    architecture: str  # cross_encoder or bi_encoder
    graph: CrossEncoderGraph | BiEncoderGraph
    tokenizer: PreTrainedTokenizerFast
    max_seq_length: int
    scheme: LabelScheme | None  # None for a bi-encoder whose labels nobody recorded
    decision: Decision | None  # None for scores, and for a bi-encoder that has none
    symmetric: bool = False  # a cross-encoder that is scored in both orders; a graph takes one

    @property
    def input_names(self) -> tuple[str, ...]:
        """What the graph takes, in its order; all are (B, T) int64."""
        accepted = inspect.signature(type(self.graph.model).forward).parameters
        has_types = "token_type_ids" in self.tokenizer.model_input_names and "token_type_ids" in accepted
        return ("input_ids", "attention_mask", *(["token_type_ids"] if has_types else []))

    @property
    def output_name(self) -> str:
        """What the graph gives."""
        if self.architecture == BI_ENCODER:
            return "sentence_embedding"  # "embedding" is what exporters call a lookup
        return {BINARY: "probability", CLASSES: "probabilities", SCORES: "score"}[self.scheme.kind]


def load_finished(model_dir: str) -> Finished:
    """The model that stage 2 left in a folder, or a stock classifier or sentence-transformers model.

    Raises ``InputError`` for a folder that holds no fine-tuned model.
    """
    if not Path(model_dir).is_dir():
        raise InputError(f"{model_dir}: no such folder; give the folder of a fine-tuned model as --model")
    record = read_record(model_dir) or {}
    if "members" in record:
        one = Path(model_dir, record["members"][0])
        what = f"is the mean of {len(record['members'])} models, and an export is one"
        raise InputError(f"{model_dir}: {what}; give one of them, such as {one}, or distil them into one first")
    config = load_config(model_dir)
    scheme = LabelScheme.from_json(record["labels"]) if "labels" in record else None
    architecture = record.get("architecture") or _architecture_of(model_dir, config)
    load = _load_cross_encoder if architecture == CROSS_ENCODER else _load_bi_encoder
    finished = load(model_dir, config, record, scheme)
    check_vocabulary(finished.tokenizer, config, needs_mask=False)
    finished.graph.eval().requires_grad_(False)
    return finished


def _load_cross_encoder(
    model_dir: str, config: PreTrainedConfig, record: dict[str, Any], scheme: LabelScheme | None
) -> Finished:
    model = load_model(AutoModelForSequenceClassification, model_dir, config, head_may_be_new=False)
    tokenizer = load_tokenizer(model_dir)
    scheme = scheme or _scheme_of(config)
    decision = load_decision(model_dir)
    if decision is None and scheme.kind != SCORES:
        decision = plain_decision(scheme.kind)
        logger.warning("%s: holds no decision.json; temperature 1 and threshold 0.5 are taken", model_dir)
    longest = min(max_positions(config) or LONGEST, tokenizer.model_max_length)
    return Finished(
        model_dir,
        CROSS_ENCODER,
        CrossEncoderGraph(model, decision, scheme.low, scheme.high),
        tokenizer,
        record.get("max_seq_length") or longest,
        scheme,
        decision,
        record.get("settings", {}).get("symmetric", False),
    )


def _load_bi_encoder(
    model_dir: str, config: PreTrainedConfig, record: dict[str, Any], scheme: LabelScheme | None
) -> Finished:
    encoder = load_sentence_encoder(model_dir)
    decision = load_decision(model_dir)
    if decision is None and (scheme is None or scheme.kind != SCORES):
        logger.warning("%s: holds no decision.json; its cosines are exported without probability", model_dir)
    return Finished(
        model_dir,
        BI_ENCODER,
        BiEncoderGraph(encoder),
        encoder.tokenizer,
        encoder.max_seq_length or max_positions(config) or LONGEST,
        scheme,
        decision,
    )


def _architecture_of(model_dir: str, config: PreTrainedConfig) -> str:
    """The architecture of a folder without a record of this package."""
    if (config.architectures or [""])[0].endswith("ForSequenceClassification"):
        return CROSS_ENCODER
    if Path(model_dir, "modules.json").is_file():
        return BI_ENCODER
    raise InputError(
        f"{model_dir}: holds no fine-tuned model (neither a classifier nor modules.json); "
        "give a folder that run_pair_cls.py wrote"
    )


def _scheme_of(config: PreTrainedConfig) -> LabelScheme:
    """What the outputs of a stock classifier mean, by its configuration."""
    names = [str(config.id2label[class_id]) for class_id in range(config.num_labels)]
    if config.num_labels == 1:
        is_score = config.problem_type in (None, "regression")
        return LabelScheme("scores") if is_score else LabelScheme("binary", [f"not {names[0]}", names[0]])
    return LabelScheme("binary" if config.num_labels == 2 else "classes", names)
