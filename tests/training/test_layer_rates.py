"""Layer-wise rates: every weight in one group, at its depth's rate, with the Trainer's own weight decay."""

import functools

import numpy as np
import pytest
import torch

from pair_pkg.modeling.adapters import Adapters
from pair_pkg.modeling.layers import freeze_layers, parameter_depths
from pair_pkg.training.layer_rates import describe_rates, split_by_depth


def depths_of(model):
    depths = parameter_depths(model)
    return {parameter: depths[name] for name, parameter in model.named_parameters()}


def aid(model, decay):
    return {"divide_groups": functools.partial(split_by_depth, depth_of=depths_of(model), decay=decay)}


def test_groups_are_divided_by_depth_head_first():
    head, layer, embedding = (torch.nn.Parameter(torch.zeros(1)) for _ in range(3))
    depth_of = {embedding: 0, layer: 1, head: 2}
    groups = [
        {"params": [embedding, layer, head], "lr": 0.8, "weight_decay": 0.1},
        {"params": [], "lr": 0.8, "weight_decay": 0.0},
    ]
    divided = split_by_depth(groups, depth_of, 0.5)
    assert [(group["lr"], group["weight_decay"]) for group in divided] == [(0.8, 0.1), (0.4, 0.1), (0.2, 0.1)]
    assert [group["params"] for group in divided] == [[head], [layer], [embedding]]
    assert describe_rates(divided, depth_of) == "head 0.8, layer 1 0.4, embeddings 0.2"


@pytest.mark.parametrize("name", ["bert", "roberta", "modernbert"])
def test_every_weight_has_its_rate_and_the_trainers_decay(build_model, build_trainer, name):
    plain = build_trainer(build_model(name), weight_decay=0.1).create_optimizer()
    decayed = {id(parameter) for parameter in plain.param_groups[0]["params"]}
    plain_count = [len(group["params"]) for group in plain.param_groups]

    model = build_model(name)
    trainer = build_trainer(model, weight_decay=0.1, aids=aid(model, 0.5))
    optimizer = trainer.create_optimizer()
    assert trainer.create_optimizer() is optimizer and len(optimizer.param_groups) <= 10  # nothing is divided twice
    depths, names = parameter_depths(model), {parameter: name for name, parameter in model.named_parameters()}
    placed = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(placed) == len(set(placed)) == len(names)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["lr"] == pytest.approx(1e-3 * 0.5 ** (4 - depths[names[parameter]])), names[parameter]
    for decay, count in zip((0.1, 0.0), plain_count):
        assert sum(len(group["params"]) for group in optimizer.param_groups if group["weight_decay"] == decay) == count
    no_decay = {names[p] for group in optimizer.param_groups if group["weight_decay"] == 0.0 for p in group["params"]}
    assert all("bias" in name or "norm" in name.lower() for name in no_decay)
    assert len(decayed) == plain_count[0]


def test_decay_1_is_the_plain_run_to_the_bit_and_a_smaller_one_is_not(
    build_model, build_trainer, weights_of, history_of
):
    runs = []
    for decay in (None, 1.0, 0.5):
        model = build_model(dropout=0.1)
        trainer = build_trainer(model, weight_decay=0.1, aids={} if decay is None else aid(model, decay))
        trainer.train()
        runs.append((weights_of(model), history_of(trainer)))
    assert np.array_equal(runs[0][1], runs[1][1])
    assert all(torch.equal(values, runs[1][0][name]) for name, values in runs[0][0].items())
    assert any((values - runs[2][0][name]).abs().max() > 1e-4 for name, values in runs[0][0].items())


def test_the_logged_rate_is_that_of_the_head(build_model, build_trainer):
    model = build_model()
    trainer = build_trainer(model, aids=aid(model, 0.5), warmup_steps=0)
    trainer.train()
    assert trainer.state.log_history[0]["learning_rate"] == pytest.approx(1e-3)


def test_frozen_layers_and_adapters_have_no_group_and_their_layer_s_rate(build_model, build_trainer):
    model = build_model()
    freeze_layers(model, 1)
    optimizer = build_trainer(model, aids=aid(model, 0.5)).create_optimizer()
    assert sorted({group["lr"] for group in optimizer.param_groups}) == [0.00025, 0.0005, 0.001]

    model = build_model()
    Adapters(model, rank=2, alpha=4, dropout=0.0)
    optimizer = build_trainer(model, aids=aid(model, 0.5)).create_optimizer()
    rates = {parameter: group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    layer = model.bert.encoder.layer[0].attention.self.query
    assert rates[layer.lora_A["default"].weight] == 0.000125 and layer.base_layer.weight not in rates


def test_8_pairs_at_once_are_2_accumulated_4_times(build_model, build_trainer, weights_of):
    runs = []
    for size in (8, 2):
        model = build_model()
        trainer = build_trainer(
            model, per_device_train_batch_size=size, gradient_accumulation_steps=8 // size, optim="sgd",
            learning_rate=0.1, aids=aid(model, 0.7),
        )  # fmt: skip
        trainer.train()
        runs.append(weights_of(model))
    for name, values in runs[0].items():
        torch.testing.assert_close(values, runs[1][name], atol=1e-5, rtol=0, msg=name)
