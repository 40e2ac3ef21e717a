"""``run_pair_cls.py --do_predict`` without training: pairs scored by a finished model, one row a pair."""

from pathlib import Path
from typing import Any

from pair_pkg.errors import InputError
from pair_pkg.pairs.scorer import load_scorer
from pair_pkg.stages.arguments.pairs import PairFlags
from pair_pkg.stages.pairs_data import load_unlabelled
from pair_pkg.stages.predictions import PREDICTIONS_NAME, write_predictions
from pair_pkg.stages.terminal import announce
from pair_pkg.training.checkpoints import check_output_dir


def predict_only(flags: PairFlags) -> dict[str, Any]:
    """Score ``--predict_file`` with a fine-tuned checkpoint, in the order of the input. Raises ``InputError``."""
    args = flags.training
    if not flags.pairs.predict_file:
        raise InputError("--do_predict: no pairs to score; give --predict_file")
    scorer = load_scorer(flags.model.model_name_or_path, device=args.device)
    check_output_dir(Path(args.output_dir))
    pairs = load_unlabelled(flags.pairs)
    scores = scorer.score(pairs.sentence1, pairs.sentence2, processes=args.processes)
    if args.should_save:
        path = Path(args.output_dir, PREDICTIONS_NAME)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_predictions(path, pairs, scorer.scheme, scores, scorer.decision)
        announce(f"written to {path}: {len(pairs):,} pairs, in the order of the input")
    return {"predicted_pairs": len(pairs)}
