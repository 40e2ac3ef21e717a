"""The exact perplexity of a masked-language model on a text, without a run and its folder."""

import os
import tempfile
from collections.abc import Sequence
from typing import Any

from pair_pkg.data.tokens import special_affixes
from pair_pkg.mlm.loss import perplexity_metrics
from pair_pkg.modeling.base_weights import BaseWeights
from pair_pkg.stages import adapt
from pair_pkg.stages.corpus import training_source, validation_source
from pair_pkg.stages.lifecycle import load_named_config, load_named_tokenizer, settle_config
from pair_pkg.stages.mlm_data import load_data
from pair_pkg.stages.mlm_trainer import build_trainer, load_masked_lm
from pair_pkg.stages.recipes import flag_words


def measure_perplexity(
    model_name_or_path: str | os.PathLike, text_file: str | os.PathLike | Sequence[str | os.PathLike], **flags: Any
) -> dict[str, float]:
    """``perplexity``, ``loss`` (nats a token) and ``predicted_tokens`` of a checkpoint on all of a text.

    The sum of token losses over the number of predicted tokens, nothing trained: the same for every batch size, and
    what ``run_mlm.py --validation_file`` says of the same checkpoint and seed. ``flags`` are those of ``run_mlm.py`` on
    the text and its masks, such as ``max_seq_length=128, mlm_probability=0.15, seed=42``;
    ``prediction_loss_only=False`` adds the ``accuracy`` (0 to 1) on predicted tokens. Raises ``InputError`` as
    ``adapt`` does.
    """
    files = [text_file] if isinstance(text_file, str | os.PathLike) else list(text_file)
    with tempfile.TemporaryDirectory() as nowhere:
        given = {"model_name_or_path": model_name_or_path, "train_file": files, "validation_file": files}
        fixed = {"output_dir": nowhere, "do_eval": True, "report_to": "none"}
        parsed = adapt.parse(flag_words({**given, **fixed, **flags}))
        tokenizer, config = load_named_tokenizer(parsed.model), load_named_config(parsed.model)
        num_special = sum(map(len, special_affixes(tokenizer)))
        max_seq_length = settle_config(
            config,
            tokenizer,
            parsed.model,
            max_seq_length=parsed.corpus.max_seq_length,
            default_length=adapt.DEFAULT_MAX_SEQ_LENGTH,
            num_special=num_special,
            needs_mask=True,
        )
        text, held_out = training_source(parsed.corpus, None), validation_source(parsed.corpus, None)
        data = load_data(parsed, text, held_out, None, tokenizer, max_seq_length, num_special)
        model = load_masked_lm(parsed.model, config, parsed.training.seed)
        trainer = build_trainer(model, BaseWeights(model), parsed, tokenizer, data)
        return perplexity_metrics(trainer.score_dataset(trainer.get_eval_dataloader()))
