#!/usr/bin/env python
"""Stage 1: continue masked-language-model pretraining on your corpus.

python run_mlm.py --model_name_or_path MODEL --train_file corpus.txt --output_dir runs/mlm
python run_mlm.py recipes/mlm.yaml --learning_rate 5e-5
"""

from pair_pkg.errors import run_door
from pair_pkg.stages.adapt import main

if __name__ == "__main__":
    raise SystemExit(run_door(main))
