"""What a run of stage 2 is decided by, settled and checked before anything is trained."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedConfig, PreTrainedTokenizerFast

from pair_pkg.columns import TRAIN
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.modeling.normalization import with_nfkc
from pair_pkg.pairs.metrics import metric_names
from pair_pkg.records import fingerprint, read_record
from pair_pkg.stages.arguments.architecture import CROSS_ENCODER
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.lifecycle import (
    check_best_metric,
    load_named_config,
    load_named_tokenizer,
    settle_config,
    shared_identity,
)
from pair_pkg.stages.pairs_data import PairSplits, check_unknown

DEFAULT_MAX_SEQ_LENGTH = 256


@dataclass(frozen=True)
class PairSetup:
    """The tokenizer, the configuration and every setting of one run."""

    architecture: str
    settings: dict[str, Any]  # what decides on the architecture, its loss and its decision, defaults filled in
    scheme: LabelScheme
    tokenizer: PreTrainedTokenizerFast
    config: PreTrainedConfig
    max_seq_length: int
    identity: dict[str, Any]  # everything that decides on the result, as ``open_run`` compares it


def settle(flags: PairFlags, data: PairSplits) -> PairSetup:
    """Load what is to be started from, and fill in what the flags leave open. Raises ``InputError``."""
    check_best_metric(flags.training, {"loss", *metric_names(data.scheme.kind)})
    tokenizer, config = load_pair_tokenizer(flags), load_named_config(flags.model)
    settings = flags.architecture.settings(data.scheme, data.splits[TRAIN].labels)
    settings |= flags.decision.settings(data.scheme.kind)
    architecture = flags.architecture.architecture
    max_seq_length = settle_config(
        config,
        tokenizer,
        flags.model,
        max_seq_length=flags.pairs.max_seq_length,
        default_length=DEFAULT_MAX_SEQ_LENGTH,
        num_special=tokenizer.num_special_tokens_to_add(pair=architecture == CROSS_ENCODER),
        needs_mask=False,
    )
    check_unknown(data.splits[TRAIN], tokenizer)
    identity = {
        **shared_identity("pairs", flags.model, flags.training, tokenizer, max_seq_length),
        "architecture": architecture,
        **settings,
        "labels": data.scheme.to_json(),
        "augment_graph": flags.pairs.augment_graph,
        "text_normalization": flags.pairs.text_normalization,
        **flags.layers.given(),
        **flags.aids.given(),
        **{f"{name}_pairs": _fingerprint(pairs) for name, pairs in data.splits.items()},
    }
    return PairSetup(architecture, settings, data.scheme, tokenizer, config, max_seq_length, identity)


def load_pair_tokenizer(flags: PairFlags) -> PreTrainedTokenizerFast:
    """The tokenizer that the flags name, with the normalization that they ask for. Raises ``InputError``."""
    tokenizer = load_named_tokenizer(flags.model)
    return with_nfkc(tokenizer) if flags.pairs.text_normalization == "nfkc" else tokenizer


def begin_record(flags: PairFlags, setup: PairSetup, data: PairSplits) -> dict[str, Any]:
    """What ``run.json`` says of a run before it is trained."""
    base = flags.model.model_name_or_path
    lineage = read_record(base) if Path(base).is_dir() else None
    return {
        "stage": "pairs",
        "identity": setup.identity,
        "base_model": base,
        "lineage": lineage and {name: lineage.get(name) for name in ("stage", "base_model", "lineage")},
        "architecture": setup.architecture,
        "settings": setup.settings,
        "aids": flags.layers.given() | flags.aids.given(),
        "labels": setup.scheme.to_json(),
        "max_seq_length": setup.max_seq_length,
        "pairs": data.accounting,
    }


def _fingerprint(pairs: Pairs) -> str:
    return fingerprint([pairs.sentence1, pairs.sentence2, pairs.labels.tolist()])
