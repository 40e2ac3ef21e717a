"""Texts to vectors: token-budget batches without padding, pooled, each distinct text encoded once."""

# N tokens, S texts of a batch, T the longest of them, D width of a vector, R texts to encode

import copy
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from pair_pkg.data.texts import TextTokens, cut_by_tokens, ranges, tokenize_singles
from pair_pkg.modeling.encoder import encode, encode_first_and_last, why_not_flat
from pair_pkg.modeling.int8 import Int8Linear, quantize_linears
from pair_pkg.modeling.layout import Layout
from pair_pkg.modeling.precision import supports_bfloat16
from pair_pkg.processes import Processes

POOLINGS = ("mean", "cls", "max", "first_last_avg")  # the last: mean of the first and the last layer's outputs
CHUNK_TEXTS = 2_000  # tokenized while the chunk before is encoded; sorted by length within, and roughly before


@dataclass(frozen=True)
class SentenceEncoder:
    """What makes a vector of a text: a stock encoder, its pooling, and what follows."""

    model: PreTrainedModel  # of transformers' AutoModel
    tokenizer: PreTrainedTokenizerFast
    pooling: str  # one of POOLINGS
    max_seq_length: int
    head: nn.Module = field(default_factory=nn.Identity)  # applied to the pooled vectors
    normalized: bool = True


@dataclass
class EncodingAudit:
    """What :func:`encode_texts` adds up: distinct texts, their tokens, and how many of them were cut."""

    texts: int = 0
    tokens: int = 0
    truncated: int = 0

    def add(self, other: "EncodingAudit") -> None:
        self.texts += other.texts
        self.tokens += other.tokens
        self.truncated += other.truncated


class Padding(NamedTuple):
    """How a tokenizer pads a batch for a stock forward."""

    token_id: int
    token_type_id: int | None  # None where the model takes no token types
    left: bool


def encode_texts(
    encoder: SentenceEncoder,
    texts: Sequence[str],
    *,
    batch_tokens: int = 4096,
    dtype: torch.dtype = torch.float32,
    out: np.ndarray | None = None,
    audit: EncodingAudit | None = None,
    on_texts: Callable[[int], object] | None = None,
) -> np.ndarray:
    """The vectors of texts, in their order: (R, D) float32.

    Batches hold up to ``batch_tokens`` tokens of like length; the next texts are tokenized meanwhile. With ``dtype``
    bfloat16 the encoder runs in it, with int8 its linear layers do (on a processor), and the rows stay float32; give
    an encoder from ``hold_in`` where calls are many. With ``out``, an array or memory map of this shape, the rows are
    written there and nothing else is kept. What was encoded is added to ``audit``, and ``on_texts`` is told after each
    batch how many distinct texts it held.
    """
    encoder = hold_in(encoder, dtype)
    rows_of = _rows_by_text(texts)
    longest_first = sorted(rows_of, key=len, reverse=True)  # characters foretell tokens
    for chunk, tokens in _tokenized_ahead(longest_first, encoder):
        if audit is not None:
            audit.texts += len(chunk)
            audit.tokens += len(tokens.ids)
            audit.truncated += tokens.num_truncated
        for numbers, vectors in encode_tokens(encoder, tokens, batch_tokens=batch_tokens):
            if out is None:
                out = np.empty((len(texts), vectors.shape[1]), dtype=np.float32)
            rows = [rows_of[chunk[number]] for number in numbers]
            out[np.concatenate(rows)] = np.repeat(vectors, list(map(len, rows)), axis=0)
            if on_texts is not None:
                on_texts(len(rows))
    return np.empty((0, 0), dtype=np.float32) if out is None else out


def encode_shared(encoder: SentenceEncoder, texts: Sequence[str], processes: Processes, **settings: Any) -> np.ndarray:
    """``encode_texts`` by several processes, each for a share of the texts; every one gets all vectors, (R, D).

    Whole groups of texts are dealt, so the vectors are those of one process.
    """
    if processes.count == 1:
        return encode_texts(encoder, texts, **settings)
    rows_of = _rows_by_text(texts)
    longest_first = sorted(rows_of, key=len, reverse=True)
    share = [longest_first[number] for number in processes.own(len(rows_of), CHUNK_TEXTS)]
    vectors = processes.together(encode_texts(encoder, share, **settings), len(rows_of), CHUNK_TEXTS)
    out = np.empty((len(texts), *vectors.shape[1:]), np.float32)
    for text, vector in zip(longest_first, vectors):
        out[rows_of[text]] = vector
    return out


def encode_tokens(
    encoder: SentenceEncoder, tokens: TextTokens, *, batch_tokens: int = 4096
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The vectors of tokenized texts, a batch at a time, longest texts first: their numbers (B,), and (B, D) float32.

    The model is in ``eval`` mode while this runs, and as it was behind the last batch.
    """
    padding = padding_of(encoder.tokenizer) if why_not_flat(encoder.model) else None
    device = next(encoder.model.parameters()).device
    was_training = encoder.model.training
    encoder.model.eval()
    order = np.argsort(-tokens.lengths, kind="stable")
    for part in cut_by_tokens(tokens.lengths[order], batch_tokens, padded=padding is not None):
        with torch.inference_mode():
            batch = build_text_batch(tokens, order[part], padding)
            vectors = _vectors(encoder, move_batch(batch, device)).float().cpu().numpy()
        yield order[part], vectors
    encoder.model.train(was_training)


def hold_in(encoder: SentenceEncoder, dtype: torch.dtype) -> SentenceEncoder:
    """The encoder with the weights of its model in ``dtype``: a copy, or itself where they are; its head stays.

    Autocast would cast weights and residuals back and forth in every layer. int8 are the weights of linear layers
    only; what lies between them is bfloat16 where the processor multiplies in it, else float32.
    """
    if _held_in(encoder.model) == dtype:
        return encoder
    model = copy.deepcopy(encoder.model)
    if dtype == torch.int8:
        model.to(torch.bfloat16 if supports_bfloat16("cpu") else torch.float32)
        quantize_linears(model)
    else:
        model.to(dtype)
    return replace(encoder, model=model)


def _held_in(model: PreTrainedModel) -> torch.dtype:
    if any(isinstance(module, Int8Linear) for module in model.modules()):
        return torch.int8
    return next(model.parameters()).dtype


def embed(model: PreTrainedModel, inputs: dict[str, Any], pooling: str, attention_dropout: float = 0.0) -> Tensor:
    """Pooled vectors of a batch of ``build_text_batch``, not normalized: (S, D).

    ``attention_dropout`` holds in training on flat batches; a stock forward takes its config's.
    """
    if "layout" not in inputs:
        return _embed_padded(model, inputs, pooling)
    layout, settings = inputs["layout"], {**inputs, "attention_dropout": attention_dropout}
    if pooling == "cls":
        return encode(model, wanted=layout.cumulative(inputs["input_ids"].device)[:-1].long(), **settings)
    if pooling == "first_last_avg":
        first, last = encode_first_and_last(model, **settings)
        return pool((first + last) / 2, layout.lengths, "mean")
    return pool(encode(model, **settings), layout.lengths, pooling)


def pool(hidden: Tensor, lengths: Sequence[int], pooling: str) -> Tensor:
    """The mean, maximum or first row (cls) of each text: (N, D), texts one after the other -> (S, D)."""
    counts = torch.tensor(lengths, device=hidden.device)
    if pooling == "cls":
        return hidden[counts.cumsum(0) - counts]
    text_of_token = torch.repeat_interleave(torch.arange(len(counts), device=hidden.device), counts)
    if pooling == "mean":
        sums = hidden.new_zeros(len(counts), hidden.shape[1], dtype=torch.float32)
        return sums.index_add(0, text_of_token, hidden.float()) / counts.clamp(min=1).unsqueeze(1)
    assert pooling == "max", pooling
    lowest = hidden.new_full((len(counts), hidden.shape[1]), float("-inf"))
    return lowest.scatter_reduce(0, text_of_token.unsqueeze(1).expand_as(hidden), hidden, "amax")


def project(head: nn.Module, pooled: Tensor) -> Tensor:
    """What a head makes of pooled vectors (S, D), in float32 under autocast too: one linear layer costs little."""
    with torch.autocast(pooled.device.type, enabled=False):
        return head(pooled.float())


def padding_of(tokenizer: PreTrainedTokenizerFast) -> Padding:
    """How a tokenizer pads."""
    has_types = "token_type_ids" in tokenizer.model_input_names
    token_type_id = tokenizer.pad_token_type_id if has_types else None
    return Padding(tokenizer.pad_token_id, token_type_id, tokenizer.padding_side == "left")


def build_text_batch(tokens: TextTokens, texts: np.ndarray, padding: Padding | None) -> dict[str, Any]:
    """Some texts as inputs of ``embed``, as ``arrange_tokens`` arranges them."""
    ids, types = (torch.from_numpy(values.astype(np.int64)) for values in tokens.take(texts))
    return arrange_tokens(ids, types, tokens.lengths[texts], padding)


def arrange_tokens(ids: Tensor, types: Tensor, lengths: np.ndarray, padding: Padding | None) -> dict[str, Any]:
    """Tokens of inputs that stand one after the other, (N,) each, of ``lengths`` (S,), as a model takes them.

    Flat, ``{input_ids (N,), position_ids (N,), token_type_ids (N,), layout}``; with ``padding`` for a stock forward,
    ``{input_ids (S, T), attention_mask (S, T)}``, and ``token_type_ids`` where it has some.
    """
    if padding is None:
        position_ids = torch.from_numpy(ranges(np.zeros_like(lengths), lengths))
        return {
            "input_ids": ids, "position_ids": position_ids, "token_type_ids": types, "layout": Layout(lengths.tolist())
        }  # fmt: skip
    place, length = torch.arange(int(lengths.max())), torch.from_numpy(lengths).unsqueeze(1)
    real = place >= len(place) - length if padding.left else place < length  # (S, T)
    batch = {"attention_mask": real.long(), "input_ids": torch.full(real.shape, padding.token_id)}
    batch["input_ids"].masked_scatter_(real, ids)
    if padding.token_type_id is not None:
        batch["token_type_ids"] = torch.full(real.shape, padding.token_type_id).masked_scatter(real, types)
    return batch


def split_text_batch(inputs: dict[str, Any], batch_tokens: int) -> Iterator[dict[str, Any]]:
    """A batch of ``build_text_batch`` as smaller ones of at most ``batch_tokens`` tokens each, in its order."""
    if "layout" not in inputs:
        lengths = inputs["attention_mask"].sum(1).cpu().numpy()
        for part in cut_by_tokens(lengths, batch_tokens, padded=True):
            yield {name: values[part] for name, values in inputs.items()}
        return
    lengths = np.array(inputs["layout"].lengths)
    ends = np.concatenate([[0], np.cumsum(lengths)])
    for part in cut_by_tokens(lengths, batch_tokens, padded=False):
        tokens = slice(ends[part.start], ends[part.stop])
        flat = {name: values[tokens] for name, values in inputs.items() if name != "layout"}
        yield {**flat, "layout": Layout(lengths[part].tolist())}


def move_batch(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch on a device; its layout stays where it is."""
    return {name: values.to(device) if isinstance(values, Tensor) else values for name, values in batch.items()}


def _rows_by_text(texts: Sequence[str]) -> dict[str, list[int]]:
    """The rows in which each distinct text stands."""
    rows: dict[str, list[int]] = {}
    for row, text in enumerate(texts):
        rows.setdefault(text, []).append(row)
    return rows


def _tokenized_ahead(texts: list[str], encoder: SentenceEncoder) -> Iterator[tuple[list[str], TextTokens]]:
    """Chunks of the texts with their tokens; the next chunk is tokenized while the one before is in use."""
    tokenize = partial(tokenize_singles, tokenizer=encoder.tokenizer, max_seq_length=encoder.max_seq_length)
    chunks = [texts[start : start + CHUNK_TEXTS] for start in range(0, len(texts), CHUNK_TEXTS)]
    with ThreadPoolExecutor(1) as background:
        ahead = background.submit(tokenize, chunks[0]) if chunks else None
        for number, chunk in enumerate(chunks):
            tokens = ahead.result()
            if number + 1 < len(chunks):
                ahead = background.submit(tokenize, chunks[number + 1])
            yield chunk, tokens


def _vectors(encoder: SentenceEncoder, inputs: dict[str, Any]) -> Tensor:
    vectors = project(encoder.head, embed(encoder.model, inputs, encoder.pooling))
    return F.normalize(vectors, dim=-1) if encoder.normalized else vectors


def _embed_padded(model: PreTrainedModel, inputs: dict[str, Tensor], pooling: str) -> Tensor:
    # the class's own forward: the instance's may be bound to something else
    outputs = type(model).forward(model, **inputs, output_hidden_states=pooling == "first_last_avg", return_dict=True)
    hidden = outputs.last_hidden_state
    if pooling == "first_last_avg":
        hidden, pooling = (outputs.hidden_states[1] + hidden) / 2, "mean"
    real = inputs["attention_mask"].bool()
    return pool(hidden[real], real.sum(1).tolist(), pooling)
