"""What the optimizer's options refuse, in which words, and what they tell of a run too short."""

import pytest

from fastclip.errors import UserError
from fastclip.training.options.optim import OptimConfig

NAN = float("nan")


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"opt": "sgd", "nesterov": True, "lookahead_k": 5, "lookahead_alpha": 0.8},
        {"opt": "sgd", "momentum": 0.0},
        {"lr_scheduler": "step", "lr_step_size": 51, "lr_gamma": 0.5},
        {"lr_scheduler": "multi-step", "lr_milestones": (100, 200)},
        {"lr_scheduler": "const-cooldown", "epochs_cooldown": 2, "lr_cooldown_end": 1e-4},
        {"skip_scheduler": True},
        {"skip_scheduler": True, "warmup": 0},
    ],
    ids=str,
)
def test_accepts(values):
    OptimConfig(**values).check()


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"lr": 0.0}, "--lr is 0.0, expected more than 0"),
        ({"lr": NAN}, "--lr is nan, expected a finite number"),
        ({"grad_clip_norm": float("inf")}, "--grad-clip-norm is inf, expected a finite number"),
        ({"warmup": -1}, "--warmup is -1, expected 0 or more"),
        ({"wd": -0.1}, "--wd is -0.1, expected 0 or more"),
        ({"beta2": 1.0}, "--beta2 is 1.0, expected 0 <= value < 1"),
        ({"lookahead_k": -5}, "--lookahead-k is -5, expected 0 or more"),
        (
            {"lookahead_k": 5, "lookahead_alpha": 0.0},
            "--lookahead-alpha is 0.0, expected 0 < value <= 1",
        ),
        (
            {"lookahead_alpha": 0.8},
            "--lookahead-alpha is 0.8, which has no use without --lookahead-k",
        ),
        (
            {"nesterov": True},
            "--nesterov is True, which --opt adamw has no use for: leave it out, or take sgd",
        ),
        (
            {"opt": "sgd", "beta2": 0.9},
            "--beta2 is 0.9, which --opt sgd has no use for: leave it out, or take adamw",
        ),
        (
            {"opt": "sgd", "momentum": 0.0, "nesterov": True},
            "--momentum is 0.0, expected more than 0 with --nesterov",
        ),
        (
            {"lr_milestones": (100, 200)},
            "--lr-milestones is 100 200, which --lr-scheduler cosine has no use for: leave it out, "
            "or take multi-step",
        ),
        (
            {"lr_gamma": 0.5, "lr_scheduler": "linear"},
            "--lr-gamma is 0.5, which --lr-scheduler linear has no use for: leave it out, or take "
            "step or multi-step",
        ),
        (
            {"lr_scheduler": "step"},
            "--lr-step-size is 0, expected more than --warmup 50 with --lr-scheduler step",
        ),
        (
            {"lr_scheduler": "multi-step"},
            "--lr-milestones is empty, expected rising steps after --warmup 50",
        ),
        (
            {"lr_scheduler": "multi-step", "lr_milestones": (300, 200)},
            "--lr-milestones is 300 200, expected rising steps after --warmup 50",
        ),
        (
            {"lr_scheduler": "multi-step", "lr_milestones": (50,)},
            "--lr-milestones is 50, expected rising steps after --warmup 50",
        ),
        (
            {"lr_scheduler": "const-cooldown"},
            "--epochs-cooldown is left out, expected 1 or more with --lr-scheduler const-cooldown",
        ),
        (
            {"lr_scheduler": "const-cooldown", "epochs_cooldown": 1, "lr_cooldown_end": 0.1},
            "--lr-cooldown-end is 0.1, expected at most --lr 0.003",
        ),
        (
            {"skip_scheduler": True, "lr_scheduler": "linear"},
            "--lr-scheduler is linear with --skip-scheduler, which keeps the rate at --lr: leave "
            "one of them out",
        ),
    ],
    ids=str,
)
def test_refuses(values, told):
    with pytest.raises(UserError) as caught:
        OptimConfig(**values).check()
    assert str(caught.value) == told


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"warmup": 20}, []),
        (
            {"warmup": 40},
            ["--warmup is 40, more than the run's 20 steps: the rate ends at 50% of --lr"],
        ),
        ({"warmup": 40, "skip_scheduler": True}, []),
        (
            {"warmup": 0, "lookahead_k": 30},
            ["--lookahead-k is 30, more than the run's 20 steps: it does nothing"],
        ),
        (
            {"warmup": 0, "lr_scheduler": "step", "lr_step_size": 20},
            ["--lr-step-size: the drop at step 20 comes after the run's 20 steps"],
        ),
        (
            {"warmup": 0, "lr_scheduler": "multi-step", "lr_milestones": (10, 30)},
            ["--lr-milestones: the drop at step 30 comes after the run's 20 steps"],
        ),
        (
            {"warmup": 6, "lr_scheduler": "const-cooldown", "epochs_cooldown": 3},
            [
                "--epochs-cooldown 3 is 15 steps, more than --warmup 6 leaves of the run's 20 "
                "steps: it is under way when the warm-up ends"
            ],
        ),
    ],
    ids=str,
)
def test_remarks_on_a_run_of_twenty_steps(values, told):
    assert OptimConfig(**values).remarks(20, 5) == told
