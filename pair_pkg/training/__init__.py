"""Building the Trainer: arguments, checkpoints, evaluation, callbacks, for both stages."""
