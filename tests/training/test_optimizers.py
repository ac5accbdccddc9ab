"""Optimizers, parameter groups and Lookahead in one process, in fp64 against textbook loops."""

import io
import math

import optimizer_textbook
import pytest
import torch
from torch import Tensor, nn

from fastclip.training.gradients import average_gradients, clip_coefficient
from fastclip.training.lookahead import Lookahead
from fastclip.training.optimizers import (
    build_optimizer,
    keep_settings,
    set_learning_rate,
    split_decay,
    without_initial_step,
)
from fastclip.training.options.optim import OptimConfig
from fastclip.training.schedules import Schedule

STEPS, SAVED_AT = 12, 7
RECIPES = {
    "adamw": {"opt": "adamw", "beta2": 0.9},
    "sgd": {"opt": "sgd", "momentum": 0.0},
    "momentum": {"opt": "sgd"},
    "nesterov": {"opt": "sgd", "nesterov": True},
}
LOOKAHEAD = {
    "no lookahead": {},
    "half": {"lookahead_k": 5},
    "most": {"lookahead_k": 5, "lookahead_alpha": 0.8},
}
HEAD_RATE, HEAD_DECAY = 0.2, 0.3


def recipe(name: str, **changes) -> OptimConfig:
    values = {"lr": 0.05, "wd": 0.1, "warmup": 3, "lr_scheduler": "linear", **RECIPES[name]}
    options = OptimConfig(**(values | changes))
    options.check()
    return options


class Part(nn.Module):
    def __init__(self, rows: int, columns: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(rows, columns, dtype=torch.float64))
        self.gain = nn.Parameter(torch.randn(columns, dtype=torch.float64))


def network() -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"body": Part(3, 5), "head": Part(2, 7)})


def groups(net: nn.ModuleDict, options: OptimConfig) -> list[dict]:
    body = split_decay(net["body"].named_parameters(), options.wd, name="body")
    head = split_decay(net["head"].named_parameters(), HEAD_DECAY, lr=HEAD_RATE, name="head")
    return body + head


def gradient(name: str, weight: Tensor, step: int) -> Tensor:
    """Of a bowl of other curvatures along each axis, whose middle wanders from step to step."""
    curvature = torch.linspace(0.5, 2, weight.numel(), dtype=weight.dtype).view_as(weight)
    return curvature * (weight - math.sin(len(name) + step))


def expected(net: nn.Module, options: OptimConfig, gradient=gradient) -> list[dict[str, Tensor]]:
    schedule = Schedule(options, STEPS, STEPS)

    def rate(name: str, step: int) -> float:
        return schedule.rate(options.lr if name.startswith("body") else HEAD_RATE, step)

    decay = {"body.weight": options.wd, "body.gain": 0.0}
    decay |= {"head.weight": HEAD_DECAY, "head.gain": 0.0}
    start = {name: weight.detach() for name, weight in net.named_parameters()}
    return optimizer_textbook.train(start, gradient, options, decay=decay, rate=rate, steps=STEPS)


def take_steps(net: nn.Module, optimizer, options, steps: range) -> list[dict[str, Tensor]]:
    """All weights after each of ``steps``."""
    history = []
    for step in steps:
        set_learning_rate(optimizer, Schedule(options, STEPS, STEPS), step)
        for name, weight in net.named_parameters():
            weight.grad = gradient(name, weight.detach(), step)
        optimizer.step()
        history.append({name: w.detach().clone() for name, w in net.named_parameters()})
    return history


def assert_same(found: list[dict], wanted: list[dict]) -> None:
    # A dozen steps of some ten roundings of numbers of size 1, each 1.1e-16.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13)


@pytest.mark.parametrize("lookahead", LOOKAHEAD)
@pytest.mark.parametrize("name", RECIPES)
def test_steps_are_the_textbooks(name, lookahead):
    options = recipe(name, **LOOKAHEAD[lookahead])
    net = network()
    wanted = expected(net, options)
    optimizer = build_optimizer(groups(net, options), options)
    assert_same(take_steps(net, optimizer, options, range(STEPS)), wanted)


@pytest.mark.parametrize("lookahead", LOOKAHEAD)
@pytest.mark.parametrize("name", RECIPES)
def test_a_loaded_optimizer_goes_on_to_the_same_bits(name, lookahead):
    options = recipe(name, **LOOKAHEAD[lookahead])
    net = network()
    optimizer = build_optimizer(groups(net, options), options)
    take_steps(net, optimizer, options, range(SAVED_AT))
    saved = io.BytesIO()
    torch.save([net.state_dict(), optimizer.state_dict()], saved)
    saved.seek(0)
    wanted = take_steps(net, optimizer, options, range(SAVED_AT, STEPS))

    weights, state = torch.load(saved, weights_only=True)
    net = network()
    net.load_state_dict(weights)
    optimizer = build_optimizer(groups(net, options), options)
    optimizer.load_state_dict(state)
    found = take_steps(net, optimizer, options, range(SAVED_AT, STEPS))
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)


@pytest.mark.parametrize("name", ["adamw", "nesterov"])
def test_lookahead_that_goes_the_whole_way_is_its_optimizer(name):
    found = []
    for changes in ({}, {"lookahead_k": 1, "lookahead_alpha": 1.0}):
        options, net = recipe(name, **changes), network()
        optimizer = build_optimizer(groups(net, options), options)
        found.append(take_steps(net, optimizer, options, range(STEPS)))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_a_weight_without_gradients_joins_lookahead_late():
    def late(name: str, weight: Tensor, step: int) -> Tensor:
        waits = name == "head.gain" and step < 3 or name == "head.weight" and step < 7
        return torch.zeros_like(weight) if waits else gradient(name, weight, step)

    # Without decay a gradient of zero and none are the same to momentum.
    options = recipe("momentum", wd=0.0, lookahead_k=5, lr_scheduler="const", warmup=0)
    net = network()
    optimizer = build_optimizer([{"params": list(net.parameters())}], options)
    start = {name: weight.detach() for name, weight in net.named_parameters()}
    wanted = optimizer_textbook.train(
        start,
        late,
        options,
        decay=dict.fromkeys(start, 0.0),
        rate=lambda name, step: options.lr,
        steps=STEPS,
    )
    for step in range(STEPS):
        for name, weight in net.named_parameters():
            found = late(name, weight.detach(), step)
            weight.grad = found if found.any() else None
        optimizer.step()
        assert_same([{n: w.detach() for n, w in net.named_parameters()}], [wanted[step]])


def test_lookahead_refuses_what_is_no_lookahead():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(2))])
    with pytest.raises(ValueError, match="k is 0, expected 1 or more"):
        Lookahead(optimizer, 0)
    with pytest.raises(ValueError, match="alpha is 1.5, expected 0 < alpha <= 1"):
        Lookahead(optimizer, 5, 1.5)


def test_lookahead_evaluates_a_closure_once():
    weight = nn.Parameter(torch.ones(2))
    optimizer = Lookahead(torch.optim.SGD([weight], lr=0.5), 1, 0.5)
    calls = []

    def closure():
        calls.append(1)
        optimizer.zero_grad()
        loss = weight.sum()
        loss.backward()
        return loss

    assert optimizer.step(closure).item() == 2.0
    assert len(calls) == 1
    assert weight.tolist() == [0.75, 0.75]


@pytest.mark.parametrize("changes", LOOKAHEAD.values(), ids=list(LOOKAHEAD))
@pytest.mark.parametrize("name", RECIPES)
def test_a_step_that_is_not_taken_leaves_nothing_behind(name, changes):
    options = recipe(name, **changes)
    net = network()
    before = [weight.detach().clone() for weight in net.parameters()]
    optimizer = build_optimizer(groups(net, options), options)
    with without_initial_step(optimizer):
        for weight in net.parameters():
            weight.grad = torch.ones_like(weight)
        optimizer.step()
    assert not optimizer.state
    assert all(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))
    optimizer.step()
    assert not any(torch.equal(a, b) for a, b in zip(before, net.parameters(), strict=True))


def test_settings_are_the_checkpoints_unless_kept():
    """A checkpoint of another rate, decay and momentum."""
    net = network()
    saved = recipe("momentum", lr=0.5, wd=0.0, momentum=0.5)
    state = build_optimizer(groups(net, saved), saved).state_dict()
    options = recipe("momentum", lookahead_k=5)
    optimizer = build_optimizer(groups(net, options), options)
    with keep_settings(optimizer):
        optimizer.load_state_dict(state)
    group = optimizer.param_groups[0]
    assert (group["initial_lr"], group["weight_decay"], group["momentum"]) == (0.05, 0.1, 0.9)
    optimizer.load_state_dict(state)
    group = optimizer.param_groups[0]
    assert (group["initial_lr"], group["weight_decay"], group["momentum"]) == (0.5, 0.0, 0.5)


def test_decay_spares_gains_biases_and_frozen_weights():
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv2d(1, 2, 3))
    net[2].weight.requires_grad_(False)
    decayed, plain = split_decay(net.named_parameters(), 0.2, lr=0.5, name="tower")
    assert (decayed["weight_decay"], decayed["lr"], decayed["name"]) == (0.2, 0.5, "tower")
    assert (plain["weight_decay"], plain["lr"]) == (0.0, 0.5)
    assert plain["name"] == "tower without decay"
    assert [id(p) for p in decayed["params"]] == [id(net[0].weight)]
    spared = [net[0].bias, net[1].weight, net[1].bias, net[2].bias]
    assert [id(p) for p in plain["params"]] == [id(p) for p in spared]
    assert split_decay([], 0.2) == []


def test_decay_can_be_said_by_name():
    net = network()
    decayed, plain = split_decay(
        net.named_parameters(), 0.2, decays=lambda name, parameter: name.endswith("gain")
    )
    assert [p.ndim for p in decayed["params"]] == [1, 1]
    assert [p.ndim for p in plain["params"]] == [2, 2]
    assert "lr" not in decayed


def test_groups_have_the_runs_rate_and_decay_unless_they_say_otherwise():
    options = recipe("adamw")
    first, second = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    given = [{"params": [first]}, {"params": [second], "lr": 0.2, "weight_decay": 0.0}]
    optimizer = build_optimizer(given, options)
    settings = [(g["initial_lr"], g["weight_decay"]) for g in optimizer.param_groups]
    assert settings == [(0.05, 0.1), (0.2, 0.0)]
    assert given[0].keys() == {"params"}
    set_learning_rate(optimizer, Schedule(options, STEPS, STEPS), 0)
    assert [g["lr"] for g in optimizer.param_groups] == [0.05 * 1 / 3, 0.2 * 1 / 3]


def test_clip_coefficient_matches_torch():
    gradient = torch.full([4], 3.0)
    parameter = nn.Parameter(torch.zeros(4))
    parameter.grad = gradient.clone()
    norm = float(nn.utils.clip_grad_norm_([parameter], 1.5))
    torch.testing.assert_close(gradient * clip_coefficient(norm, 1.5), parameter.grad)
    assert clip_coefficient(1.0, 1.5) == 1.0
    assert clip_coefficient(100.0, 0.0) == 1.0
    assert clip_coefficient(None, 1.5) == 1.0


def test_a_module_without_gradients_has_nothing_to_average():
    average_gradients(nn.Linear(2, 2), world_size=2)
