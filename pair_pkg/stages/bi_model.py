"""The bi-encoder as stage 2 runs it."""

import functools

from transformers import AutoModel

from pair_pkg.data.pairs import Pairs
from pair_pkg.errors import InputError
from pair_pkg.modeling.loading import load_model
from pair_pkg.modeling.sentence_folder import save_sentence_encoder
from pair_pkg.pairs.bi_encoder import bind_bi_encoder, take_encoder
from pair_pkg.pairs.embedding_loss import (
    CACHED_RANKING,
    IN_BATCH_NEGATIVES,
    cosine_row_metrics,
    embedding_loss,
    learned_pairs,
    score_embedded_pairs,
)
from pair_pkg.pairs.head_norm import HeadNorm
from pair_pkg.pairs.text_dataset import PairTexts
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.pair_model import PairModel, warn_of_truncated
from pair_pkg.stages.pair_setup import PairSetup
from pair_pkg.training.run import stock_reason
from pair_pkg.training.trainer import StageTrainer

CACHED_TOKENS = 8192  # whose activations are kept at a time under a cached loss


def build_bi_encoder(flags: PairFlags, setup: PairSetup) -> PairModel:
    """A bi-encoder to train from the checkpoint's encoder."""
    width, settings = setup.config.hidden_size, setup.settings
    dimensions, loss = settings["matryoshka_dims"], settings["loss"]
    if any(not 0 < dims <= width for dims in dimensions):
        raise InputError(f"--matryoshka_dims {' '.join(map(str, dimensions))}: give dimensions from 1 to {width}")
    model = load_model(AutoModel, flags.model.model_name_or_path, setup.config, **flags.model.hub())
    flat = bind_bi_encoder(
        model,
        settings["pooling"],
        head=HeadNorm(width) if settings["head_norm"] == "batch" else None,
        attention_dropout=flags.model.attention_probs_dropout_prob or 0.0,
        chunk_tokens=CACHED_TOKENS if loss == CACHED_RANKING else None,
        why_stock=stock_reason(flags.training),
    )

    def build_rows(pairs: Pairs, training: bool) -> PairTexts:
        rows = PairTexts(
            learned_pairs(pairs, loss) if training else pairs,
            setup.scheme,
            setup.tokenizer,
            setup.max_seq_length,
            flat=flat,
            with_rows=not training,
            with_groups=training and loss in IN_BATCH_NEGATIVES,
        )
        warn_of_truncated(rows.num_truncated, "texts", setup.max_seq_length)
        return rows

    def save(trainer: StageTrainer) -> None:
        encoder = take_encoder(model, setup.tokenizer, settings["pooling"], setup.max_seq_length)
        weights = trainer.accelerator.get_state_dict(model)  # all processes take part, for they may hold a part each
        if trainer.args.should_save:
            save_sentence_encoder(encoder, trainer.args.output_dir, weights)

    return PairModel(
        model=model,
        build_rows=build_rows,
        loss=embedding_loss(loss, dimensions),
        score_batch=functools.partial(score_embedded_pairs, scheme=setup.scheme),
        row_metrics=functools.partial(cosine_row_metrics, scheme=setup.scheme),
        save=save,
        both_orders=False,
        are_cosines=True,
    )
