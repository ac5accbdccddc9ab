"""Learning rates by step, against today's rule, torch's schedulers and open_clip's."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from fastclip.training.options.optim import OptimConfig
from fastclip.training.schedules import Schedule

TOTAL, WARMUP, EPOCH = 40, 7, 5
SCHEDULERS = {
    "cosine": {},
    "linear": {},
    "const": {},
    "step": {"lr_step_size": 9, "lr_gamma": 0.3},
    "multi-step": {"lr_milestones": (8, 20, 31), "lr_gamma": 0.3},
    "const-cooldown": {"epochs_cooldown": 3, "lr_cooldown_power": 1.7, "lr_cooldown_end": 1e-4},
}


def schedule(name: str, **changes) -> Schedule:
    values = {"lr": 3e-3, "warmup": WARMUP, "lr_scheduler": name, **SCHEDULERS[name]}
    options = OptimConfig(**(values | changes))
    options.check()
    return Schedule(options, TOTAL, EPOCH)


@pytest.mark.parametrize("warmup", [0, 1, WARMUP, TOTAL, 2 * TOTAL])
@pytest.mark.parametrize("name", ["cosine", "const"])
def test_cosine_and_const_have_the_bits_they_had(name, warmup):
    lr = 3e-3
    rates = schedule(name, lr=lr, warmup=warmup)
    for step in range(TOTAL + 1):
        if step < warmup:
            wanted = lr * (step + 1) / warmup
        elif name == "const":
            wanted = lr
        else:
            progress = (step - warmup) / max(1, TOTAL - warmup)
            wanted = 0.5 * lr * (1 + math.cos(math.pi * min(1.0, progress)))
        assert rates.rate(lr, step) == wanted


@pytest.mark.parametrize("name", ["cosine", "const", "const-cooldown"])
def test_rates_are_those_of_open_clip(name):
    open_clip = pytest.importorskip("open_clip_train.scheduler")
    rates = schedule(name)
    options = rates.options
    weight = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([weight], lr=options.lr)
    arguments = (optimizer, options.lr, WARMUP, TOTAL)
    if name == "cosine":
        adjust = open_clip.cosine_lr(*arguments)
    elif name == "const":
        adjust = open_clip.const_lr(*arguments)
    else:
        cooldown = options.epochs_cooldown * EPOCH, options.lr_cooldown_power
        adjust = open_clip.const_lr_cooldown(*arguments, *cooldown, options.lr_cooldown_end)
    for step in range(TOTAL):
        assert rates.rate(options.lr, step) == pytest.approx(adjust(step), rel=1e-14)


@pytest.mark.parametrize("name", ["step", "multi-step"])
def test_drops_are_those_of_torch(name):
    rates = schedule(name, warmup=0)
    options = rates.options
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options.lr)
    if name == "step":
        torchs = lr_scheduler.StepLR(optimizer, options.lr_step_size, options.lr_gamma)
    else:
        milestones = list(options.lr_milestones)
        torchs = lr_scheduler.MultiStepLR(optimizer, milestones, options.lr_gamma)
    for step in range(TOTAL):
        assert rates.rate(options.lr, step) == pytest.approx(torchs.get_last_lr()[0], rel=1e-14)
        optimizer.step()
        torchs.step()


def test_drops_count_the_steps_of_the_warmup():
    rates = schedule("step")
    factors = [rates.factor(step) for step in range(TOTAL)]
    assert factors[WARMUP - 1 : 9] == [1.0, 1.0, 1.0]
    assert factors[9:18] == [0.3] * 9
    assert factors[18] == pytest.approx(0.09)


def test_linear_falls_by_equal_steps_to_zero_at_the_end():
    rates = schedule("linear")
    factors = [rates.factor(step) for step in range(TOTAL + 3)]
    for step in range(WARMUP, TOTAL):
        assert factors[step] == pytest.approx((TOTAL - step) / (TOTAL - WARMUP))
    assert factors[TOTAL:] == [0.0, 0.0, 0.0]


def test_the_cooldown_ends_in_proportion_to_the_base_rate():
    rates = schedule("const-cooldown")
    assert rates.rate(3e-3, TOTAL) == 1e-4
    assert rates.rate(0.3, TOTAL) == pytest.approx(1e-2)
    assert rates.rate(0.3, TOTAL - 3 * EPOCH) == 0.3


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_schedule_warms_up_and_scales_with_the_base_rate(name):
    rates = schedule(name)
    assert [rates.rate(7.0, step) for step in range(WARMUP)] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    for step in range(TOTAL):
        assert 0 < rates.factor(step) <= 1
        assert rates.rate(0.2, step) == pytest.approx(0.2 * rates.factor(step), rel=1e-14)


def test_a_skipped_schedule_keeps_the_rate():
    options = OptimConfig(skip_scheduler=True)
    options.check()
    rates = Schedule(options, TOTAL, EPOCH)
    assert {rates.rate(0.2, step) for step in range(TOTAL)} == {0.2}
