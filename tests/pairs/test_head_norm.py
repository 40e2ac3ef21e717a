"""The head norm: one batch over many processes, nothing left of it after the fold."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from pair_pkg.errors import InputError
from pair_pkg.modeling.layout import Layout
from pair_pkg.pairs.cross_encoder import bind_cross_encoder
from pair_pkg.pairs.head_norm import HeadNorm, add_head_norm, fold_head_norm

SIZES = dict(
    vocab_size=50,
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=24,
    pad_token_id=0,
    initializer_range=0.3,  # logits of size 1, beside which 1e-5 is small
)
CLASSIFIERS = {
    "bert": (BertForSequenceClassification, BertConfig, "classifier"),
    "roberta": (RobertaForSequenceClassification, RobertaConfig, "classifier.out_proj"),
    "modernbert": (ModernBertForSequenceClassification, ModernBertConfig, "classifier"),
}
INPUT_IDS = torch.randint(4, 50, (12, 7), generator=torch.Generator().manual_seed(0))

# One process of a job: its share of the rows through the norm, a weighted sum as its loss, and what came of it.
WORKER = """
import sys
import torch
import torch.distributed as dist
from pair_pkg.pairs.head_norm import HeadNorm

folder, rank, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
job = torch.load(f"{folder}/job.pt")
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
results = []
for counts in job["counts"]:
    norm = HeadNorm(job["rows"].shape[1])
    norm.load_state_dict(job["state"])
    rows, weights = (part.split(counts)[rank].clone() for part in (job["rows"], job["weights"]))
    rows.requires_grad_()
    outputs = norm(rows)
    (outputs * weights).sum().backward()
    results.append(
        {"outputs": outputs.detach(), "rows": rows.grad, "weight": norm.weight.grad, "bias": norm.bias.grad,
         "mean": norm.running_mean, "var": norm.running_var}
    )
torch.save(results, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


def build(name, **settings):
    model_class, config_class, _ = CLASSIFIERS[name]
    torch.manual_seed(0)
    return model_class(config_class(**SIZES, num_labels=3, **settings))


def trained_norm(model):
    """A model whose norm is not the identity: some training batches, and weights of its own."""
    norm = next(module for module in model.modules() if isinstance(module, HeadNorm))
    with torch.no_grad():
        norm.weight.uniform_(0.5, 2, generator=torch.Generator().manual_seed(1))
        norm.bias.uniform_(-1, 1, generator=torch.Generator().manual_seed(2))
        model.train()
        for _ in range(3):
            model(input_ids=INPUT_IDS)
    return model.eval()


def random_rows(count, width=5):
    generator = torch.Generator().manual_seed(3)
    return 3 + 2 * torch.randn(count, width, generator=generator), torch.randn(count, width, generator=generator)


def random_norm(width=5):
    torch.manual_seed(4)
    norm = HeadNorm(width)
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias)
    norm.running_mean.uniform_()
    norm.running_var.uniform_(0.5, 2)
    return norm


def outcome(norm, rows, weights):
    rows = rows.clone().requires_grad_()
    outputs = norm(rows)
    (outputs * weights).sum().backward()
    return {
        "outputs": outputs.detach(),
        "rows": rows.grad,
        "weight": norm.weight.grad,
        "bias": norm.bias.grad,
        "mean": norm.running_mean,
        "var": norm.running_var,
    }


def test_one_process_is_torchs_batch_norm():
    ours, theirs = random_norm(), nn.BatchNorm1d(5)
    theirs.load_state_dict(ours.state_dict(), strict=False)
    rows, weights = random_rows(9)
    expected, found = outcome(theirs, rows, weights), outcome(ours, rows, weights)
    for name, values in expected.items():
        torch.testing.assert_close(found[name], values, atol=1e-5, rtol=1e-5, msg=name)
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows))


def test_two_processes_are_one_on_the_whole_batch(tmp_path):
    norm = random_norm()
    rows, weights = random_rows(9)
    shares = [[5, 4], [9, 0]]  # the second process of the second step has a filler
    torch.save({"rows": rows, "weights": weights, "counts": shares, "state": norm.state_dict()}, tmp_path / "job.pt")
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), str(rank), "2"],
            cwd=Path(__file__).parents[2],
            stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]
    for worker in workers:
        error = worker.communicate(timeout=60)[1]
        assert worker.returncode == 0, error.decode()
    whole = outcome(norm, rows, weights)
    for parts in zip(*(torch.load(tmp_path / f"{rank}.pt") for rank in range(2))):
        for name in ("outputs", "rows"):
            torch.testing.assert_close(torch.cat([part[name] for part in parts]), whole[name], atol=1e-5, rtol=1e-5)
        for name in ("weight", "bias"):  # which DDP sums
            torch.testing.assert_close(parts[0][name] + parts[1][name], whole[name], atol=1e-5, rtol=1e-5)
        for name in ("mean", "var"):
            assert torch.equal(parts[0][name], parts[1][name])
            torch.testing.assert_close(parts[0][name], whole[name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("count", [0, 1])
def test_a_single_row_takes_the_running_statistics_and_leaves_them(count):
    norm = random_norm()
    before = {name: values.clone() for name, values in norm.state_dict().items()}
    rows, weights = random_rows(count)
    found = outcome(norm, rows, weights)
    assert torch.equal(found["mean"], before["running_mean"]) and torch.equal(found["var"], before["running_var"])
    assert all(torch.isfinite(values).all() for values in found.values())
    torch.testing.assert_close(found["outputs"], norm.eval()(rows).detach())


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_a_folded_model_is_plain_and_has_the_same_logits(name, tmp_path):
    model = trained_norm(add_head_norm(build(name)))
    expected = model(input_ids=INPUT_IDS).logits
    assert (expected - build(name).eval()(input_ids=INPUT_IDS).logits).abs().max() > 0.05  # the norm does something
    fold_head_norm(model)
    torch.testing.assert_close(model(input_ids=INPUT_IDS).logits, expected, atol=1e-5, rtol=1e-5)
    model.save_pretrained(tmp_path)
    again, info = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    torch.testing.assert_close(again.eval()(input_ids=INPUT_IDS).logits, expected, atol=1e-5, rtol=1e-5)
    assert again.config.classifier_dropout == 0


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_an_unfolded_checkpoint_continues(name, tmp_path):
    model = trained_norm(add_head_norm(build(name)))
    model.save_pretrained(tmp_path)
    again = add_head_norm(build(name)).eval()
    again.load_state_dict(load_file(tmp_path / "model.safetensors"))
    assert torch.equal(again(input_ids=INPUT_IDS).logits, model(input_ids=INPUT_IDS).logits)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_dropout_stands_before_the_norm_and_the_encoders_stays(name):
    settings = {} if name == "modernbert" else {"hidden_dropout_prob": 0.3}
    model = add_head_norm(build(name, classifier_dropout=0.3, **settings))
    dropouts = {path: module.p for path, module in model.named_modules() if isinstance(module, nn.Dropout)}
    head = {path: p for path, p in dropouts.items() if not path.startswith(model.base_model_prefix + ".")}
    assert set(head.values()) == {0.0}
    assert name == "modernbert" or 0.3 in dropouts.values()


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_flat_batches_go_through_the_norm(name):
    plain = {} if name == "modernbert" else {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    stock, model = (add_head_norm(build(name, **plain)).train() for _ in range(2))
    assert bind_cross_encoder(model)
    flat = {
        "input_ids": INPUT_IDS.flatten(),
        "position_ids": torch.arange(7).repeat(12),
        "token_type_ids": torch.zeros(84, dtype=torch.long),
        "layout": Layout([7] * 12),
        "wanted": torch.arange(0, 84, 7),
    }
    torch.testing.assert_close(model(**flat).logits, stock(input_ids=INPUT_IDS).logits, atol=1e-5, rtol=1e-5)


def test_a_model_without_a_linear_classifier_is_refused():
    with pytest.raises(InputError, match="--head_norm batch: no linear classifier is known in Linear"):
        add_head_norm(nn.Linear(2, 2))
