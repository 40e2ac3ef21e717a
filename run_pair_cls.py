#!/usr/bin/env python
"""Stage 2: fine-tune a checkpoint on labelled sentence pairs.

python run_pair_cls.py --model_name_or_path runs/mlm --train_file pairs.csv --output_dir runs/pairs
python run_pair_cls.py recipes/pairs.yaml --learning_rate 5e-5
"""

from pair_pkg.errors import run_door
from pair_pkg.stages.finetune import main

if __name__ == "__main__":
    raise SystemExit(run_door(main))
