"""The encoder that a run starts from, with nothing learned from the pairs: the cosine of its vectors as a baseline."""

import logging

import numpy as np
import torch
from transformers import AutoModel

from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import InputError
from pair_pkg.modeling.embedding import SentenceEncoder, encode_shared
from pair_pkg.modeling.loading import load_model
from pair_pkg.modeling.sentence_folder import is_sentence_folder, load_sentence_encoder
from pair_pkg.pairs.baselines import Similarity
from pair_pkg.processes import Processes
from pair_pkg.stages.arguments.model import ModelArguments
from pair_pkg.stages.lifecycle import load_named_config
from pair_pkg.stages.pair_setup import PairSetup

logger = logging.getLogger("pair_pkg")

MAX_TRAIN_PAIRS = 5_000  # one cut, or one line, is as good from these (accuracy to 0.7 points) as from all
SAMPLE_SEED = 0


def frozen_similarity(
    model: ModelArguments, setup: PairSetup, train: Pairs, test: Pairs, device: torch.device, processes: Processes
) -> Similarity:
    """Cosines of all test pairs and of up to ``MAX_TRAIN_PAIRS`` training pairs, drawn with a fixed seed.

    A sentence-transformers checkpoint pools as its own modules say, any other by the mean of its tokens.
    """
    rows = np.random.default_rng(SAMPLE_SEED).permutation(len(train))[:MAX_TRAIN_PAIRS]
    sample = train.subset(np.sort(rows))
    encoder = _load_encoder(model, setup)
    encoder.model.to(device)
    encoder.head.to(device)
    columns = (sample.sentence1, test.sentence1), (sample.sentence2, test.sentence2)
    left, right = (encode_shared(encoder, [*of_train, *of_test], processes) for of_train, of_test in columns)
    cosines = np.einsum("nd,nd->n", left, right, dtype=np.float64)
    return Similarity(cosines[: len(sample)], sample.labels, cosines[len(sample) :])


def _load_encoder(model: ModelArguments, setup: PairSetup) -> SentenceEncoder:
    name = model.model_name_or_path
    if is_sentence_folder(name, **model.hub()):
        try:
            return load_sentence_encoder(name, **model.hub())
        except InputError as error:  # a baseline is no reason to refuse a run
            logger.warning("frozen encoder: %s; its tokens' mean is taken here", error)
    encoder = load_model(AutoModel, name, load_named_config(model), **model.hub())
    return SentenceEncoder(encoder, setup.tokenizer, "mean", setup.max_seq_length)
