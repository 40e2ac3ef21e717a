"""The cross-encoder: a stock sequence classifier that reads both sentences together, bound to flat batches.

The instance keeps its class and weights, so what it saves is a plain transformers checkpoint.
"""

# B pairs of a batch, N tokens, D hidden size, C outputs, T the longest pair

from typing import Any

from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from pair_pkg.data.labels import LabelScheme
from pair_pkg.errors import InputError
from pair_pkg.modeling.encoder import bind_forward, encode, why_not_flat
from pair_pkg.modeling.layout import Layout
from pair_pkg.modeling.word_gradient import keep_word_gradient

# Where the supported classes keep their head: (hidden states of the first tokens (B, D)) -> (logits (B, C)). The
# stock heads of BERT and RoBERTa pick the first token of (B, T, D) themselves.
HEADS = {
    "BertForSequenceClassification": lambda model, rows: model.classifier(
        model.dropout(model.bert.pooler(rows.unsqueeze(1)))
    ),
    "RobertaForSequenceClassification": lambda model, rows: model.classifier(rows.unsqueeze(1)),
    "XLMRobertaForSequenceClassification": lambda model, rows: model.classifier(rows.unsqueeze(1)),
    "CamembertForSequenceClassification": lambda model, rows: model.classifier(rows.unsqueeze(1)),
    "ModernBertForSequenceClassification": lambda model, rows: model.classifier(model.drop(model.head(rows))),
}


def bind_cross_encoder(model: PreTrainedModel, attention_dropout: float = 0.0, why_stock: str | None = None) -> bool:
    """Make ``model.forward`` take the batches of ``PairRows``, and say whether it takes flat ones.

    Logits come back as (B, C), one line for each of ``wanted``. A class without a padding-free forward keeps its
    stock one, on padded batches, and says so in one log line; ``why_stock`` is the caller's own reason to keep it.
    """
    keep_word_gradient(model.get_input_embeddings())
    reason = why_stock or why_not_flat(model.base_model) or _why_not_first_token(model)
    return bind_forward(model, _flat_forward, _padded_forward, reason, attention_dropout)


def configure_labels(config: PreTrainedConfig, scheme: LabelScheme, num_labels: int | None = None) -> None:
    """Write into a configuration what its outputs mean, so that plain transformers reads them rightly.

    ``num_labels`` is 1 or 2 for binary labels (left out: 2); scores have 1, classes one each. An output of scores
    lies in [0, 1], not in the labels' own range. Raises ``InputError`` for any other number.
    """
    allowed = {"binary": (2, 1), "classes": (scheme.num_classes,), "scores": (1,)}[scheme.kind]
    num_labels = allowed[0] if num_labels is None else num_labels
    if num_labels not in allowed:
        raise InputError(
            f"--num_labels {num_labels}: {scheme.kind} labels need {' or '.join(map(str, allowed))}; leave it out"
        )
    if scheme.kind == "scores":
        names, problem = ["score"], "regression"
    elif num_labels == 1:  # the library's name of a loss with a sigmoid
        names, problem = scheme.names[1:], "multi_label_classification"
    else:
        names, problem = scheme.names, "single_label_classification"
    config.id2label = dict(enumerate(names))
    config.label2id = {name: class_id for class_id, name in enumerate(names)}
    config.problem_type = problem
    if scheme.kind == "scores":  # sentence-transformers' CrossEncoder would put a sigmoid on one output
        config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}


def _why_not_first_token(model: PreTrainedModel) -> str | None:
    """The reason why the head cannot be served by the first tokens alone, or None."""
    name = type(model).__name__
    if name not in HEADS:
        return f"{name} has no known head"
    if getattr(model.config, "classifier_pooling", "cls") != "cls":
        return f"its head pools all tokens ({model.config.classifier_pooling})"
    return None


def _flat_forward(
    self, input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor, layout: Layout, wanted: Tensor
) -> SequenceClassifierOutput:
    """(N,) tokens -> logits (B, C) of the pairs whose first tokens are ``wanted`` (B,)."""
    rows = encode(
        self.base_model,
        input_ids,
        position_ids,
        layout,
        token_type_ids=token_type_ids,
        wanted=wanted,
        attention_dropout=self.attention_dropout,
    )
    return SequenceClassifierOutput(logits=HEADS[type(self).__name__](self, rows))


def _padded_forward(self, wanted: Tensor, **inputs: Any) -> SequenceClassifierOutput:
    """(B, T) tokens -> logits of the lines that are ``wanted``."""
    return SequenceClassifierOutput(logits=type(self).forward(self, **inputs).logits[wanted])
