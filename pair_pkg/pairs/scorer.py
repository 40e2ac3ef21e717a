"""From a finished model's folder to scores, calibrated probabilities and verdicts, without a Trainer.

scorer = load_scorer("out/pair")
scorer.predict_one("How do I repay?", "What is the way to pay back?")
"""

# R pairs, C classes

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import logit
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerFast

from pair_pkg.columns import CROSS_ENCODER
from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.labels import LabelScheme
from pair_pkg.data.pairs import Pairs
from pair_pkg.data.texts import cut_by_tokens, refuse_single_text
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import SentenceEncoder, encode_shared, hold_in, move_batch
from pair_pkg.modeling.loading import load_config, load_model, load_tokenizer
from pair_pkg.modeling.sentence_folder import load_sentence_encoder
from pair_pkg.pairs.cross_encoder import bind_cross_encoder
from pair_pkg.pairs.dataset import PairRows
from pair_pkg.pairs.decision import Decision, load_decision
from pair_pkg.pairs.loss import own_range, predictions, score_pairs
from pair_pkg.processes import ALONE, Processes
from pair_pkg.records import read_record

BATCH_TOKENS = 8192  # of a batch: enough to fill a processor or a small GPU, and tens of megabytes of activations
SMALLEST_PROBABILITY = 1e-12  # of a mean; keeps its log-odds finite
# Tokenized at a time, and dealt to a process whole: what is scored together does not depend on their number.
CHUNK_PAIRS = 4_000

Texts = Sequence[str]
# Of both sentences, whether both orders are averaged, and who shares the work.
BareScores = Callable[[Texts, Texts, bool, Processes], np.ndarray]


@dataclass(frozen=True)
class Verdict:
    """What a model says of one pair; None where it has no decision, or the labels are scores."""

    probability: float | None  # of the positive label; of classes that of the verdict
    verdict: str | None  # the name of the label
    score: float | list[float]  # the model's own: margin, cosine, score in the labels' range, or the classes' logits
    threshold: float | None  # on the probability; binary labels only


@dataclass(frozen=True)
class Verdicts:
    """What a model says of R pairs; None as in ``Verdict``."""

    scores: np.ndarray  # (R,), or logits (R, C) of classes
    probabilities: np.ndarray | None  # (R,) of the positive label, or (R, C)
    verdicts: list[str] | None  # names of labels


@dataclass(frozen=True)
class Scorer:
    """A finished model that scores pairs; see ``load_scorer``."""

    scheme: LabelScheme
    decision: Decision | None
    symmetric: bool  # whether a cross-encoder averages both orders unless told otherwise
    bare_scores: BareScores

    def score(
        self,
        sentence1: Texts,
        sentence2: Texts,
        *,
        symmetric: bool | None = None,
        processes: Processes = ALONE,
    ) -> np.ndarray:
        """The model's own scores, float64, in the order of the pairs: (R,), or logits (R, C) of classes.

        Binary labels: a cross-encoder's logit margin, a bi-encoder's cosine. Scores: in the labels' own range. A
        cross-encoder averages both orders of a pair, as it was trained to be scored, unless ``symmetric`` says
        otherwise; a bi-encoder has one order. Of several ``processes``, which all call this with the same pairs, each
        scores a share and gets all scores, those of one process. Raises ``InputError`` for a bare string, and for lists
        of two lengths.
        """
        refuse_single_text(sentence1, "sentence1")
        refuse_single_text(sentence2, "sentence2")
        if len(sentence1) != len(sentence2):
            raise InputError(f"{len(sentence1):,} first sentences and {len(sentence2):,} second; give as many of both")
        both_orders = self.symmetric if symmetric is None else symmetric
        return self.bare_scores(sentence1, sentence2, both_orders, processes)

    def predict(self, sentence1: Texts, sentence2: Texts) -> Verdicts:
        """Scores, calibrated probabilities and verdicts of R pairs, in their order; errors as those of ``score``."""
        scores = self.score(sentence1, sentence2)
        if self.decision is None:
            return Verdicts(scores, None, None)
        probabilities = self.decision.probability(scores)
        names = [self.scheme.names[class_id] for class_id in self.decision.decide(probabilities)]
        return Verdicts(scores, probabilities, names)

    def predict_one(self, sentence1: str, sentence2: str) -> Verdict:
        """The same for one pair."""
        many = self.predict([sentence1], [sentence2])
        score = many.scores[0].tolist()
        if self.decision is None:
            return Verdict(None, None, score, None)
        return Verdict(float(many.probabilities[0].max()), many.verdicts[0], score, self.decision.threshold)


def load_scorer(
    model_dir: str | os.PathLike, *, device: str | torch.device | None = None, dtype: torch.dtype = torch.float32
) -> Scorer:
    """The scorer of a folder that stage 2 wrote; on a GPU where there is one, unless ``device`` says otherwise.

    ``dtype`` bfloat16 multiplies in it: faster where the hardware does so, and the third digit of a score may change.
    Raises ``InputError`` for any other folder.
    """
    model_dir = os.fspath(model_dir)
    record = read_record(model_dir) if Path(model_dir).is_dir() else None
    if record is None or "labels" not in record:
        raise InputError(
            f"{model_dir}: holds no run.json of a fine-tuned model; give a folder that run_pair_cls.py wrote"
        )
    if "members" in record:
        members = [load_scorer(str(Path(model_dir, name)), device=device, dtype=dtype) for name in record["members"]]
        return mean_scorer(members, load_decision(model_dir))
    scheme = LabelScheme.from_json(record["labels"])
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if record["architecture"] == CROSS_ENCODER:
        tokenizer = load_tokenizer(model_dir)
        model = load_model(AutoModelForSequenceClassification, model_dir, load_config(model_dir), head_may_be_new=False)
        flat = bind_cross_encoder(model)
        bare_scores: BareScores = partial(
            _margins, model.to(device).eval(), scheme, tokenizer, record["max_seq_length"], flat, dtype
        )
    else:
        encoder = load_sentence_encoder(model_dir)
        encoder.model.to(device), encoder.head.to(device)
        bare_scores = partial(_cosines, hold_in(encoder, dtype), scheme, dtype)
    return Scorer(scheme, load_decision(model_dir), record["settings"].get("symmetric", False), bare_scores)


def mean_scorer(members: Sequence[Scorer], decision: Decision | None) -> Scorer:
    """An ensemble of models with the same labels, which have decisions unless the labels are scores.

    Its own score is the log-odds of the mean of the members' calibrated probabilities (of classes: the logarithms of
    their means), so that a decision with temperature 1 gives that mean; and the mean of scores.
    """
    return Scorer(members[0].scheme, decision, members[0].symmetric, partial(_mean_scores, members))


def _mean_scores(
    members: Sequence[Scorer], sentence1: Texts, sentence2: Texts, symmetric: bool, processes: Processes
) -> np.ndarray:
    kind = members[0].scheme.kind
    parts = [member.score(sentence1, sentence2, symmetric=symmetric, processes=processes) for member in members]
    if kind == "scores":
        return np.mean(parts, axis=0)
    mean = np.mean([member.decision.probability(part) for member, part in zip(members, parts)], axis=0)
    mean = np.clip(mean, SMALLEST_PROBABILITY, 1 - SMALLEST_PROBABILITY)
    return np.log(mean) if kind == "classes" else logit(mean)


def _margins(
    model: PreTrainedModel,
    scheme: LabelScheme,
    tokenizer: PreTrainedTokenizerFast,
    max_seq_length: int,
    flat: bool,
    dtype: torch.dtype,
    sentence1: Texts,
    sentence2: Texts,
    symmetric: bool,
    processes: Processes,
) -> np.ndarray:
    """A cross-encoder's scores, batches of like length filled by tokens."""
    characters = np.array([len(one) + len(other) for one, other in zip(sentence1, sentence2)], dtype=np.int64)
    longest_first = np.argsort(-characters, kind="stable")  # characters foretell tokens
    share = longest_first[processes.own(len(characters), CHUNK_PAIRS)]
    parts = [np.empty((0, scheme.num_classes) if scheme.kind == "classes" else 0)]
    for start in range(0, len(share), CHUNK_PAIRS):
        chunk = share[start : start + CHUNK_PAIRS]
        pairs = Pairs([sentence1[row] for row in chunk], [sentence2[row] for row in chunk], None, [])
        rows = PairRows(pairs, scheme, tokenizer, max_seq_length, flat=flat, with_rows=True, both_orders=symmetric)
        scores = _score_rows(model, scheme, rows, dtype)
        parts.append(scores.reshape(2, len(pairs), *scores.shape[1:]).mean(0) if symmetric else scores)
    return processes.together(np.concatenate(parts), len(characters), CHUNK_PAIRS)[np.argsort(longest_first)]


def _score_rows(model: PreTrainedModel, scheme: LabelScheme, rows: PairRows, dtype: torch.dtype) -> np.ndarray:
    device = next(model.parameters()).device
    lengths = rows.row_tokens()
    order = np.argsort(-lengths, kind="stable")
    found: list[dict[str, Any]] = []
    with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        for part in cut_by_tokens(lengths[order], BATCH_TOKENS, padded=rows.padding is not None):
            batch = rows.build_batch([Item(row, FROZEN) for row in order[part].tolist()])
            columns = score_pairs(model, move_batch(batch, device), scheme=scheme)
            found.append({name: values.cpu().numpy() for name, values in columns.items()})
    together = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    return predictions(together)[np.argsort(together["row"])]


def _cosines(
    encoder: SentenceEncoder,
    scheme: LabelScheme,
    dtype: torch.dtype,
    sentence1: Texts,
    sentence2: Texts,
    _: bool,
    processes: Processes,
) -> np.ndarray:
    """A bi-encoder's scores; each distinct text is encoded once."""
    texts = list(dict.fromkeys([*sentence1, *sentence2]))
    if not texts:
        return np.empty(0)
    number = {text: index for index, text in enumerate(texts)}
    vectors = encode_shared(encoder, texts, processes, batch_tokens=BATCH_TOKENS, dtype=dtype).astype(np.float64)
    first, second = ([number[text] for text in column] for column in (sentence1, sentence2))
    cosines = np.einsum("rd,rd->r", vectors[first], vectors[second])
    return own_range(scheme, cosines) if scheme.kind == "scores" else cosines
