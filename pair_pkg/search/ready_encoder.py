"""A bi-encoder on its device, ready to make vectors of texts."""

# R texts, D width of a vector

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pair_pkg.data.texts import refuse_single_text
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import EncodingAudit, SentenceEncoder, encode_texts, hold_in
from pair_pkg.modeling.loading import resolve_package
from pair_pkg.modeling.precision import compute_dtype
from pair_pkg.modeling.sentence_folder import fingerprint_encoder, load_sentence_encoder

logger = logging.getLogger("pair_pkg")

BATCH_TOKENS = 8192  # fits any machine


@dataclass(frozen=True)
class ReadyEncoder:
    """An encoder on its device, and what its vectors depend on; see ``load_encoder``."""

    name: str
    fingerprint: str
    encoder: SentenceEncoder
    dtype: torch.dtype
    batch_tokens: int

    def identity(self) -> dict[str, Any]:
        """What the bytes of vectors depend on, beside the texts."""
        return {
            "model": self.fingerprint,
            "dtype": str(self.dtype).removeprefix("torch."),
            "batch_tokens": self.batch_tokens,
            "max_seq_length": self.encoder.max_seq_length,
            "normalized": self.encoder.normalized,
        }

    def encode(self, texts: Sequence[str], *, audit: EncodingAudit | None = None) -> np.ndarray:
        """Vectors of texts, in their order: (R, D) float32; equal texts are encoded once.

        What a text has beyond the model's ``max_seq_length`` tokens is cut off; how many were is added to ``audit``.
        Raises ``InputError`` for a bare string.
        """
        refuse_single_text(texts, "texts")
        return encode_texts(self.encoder, texts, batch_tokens=self.batch_tokens, dtype=self.dtype, audit=audit)


def load_encoder(
    model: str,
    *,
    dtype: str = "float32",
    device: str | None = None,
    batch_tokens: int = BATCH_TOKENS,
    unit_rows: bool = True,
) -> ReadyEncoder:
    """The bi-encoder of a folder, of ``package:NAME/FOLDER`` or of the Hub, on the accelerator where there is one.

    With ``unit_rows`` its vectors have length 1, whatever its own way, so that their inner product is the cosine.
    ``dtype`` is float32, bfloat16, float16 or int8: float32 gives the same vectors on every machine to 1e-5, the
    others are faster where the hardware multiplies in them. A batch holds up to ``batch_tokens`` tokens.
    Raises ``InputError`` for a folder that is no bi-encoder, a device that is not there and a type that it has not.
    """
    if batch_tokens < 1:
        raise InputError(f"--batch_tokens {batch_tokens}: give at least 1, such as {BATCH_TOKENS}")
    name, place = resolve_package(model), _device(device)
    encoder = load_sentence_encoder(name)
    if unit_rows:
        encoder = dataclasses.replace(encoder, normalized=True)
    encoder.model.to(place)
    encoder.head.to(place)
    held = compute_dtype(dtype, place.type)
    return ReadyEncoder(name, fingerprint_encoder(name), hold_in(encoder, held), held, batch_tokens)


def warn_of_cut(audit: EncodingAudit, encoder: SentenceEncoder) -> None:
    """Say how many texts were longer than the model reads."""
    if audit.truncated:
        logger.warning(
            "%d of %d distinct texts are longer than the model's %d tokens; their ends are not in the vectors",
            audit.truncated, audit.texts, encoder.max_seq_length,
        )  # fmt: skip


def _device(name: str | None) -> torch.device:
    if name is None:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        return accelerator or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device {name}: not to be had here; give cpu, or leave it out") from error
