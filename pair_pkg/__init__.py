"""Continued pretraining and sentence-pair similarity on the Hugging Face Trainer."""

__version__ = "0.1.0"
