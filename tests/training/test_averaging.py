"""Averages of weights: by hand, in the place of the weights when they are evaluated and saved, and exact in resume."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pair_pkg.errors import InputError
from pair_pkg.modeling.adapters import Adapters
from pair_pkg.pairs.head_norm import HeadNorm
from pair_pkg.training.averaging import WeightAveraging, measure_norms
from pair_pkg.training.weights import TRAINING_WEIGHTS_NAME, ResultWeights


def walk(averaging, values, max_steps=None):
    """Give a one-weight model these values, one a step, and return the average's value behind each."""
    model, found = averaging.model, []
    for step, value in enumerate(values, 1):
        with torch.no_grad():
            model.weight.fill_(value)
        averaging.update(step, max_steps or len(values))
        with averaging.in_place(tuple):
            found.append(model.weight.item())
        assert model.weight.item() == value  # put back
    return found


@pytest.fixture
def one_weight():
    return nn.Linear(1, 1, bias=False)


def test_ema_by_hand(one_weight):
    """After n steps the decay is (1 + n) / (10 + n), until it reaches its own."""
    first = 2 / 11 * 8 + 9 / 11 * 4
    second = 0.2 * first + 0.8 * 2  # 3 / 12 is more than 0.2
    assert walk(WeightAveraging(one_weight, "ema", 0.2), [8.0, 4.0, 2.0]) == pytest.approx([8.0, first, second])


def test_a_decay_of_0_is_the_weights_themselves(one_weight):
    assert walk(WeightAveraging(one_weight, "ema", 0.0), [8.0, 4.0, 2.5]) == [8.0, 4.0, 2.5]


def test_swa_is_the_mean_of_the_last_quarter(one_weight):
    found = walk(WeightAveraging(one_weight, "swa", 0.9), [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 11.0])
    assert found == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 9.0]  # before step 7 there is no average


def test_what_is_kept_is_the_average_and_nothing_moves_after(one_weight):
    averaging = WeightAveraging(one_weight, "swa", 0.9)
    walk(averaging, [1.0, 3.0], max_steps=1)
    averaging.keep(tuple)
    averaging.keep(tuple)
    assert one_weight.weight.item() == 2.0
    with averaging.in_place(tuple):
        assert one_weight.weight.item() == 2.0
    assert one_weight.weight.item() == 2.0


def test_an_exception_puts_the_weights_back(one_weight):
    averaging = WeightAveraging(one_weight, "swa", 0.9)
    walk(averaging, [1.0, 3.0], max_steps=1)
    with pytest.raises(ValueError), averaging.in_place(tuple):
        raise ValueError
    assert one_weight.weight.item() == 3.0


def test_norms_get_the_statistics_of_all_rows():
    rows = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * 3 + 1
    norm, state = HeadNorm(4).train(), torch.get_rng_state()
    seen = []
    norm.register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    measure_norms(norm, lambda: (norm(part) for part in rows.split([20, 0, 30])))
    torch.testing.assert_close(norm.running_mean, rows.mean(0))
    torch.testing.assert_close(norm.running_var, rows.var(0))
    assert norm.training and not any(seen) and torch.equal(torch.get_rng_state(), state)


# In a run.


def averaged(model, kind="ema", decay=0.9, adapters=None):
    return {"weights": ResultWeights(model, WeightAveraging(model, kind, decay), adapters)}


def test_a_decay_of_0_is_the_plain_run_to_the_bit(build_model, build_trainer, weights_of, history_of):
    runs = []
    for aids in (lambda model: {}, lambda model: averaged(model, decay=0.0)):
        model = build_model(dropout=0.1)
        trainer = build_trainer(model, aids=aids(model), eval_strategy="steps", eval_steps=1)
        trainer.train()
        runs.append((weights_of(model), trainer.state.log_history))
    assert all(torch.equal(values, runs[1][0][name]) for name, values in runs[0][0].items())
    for plain, ours in zip(runs[0][1], runs[1][1], strict=True):
        for name in ("loss", "grad_norm", "eval_loss", "eval_average_precision"):
            assert plain.get(name) == ours.get(name)


@pytest.mark.parametrize("kind", ["ema", "swa"])
def test_training_is_that_of_a_plain_run_and_the_result_the_average(
    build_model, build_trainer, weights_of, history_of, kind
):
    plain_model, path = build_model(dropout=0.1), []
    plain = build_trainer(plain_model, max_steps=8)
    plain.weights.on_step_end = lambda *arguments, **settings: path.append(weights_of(plain_model))
    plain.train()
    model = build_model(dropout=0.1)
    trainer = build_trainer(model, max_steps=8, aids=averaged(model, kind), eval_strategy="steps", eval_steps=2)
    trainer.train()
    assert np.array_equal(history_of(plain), history_of(trainer))
    for name, values in weights_of(model).items():
        steps = [weights[name] for weights in path]
        wanted = steps[0]
        for count, step in enumerate(steps[1:], 1):
            decay = min(0.9, (1 + count) / (10 + count))
            wanted = decay * wanted + (1 - decay) * step
        wanted = torch.stack(steps[6:]).mean(0) if kind == "swa" else wanted
        torch.testing.assert_close(values, wanted, atol=1e-6, rtol=0, msg=name)


def test_what_is_evaluated_is_what_the_checkpoint_holds(build_model, build_trainer, tmp_path):
    model = build_model()
    trainer = build_trainer(
        model,
        aids=averaged(model),
        max_steps=4,
        eval_strategy="steps",
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
    )
    trainer.train()
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    for step, loss in zip((2, 4), evaluated):
        saved = build_model()
        saved.load_state_dict(load_file(tmp_path / "out" / f"checkpoint-{step}" / "model.safetensors"))
        assert build_trainer(saved).evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-7)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(evaluated[-1], abs=1e-7)


def test_an_average_under_a_head_norm_has_its_own_statistics(build_model, build_trainer):
    """The running ones belong to the last weights: the saved model's must be those of its rows."""
    model = build_model(head_norm=True)
    trainer = build_trainer(model, aids=averaged(model), max_steps=6, learning_rate=1e-2)
    trainer.train()
    rows = []
    handle = model.classifier.norm.register_forward_pre_hook(lambda module, inputs: rows.append(inputs[0].detach()))
    model.eval()
    with torch.no_grad():
        list(trainer._forwards())
    handle.remove()
    rows = torch.cat(rows)
    assert len(rows) == len(trainer.train_dataset)
    torch.testing.assert_close(model.classifier.norm.running_mean, rows.mean(0), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.classifier.norm.running_var, rows.var(0), atol=1e-5, rtol=1e-5)


def test_the_best_checkpoint_is_loaded_as_it_was_evaluated(build_model, build_trainer, weights_of, tmp_path):
    model = build_model()
    trainer = build_trainer(
        model, aids=averaged(model), max_steps=4, learning_rate=0.05, eval_strategy="steps", eval_steps=1,
        save_strategy="steps", save_steps=1, load_best_model_at_end=True, metric_for_best_model="loss",
    )  # fmt: skip
    trainer.train()
    best = load_file(Path(trainer.state.best_model_checkpoint, "model.safetensors"))
    assert all(torch.equal(values, best[name]) for name, values in weights_of(model).items())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.state.best_metric, abs=1e-6)


@pytest.mark.parametrize("kind", ["ema", "swa", "lora", "lora and ema", "ema, head norm"])
def test_a_continued_run_is_the_run_that_was_not_cut(
    build_model, build_trainer, weights_of, history_of, tmp_path, kind
):
    def build():
        model = build_model(dropout=0.1, head_norm="norm" in kind)
        torch.manual_seed(1)
        adapters = Adapters(model, rank=2, alpha=4, dropout=0.1) if "lora" in kind else None
        averaging = WeightAveraging(model, "swa" if kind == "swa" else "ema", 0.9) if kind != "lora" else None
        return build_trainer(
            model, aids={"weights": ResultWeights(model, averaging, adapters)}, max_steps=8,
            eval_strategy="steps", eval_steps=2, save_strategy="steps", save_steps=1,
        )  # fmt: skip

    whole = build()
    whole.train()
    result, wanted = weights_of(whole.model), history_of(whole)
    assert not any("lora" in name for name in result)
    for step in (3, 6, 7):
        continued = build()
        continued.train(resume_from_checkpoint=str(tmp_path / "out" / f"checkpoint-{step}"))
        assert np.array_equal(history_of(continued), wanted)
        found = weights_of(continued.model)
        assert list(found) == list(result)
        assert all(torch.equal(values, result[name]) for name, values in found.items())


def test_a_checkpoint_without_the_weights_that_learn_is_refused(build_model, build_trainer, tmp_path):
    model = build_model()
    trainer = build_trainer(model, aids=averaged(model), save_strategy="steps", save_steps=2)
    trainer.train()
    (tmp_path / "out" / "checkpoint-2" / TRAINING_WEIGHTS_NAME).unlink()
    with pytest.raises(InputError, match="training_weights.pt: is missing"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "out" / "checkpoint-2"))


def test_a_plain_run_writes_no_second_copy(build_model, build_trainer, tmp_path):
    trainer = build_trainer(build_model(), save_strategy="steps", save_steps=2)
    trainer.train()
    assert not (tmp_path / "out" / "checkpoint-2" / TRAINING_WEIGHTS_NAME).exists()


def test_adapters_are_saved_merged_and_trained_apart(build_model, build_trainer, weights_of, tmp_path):
    model = build_model()
    before = weights_of(model)
    adapters = Adapters(model, rank=2, alpha=4, dropout=0.0)
    trainer = build_trainer(
        model, aids={"weights": ResultWeights(model, None, adapters)}, max_steps=4, save_strategy="steps", save_steps=2,
        eval_strategy="steps", eval_steps=2, learning_rate=1e-2,
    )  # fmt: skip
    trainer.train()
    losses = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    for step, loss in zip((2, 4), losses):
        plain = build_model()
        plain.load_state_dict(load_file(tmp_path / "out" / f"checkpoint-{step}" / "model.safetensors"))
        assert build_trainer(plain).evaluate()["eval_loss"] == pytest.approx(loss, abs=1e-5)
    after = weights_of(model)
    assert list(after) == list(before)
    for name, values in after.items():
        is_adapted = "layer." in name and name.endswith("weight") and "LayerNorm" not in name
        learns = is_adapted or "pooler" in name or "classifier" in name
        assert torch.equal(values, before[name]) != learns, name
