"""Make the demo's base model: a small ModernBERT that has read general text only. Beside it lies what it made.

   python data/make_tiny_encoder.py

Its vocabulary is learnt from the general text and the corpus, so that no character of the domain is unknown to it;
its weights are learnt from ``general.txt`` alone. They are kept in float16, which halves the file.
"""

import json
import shutil
import tempfile
from pathlib import Path

from transformers import AutoModelForMaskedLM, AutoTokenizer

from pair_pkg.modeling.scratch import train_tokenizer
from pair_pkg.stages import adapt

DATA = Path(__file__).parent
ENCODER = DATA / "tiny_encoder"
VOCAB_SIZE = 4000
SHAPE = (  # pre-norm layers learn in hundreds of steps what a post-norm BERT of this size learns in thousands
    "hidden_size=128,num_hidden_layers=3,num_attention_heads=4,intermediate_size=384,max_position_embeddings=128,"
    "local_attention=64"
)
TRAINING = {
    "model_type": "modernbert",
    "config_overrides": SHAPE,
    "train_file": str(DATA / "general.txt"),
    "max_seq_length": 64,
    "per_device_train_batch_size": 32,
    "num_train_epochs": 40,
    "learning_rate": 2e-3,
    "warmup_steps": 0.05,
    "weight_decay": 0.01,
    "logging_steps": 200,
    "eval_steps": 200,
    "save_strategy": "no",
    "seed": 11,
}


def main() -> None:
    texts = (DATA / "general.txt").read_text(encoding="utf-8").splitlines()
    texts += [json.loads(line)["text"] for line in (DATA / "corpus.jsonl").read_text(encoding="utf-8").splitlines()]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer_dir, run_dir = Path(folder, "tokenizer"), Path(folder, "run")
        train_tokenizer(texts, VOCAB_SIZE).save_pretrained(tokenizer_dir)
        places = {"tokenizer_name": tokenizer_dir, "output_dir": run_dir, "token_cache_dir": Path(folder, "cache")}
        adapt.main([f"--{name}={value}" for name, value in {**TRAINING, **places}.items()])
        shutil.rmtree(ENCODER, ignore_errors=True)
        AutoModelForMaskedLM.from_pretrained(run_dir).half().save_pretrained(ENCODER)
        AutoTokenizer.from_pretrained(run_dir).save_pretrained(ENCODER)
    print(f"written to {ENCODER}")


if __name__ == "__main__":
    main()
