"""The Trainer's numbers: independent of how a step is cut into batches and processes, and of when it is asked."""

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM, AutoTokenizer, TrainerCallback, TrainingArguments

from pair_pkg.data.batches import FROZEN, Item
from pair_pkg.data.rows import cut_windows, rows_packed
from pair_pkg.data.tokens import load_or_build_store, special_affixes
from pair_pkg.errors import EXIT_FAILED, TrainingFailure, run_door
from pair_pkg.mlm.dataset import MaskedRows
from pair_pkg.mlm.head import bind_sparse_forward
from pair_pkg.mlm.loss import masked_lm_loss, perplexity_metrics, score_rows
from pair_pkg.mlm.masking import Masking
from pair_pkg.records import read_record
from pair_pkg.stages import adapt, mlm_trainer
from pair_pkg.training.checkpoints import newest_checkpoint
from pair_pkg.training.trainer import StageTrainer, count_tokens

ROOT = Path(__file__).parents[2]
# 33 rows: the last step of an epoch has one row, so one of two processes gets a filler
EQUIVALENT = ["--hidden_dropout_prob=0", "--max_train_samples=33", "--num_train_epochs=2", "--learning_rate=1e-3",
              "--eval_steps=100", "--disable_tqdm=true"]  # fmt: skip


def score_batch(model, batch):
    labels, rows, row_of_label = (batch.pop(name) for name in ("labels", "rows", "row_of_label"))
    return score_rows(model(**batch), labels, rows, row_of_label, loss_only=True)


@pytest.fixture
def build_trainer(tiny_bert, tiny_tokenizer, tiny_documents, token_cache, tmp_path):
    """A trainer on the tiny corpus, its last 40 documents for validation."""

    def build(flat=True, dropout=0.1, **arguments):
        tokenizer = AutoTokenizer.from_pretrained(tiny_bert)
        store = load_or_build_store(Path(token_cache), "tiny", tokenizer, lambda: tiny_documents, dict, quiet=True)
        model = AutoModelForMaskedLM.from_pretrained(tiny_bert, hidden_dropout_prob=dropout)
        bind_sparse_forward(model, why_stock=None if flat else "a test")
        masking = Masking(1, tokenizer.mask_token_id, np.arange(5, len(tokenizer)))
        affixes = special_affixes(tokenizer)
        parts = []
        for documents in (np.arange(160), np.arange(160, 200)):
            rows = rows_packed(*cut_windows(store.offsets, documents, 46), 2, 48)
            parts.append(
                MaskedRows(store, rows, masking, affixes, tokenizer.pad_token_id, flat=flat, with_rows=len(parts) == 1)
            )
        defaults = dict(output_dir=str(tmp_path / "out"), use_cpu=True, report_to="none", save_strategy="no",
                        disable_tqdm=True, remove_unused_columns=False, logging_nan_inf_filter=False)  # fmt: skip
        return StageTrainer(
            model=model,
            args=TrainingArguments(**{**defaults, **arguments}),
            train_dataset=parts[0],
            eval_dataset=parts[1],
            compute_loss_func=masked_lm_loss,
            score_batch=score_batch,
            row_metrics=perplexity_metrics,
        )

    return build


def history(output_dir):
    return json.loads(Path(output_dir, "log_history.json").read_text())


def trajectory(output_dir):
    """(steps, 2): loss and gradient norm of each optimizer step."""
    return np.array([(entry["loss"], entry["grad_norm"]) for entry in history(output_dir) if "loss" in entry])


def assert_same_run(output_dir, reference_dir, metrics, reference):
    ours, theirs = trajectory(output_dir), trajectory(reference_dir)
    assert ours.shape == (6, 2)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5)
    weights, wanted = (load_file(Path(folder, "model.safetensors")) for folder in (output_dir, reference_dir))
    for name, value in wanted.items():
        torch.testing.assert_close(weights[name], value, atol=2e-5, rtol=0, msg=name)
    assert metrics["before"]["eval_perplexity"] == pytest.approx(reference["before"]["eval_perplexity"], rel=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(reference["eval_perplexity"], rel=1e-5)
    assert metrics["eval_predicted_tokens"] == reference["eval_predicted_tokens"]


@pytest.fixture
def batch_of_16(mlm_words, tmp_path):
    """A reference run with batches of 16: its folder and its metrics."""
    output_dir = tmp_path / "batch16"
    return output_dir, adapt.main(mlm_words(output_dir, *EQUIVALENT, "--per_device_train_batch_size=16"))


def test_batch_16_is_4_accumulated_4_times(batch_of_16, mlm_words, tmp_path):
    reference_dir, reference = batch_of_16
    cut = ["--per_device_train_batch_size=4", "--gradient_accumulation_steps=4", "--per_device_eval_batch_size=3"]
    metrics = adapt.main(mlm_words(tmp_path / "cut", *EQUIVALENT, *cut))
    assert_same_run(tmp_path / "cut", reference_dir, metrics, reference)


@pytest.mark.slow
@pytest.mark.parametrize("accumulation", [1, 2])
def test_batch_16_is_two_processes(batch_of_16, mlm_words, tmp_path, accumulation):
    reference_dir, reference = batch_of_16
    cut = [f"--per_device_train_batch_size={8 // accumulation}", f"--gradient_accumulation_steps={accumulation}"]
    metrics = run_two_processes(mlm_words(tmp_path / "two", *EQUIVALENT, *cut, "--ddp_backend=gloo"), tmp_path / "two")
    assert_same_run(tmp_path / "two", reference_dir, metrics, reference)


@pytest.mark.slow
def test_what_holds_on_to_the_base_is_the_same_in_two_processes(mlm_words, tmp_path, tiny_documents, tiny_pairs):
    """Spans, a falling rate, replay, the pull to the base, merging and the probe: batch 16 = 2 processes x 8.

    Keys' biases have no gradient but noise, which the pull hands on and Adam with its own epsilon makes steps of.
    """
    general, pairs = tmp_path / "general.txt", tmp_path / "pairs.csv"
    general.write_text("\n".join(f"{text} twice" for text in tiny_documents[:60]) + "\n", encoding="utf-8")
    rows = [f"{tiny_pairs[n][0]},{tiny_pairs[n if n % 2 else n + 80][1]},{n % 2}" for n in range(80)]
    pairs.write_text("\n".join(["sentence1,sentence2,label", *rows]) + "\n", encoding="utf-8")
    more = ["--masking=span", "--mlm_probability_start=0.3", f"--replay_file={general}", "--replay_share=0.3",
            "--l2_sp=1", "--merge_alpha", "0.5", "0.75", f"--pair_file={pairs}", "--include_pair_text",
            "--max_steps=6", "--adam_epsilon=1e-3"]  # fmt: skip
    one = adapt.main(mlm_words(tmp_path / "one", *EQUIVALENT, *more, "--per_device_train_batch_size=16"))
    cut = ["--per_device_train_batch_size=8", "--ddp_backend=gloo"]
    two = run_two_processes(mlm_words(tmp_path / "two", *EQUIVALENT, *more, *cut), tmp_path / "two")
    assert_same_run(tmp_path / "two", tmp_path / "one", two, one)
    for name in ("eval_general_perplexity", "eval_probe"):
        assert two[name] == pytest.approx(one[name], rel=1e-4)
    assert two["merge"]["alpha"] == one["merge"]["alpha"]
    assert two["masked_slices"]["base"] == one["masked_slices"]["base"]


def run_two_processes(words, output_dir):
    """The metrics of stage 1 in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    process = subprocess.Popen(
        [*launch, str(ROOT / "run_mlm.py"), *words],
        cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        output, errors = process.communicate(timeout=120)
    finally:
        process.terminate()  # the launcher takes its workers with it
    assert process.returncode == 0, errors[-3000:]
    assert output.count("perplexity of the validation documents") == 1  # one process speaks
    return json.loads((output_dir / "run.json").read_text())["metrics"]


# Evaluation.


def test_perplexity_is_the_same_for_every_batch_size_and_layout(build_trainer):
    found = [
        build_trainer(flat, per_device_eval_batch_size=size).evaluate() for flat in (True, False) for size in (1, 3, 16)
    ]
    assert len({metrics["eval_predicted_tokens"] for metrics in found}) == 1
    for metrics in found[1:]:
        assert metrics["eval_perplexity"] == pytest.approx(found[0]["eval_perplexity"], rel=1e-6)


def test_perplexity_is_that_of_all_tokens_at_once(build_trainer):
    trainer = build_trainer(flat=True)
    batch = trainer.eval_dataset.build_batch([Item(row, FROZEN) for row in range(len(trainer.eval_dataset))])
    names = ("input_ids", "position_ids", "layout", "predicted")
    with torch.no_grad():
        logits = trainer.model.eval()(**{name: batch[name] for name in names}).logits
    loss = torch.nn.functional.cross_entropy(logits.double(), batch["labels"]).item()
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(loss, abs=1e-6)
    assert metrics["eval_perplexity"] == pytest.approx(np.exp(loss), rel=1e-6)


def test_evaluation_twice_is_one_number_and_leaves_everything_as_it_was(build_trainer):
    trainer = build_trainer(dropout=0.1)
    trainer.model.train()
    state = torch.get_rng_state()
    first = trainer.evaluate()["eval_loss"]
    assert torch.equal(torch.get_rng_state(), state)
    assert trainer.model.training and all(module.training for module in trainer.model.modules())
    assert all(parameter.grad is None for parameter in trainer.model.parameters())
    assert trainer.evaluate()["eval_loss"] == first
    trainer.model.eval()
    assert trainer.evaluate()["eval_loss"] == first and not trainer.model.training


def test_evaluation_runs_without_dropout_and_gradients(build_trainer):
    modes = []

    def watch(model, batch):
        modes.append((model.training, torch.is_grad_enabled()))
        return score_batch(model, batch)

    trainer = build_trainer(max_steps=2, eval_strategy="steps", eval_steps=1)
    trainer.score_batch = watch
    trainer.train()
    assert set(modes) == {(False, False)}


def test_evaluating_between_steps_changes_no_step(build_trainer):
    """Dropout draws, masks and order are those of a run that never evaluates."""
    losses = []
    for evaluated in ({"eval_strategy": "no"}, {"eval_strategy": "steps", "eval_steps": 1, "eval_on_start": True}):
        trainer = build_trainer(max_steps=4, logging_steps=1, **evaluated)
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses[0]) == 4 and losses[0] == losses[1]


def test_columns_come_back_in_the_order_of_the_rows(build_trainer):
    trainer = build_trainer(per_device_eval_batch_size=3)
    columns = trainer.score_dataset(trainer.get_eval_dataloader())
    assert columns["row"].tolist() == list(range(len(trainer.eval_dataset)))
    one_by_one = build_trainer(per_device_eval_batch_size=1)
    alone = one_by_one.score_dataset(one_by_one.get_eval_dataloader())
    np.testing.assert_allclose(columns["loss"], alone["loss"], atol=1e-5)


# What is logged, and refused.


def test_tokens_are_counted_without_padding(build_trainer):
    flat, padded = (build_trainer(kind).train_dataset.build_batch([Item(0, 0), Item(1, 0)]) for kind in (True, False))
    assert count_tokens(flat) == count_tokens(padded) == int(padded["attention_mask"].sum())


def test_tokens_per_second_is_logged(build_trainer):
    trainer = build_trainer(max_steps=2, logging_steps=1)
    trainer.train()
    speeds = [entry["tokens_per_second"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(speeds) == 2 and min(speeds) > 0


def test_the_hub_token_is_not_left_in_the_checkpoint(build_trainer, tmp_path):
    trainer = build_trainer(hub_token="hf_secret")
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "model.safetensors").is_file()
    assert not any(b"hf_secret" in path.read_bytes() for path in (tmp_path / "saved").iterdir())


class Poison(TrainerCallback):
    """Breaks a weight, or only the gradients, at a step."""

    def __init__(self, step, what):
        self.step, self.what = step, what

    def on_step_begin(self, args, state, control, model=None, **settings):
        bias = model.base_model.embeddings.LayerNorm.bias
        if state.global_step + 1 == self.step and self.what == "weight":
            bias.data[0] = float("nan")
        elif state.global_step + 1 == self.step:
            bias.register_hook(lambda gradient: gradient * float("inf"))


@pytest.mark.parametrize(
    ("what", "message"), [("weight", "the training loss is nan"), ("gradient", "the gradient norm is inf")]
)
def test_a_non_finite_step_stops_and_the_checkpoint_before_stands(
    mlm_words, tmp_path, monkeypatch, capsys, what, message
):
    monkeypatch.setattr(mlm_trainer, "StageTrainer", functools.partial(StageTrainer, callbacks=[Poison(3, what)]))
    words = mlm_words(tmp_path / "out", "--max_steps=6", "--save_strategy=steps", "--save_steps=2", "--eval_steps=100")
    assert run_door(adapt.main, words) == EXIT_FAILED
    lines = capsys.readouterr().err.strip().splitlines()
    errors = [line for line in lines if line.startswith("error:")]
    assert errors == [lines[-1]] and errors[0].startswith(f"error: step 3: {message}")
    assert Path(newest_checkpoint(tmp_path / "out", read_record(tmp_path / "out")["identity"])).name == "checkpoint-2"
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "out" / "checkpoint-2")
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_a_learning_rate_that_breaks_the_model_stops_the_run(mlm_words, tmp_path):
    words = mlm_words(tmp_path / "out", "--max_steps=5", "--learning_rate=1e30", "--eval_strategy=no")
    with pytest.raises(TrainingFailure, match="step 2: .*--learning_rate"):
        adapt.main(words)


def test_a_broken_model_is_not_evaluated_as_a_number(build_trainer):
    trainer = build_trainer()
    trainer.model.base_model.embeddings.LayerNorm.bias.data[0] = float("nan")
    with pytest.raises(TrainingFailure, match="step 0: the loss of an evaluation is NaN or infinite at rows 0, 1, "):
        trainer.evaluate()
