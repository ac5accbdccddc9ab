import math

import pytest
import torch
from toy import ToyTowers

from fastclip.training import optim
from fastclip.training.config import TrainConfig


def test_schedule_warms_up_and_falls_to_zero():
    cfg = TrainConfig(lr=2.0, warmup=4)
    rates = [optim.learning_rate(cfg, step, 24) for step in range(25)]
    assert rates[:4] == [0.5, 1.0, 1.5, 2.0]
    assert rates[4] == 2.0
    assert rates[14] == pytest.approx(1.0)
    assert rates[24] == 0.0
    constant = TrainConfig(lr=2.0, warmup=0, lr_scheduler="const")
    assert optim.learning_rate(constant, 23, 24) == 2.0


def test_decay_spares_gains_and_biases():
    model = ToyTowers()
    decay, plain = optim.parameter_groups(model, 0.2)
    assert decay["weight_decay"] == 0.2
    assert plain["weight_decay"] == 0.0
    assert all(p.ndim > 1 for p in decay["params"])
    norm = model.image[1]
    spared = {id(p) for p in plain["params"]}
    assert {id(norm.weight), id(norm.bias), id(model.image[0].bias)} <= spared
    assert len(decay["params"]) + len(plain["params"]) == len(list(model.parameters()))


def test_clip_coefficient_matches_torch():
    gradient = torch.full([4], 3.0)
    parameter = torch.nn.Parameter(torch.zeros(4))
    parameter.grad = gradient.clone()
    norm = float(torch.nn.utils.clip_grad_norm_([parameter], 1.5))
    factor = optim.clip_coefficient(norm, 1.5)
    torch.testing.assert_close(gradient * factor, parameter.grad)
    assert optim.clip_coefficient(1.0, 1.5) == 1.0
    assert optim.clip_coefficient(100.0, 0.0) == 1.0
    assert math.isfinite(factor)
