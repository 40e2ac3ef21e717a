"""What stage 2 knows of an architecture: how it is trained, scored and saved."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerFast, TrainingArguments

from pair_pkg.data.pairs import Pairs
from pair_pkg.pairs.loss import LossFunction
from pair_pkg.training.trainer import RowMetrics, ScoreBatch, StageTrainer

logger = logging.getLogger("pair_pkg")


@dataclass(frozen=True)
class PairModel:
    """A bound model to train and what belongs to it; built by ``cross_model`` and ``bi_model``."""

    model: PreTrainedModel
    build_rows: Callable[[Pairs, bool], Any]  # pairs, and whether they are trained on
    loss: LossFunction
    score_batch: ScoreBatch
    row_metrics: RowMetrics
    save: Callable[[StageTrainer], None]  # the finished model into the run's folder
    both_orders: bool  # whether evaluation rows are the pairs and then the pairs swapped
    are_cosines: bool  # what a score of binary labels is: a cosine, or a logit margin
    aids: dict[str, Any] = field(default_factory=dict)  # of ``add_aids``: what the trainer is given beside

    def build_trainer(
        self,
        args: TrainingArguments,
        tokenizer: PreTrainedTokenizerFast,
        evaluated: Dataset,
        trained: Dataset | None = None,
    ) -> StageTrainer:
        """The Trainer of the model."""
        return StageTrainer(
            model=self.model,
            args=args,
            train_dataset=trained,
            eval_dataset=evaluated,
            processing_class=tokenizer,
            compute_loss_func=self.loss,
            score_batch=self.score_batch,
            row_metrics=self.row_metrics,
            **self.aids,
        )


def warn_of_truncated(num_truncated: int, what: str, max_seq_length: int) -> None:
    """Say that texts were cut, if any was."""
    if num_truncated:
        logger.warning("%d %s are cut to --max_seq_length %d", num_truncated, what, max_seq_length)
