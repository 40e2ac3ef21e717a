"""The doors as Python calls: the same parser reads the same flags, so nothing can differ from the command line."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from pair_pkg.stages import adapt as stage_1
from pair_pkg.stages import finetune as stage_2
from pair_pkg.stages import pipeline as both
from pair_pkg.stages.recipes import flag_words


def adapt(recipe: str | os.PathLike | None = None, /, **flags: Any) -> dict[str, Any]:
    """Stage 1, ``run_mlm.py``: continue masked-language-model pretraining; returns the metrics that it prints.

    Flags are those of ``run_mlm.py --help``, over a recipe if one is given: ``adapt(output_dir="runs/mlm",
    model_name_or_path="BASE", train_file="corpus.txt", num_train_epochs=3)``. None stands for the default, a list for
    several values. Among the metrics are ``eval_perplexity`` and, as it was before the first step,
    ``before["eval_perplexity"]``: exp of the mean loss in nats of a predicted token of the validation documents.
    A finished run is not run again, a broken one goes on. Raises ``InputError`` for what the caller can mend,
    ``TrainingFailure`` for a loss that is not finite, ``DiskFull``.
    """
    return stage_1.main(_words(recipe, flags))


def finetune(recipe: str | os.PathLike | None = None, /, **flags: Any) -> dict[str, Any]:
    """Stage 2, ``run_pair_cls.py``: fine-tune on labelled pairs; returns the metrics that it prints.

    Flags are those of ``run_pair_cls.py --help``, given as ``adapt`` takes them: ``finetune(output_dir="runs/pairs",
    model_name_or_path="runs/mlm", train_file="pairs.csv", num_train_epochs=3)``. ``eval_...`` are metrics of the
    validation pairs, ``test`` those of the test pairs with ``correct`` and ``total``, shares from 0 to 1. Raises as
    ``adapt`` does.
    """
    return stage_2.main(_words(recipe, flags))


def pipeline(
    recipe: str | os.PathLike,
    *,
    output_dir: str | os.PathLike | None = None,
    base_model: str | None = None,
    seeds: Sequence[int] | None = None,
    no_texts: bool = False,
) -> dict[str, Any]:
    """Both stages from base and adapted checkpoint, compared: ``python -m pair_pkg pipeline``; returns the answer.

    The recipe is a file; what is given beside it stands in its place. ``no_texts`` leaves the texts of pairs out of the
    report. The answer is what ``results.json`` holds: ``answer`` is "helped", "hurt" or "not told apart", ``sentence``
    says it with numbers, ``comparison`` has each metric with its difference and interval, in shares from 0 to 1.
    Finished parts are not run again. Raises as ``adapt`` does.
    """
    given = {"output_dir": output_dir, "base_model": base_model, "seeds": seeds}
    return both.main([os.fspath(recipe), *flag_words(given), *(["--no_texts"] if no_texts else [])])


def _words(recipe: str | os.PathLike | None, flags: Mapping[str, Any]) -> list[str]:
    return [*([] if recipe is None else [os.fspath(recipe)]), *flag_words(flags)]
