"""Options of the optimizer and of its learning rate."""

import math
from dataclasses import dataclass, fields
from typing import Any, Literal

from fastclip.errors import UserError


@dataclass(kw_only=True)
class OptimConfig:
    """How weights are updated: optimizer, Lookahead, schedule of the learning rate, clipping."""

    opt: Literal["adamw", "sgd"] = "adamw"
    """Optimizer: AdamW, or SGD with momentum."""
    lr: float = 3e-3
    """Peak learning rate, where the objective gives a part of the model none of its own."""
    beta1: float = 0.9
    """AdamW's beta1."""
    beta2: float = 0.98
    """AdamW's beta2."""
    eps: float = 1e-6
    """AdamW's epsilon."""
    momentum: float = 0.9
    """SGD's momentum; 0 is plain SGD."""
    nesterov: bool = False
    """SGD with Nesterov's momentum."""
    wd: float = 0.1
    """Weight decay: decoupled with AdamW, added to the gradient with SGD. Gains, biases and the
    loss's own scalars do not decay; with VirTex's objectives most of them do, as in VirTex."""
    lookahead_k: int = 0
    """Lookahead: steps between two meetings of the weights with their slow copy; 0 turns it off."""
    lookahead_alpha: float = 0.5
    """Lookahead: where they meet, from 0 (at the slow weights) to 1 (at the fast ones)."""

    lr_scheduler: Literal["cosine", "linear", "step", "multi-step", "const", "const-cooldown"] = (
        "cosine"
    )
    """Schedule after the warm-up: down to 0 along a cosine or a line, down by --lr-gamma every
    --lr-step-size steps or at --lr-milestones, constant, or constant with a cooldown at the end."""
    skip_scheduler: bool = False
    """Keep the rate at --lr from the first step on: no warm-up, no schedule."""
    warmup: int = 50
    """Steps of linear warm-up."""
    lr_step_size: int = 0
    """Steps between two drops of ``--lr-scheduler step``; those of the warm-up count."""
    lr_milestones: tuple[int, ...] = ()
    """Steps of the drops of ``--lr-scheduler multi-step``; those of the warm-up count."""
    lr_gamma: float = 0.1
    """Factor of a drop, with ``step`` and ``multi-step``."""
    epochs_cooldown: int | None = None
    """Epochs of cooldown at the end of ``--lr-scheduler const-cooldown``."""
    lr_cooldown_power: float = 1.0
    """Power of the cooldown's polynomial; 1 is a line."""
    lr_cooldown_end: float = 0.0
    """Rate at the end of the cooldown where --lr is the peak; other rates end in proportion."""
    grad_clip_norm: float = 0.0
    """Largest gradient norm of the towers, the logit scale shrinking with them; 0 clips nothing."""

    def check(self) -> None:
        """Raise :class:`UserError` for a value that no run can use or that would be ignored."""
        self._check_ranges()
        self._check_use()
        self._check_schedule()

    def _check_ranges(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                raise _refused(field.name, value, "a finite number")
        for name in ("lr", "eps", "lr_cooldown_power"):
            if not getattr(self, name) > 0:
                raise _refused(name, getattr(self, name), "more than 0")
        whole = ("lookahead_k", "warmup", "lr_step_size")
        for name in ("wd", "lr_cooldown_end", "grad_clip_norm", *whole):
            if not getattr(self, name) >= 0:
                raise _refused(name, getattr(self, name), "0 or more")
        for name in ("beta1", "beta2", "momentum"):
            if not 0 <= getattr(self, name) < 1:
                raise _refused(name, getattr(self, name), "0 <= value < 1")
        for name in ("lookahead_alpha", "lr_gamma"):
            if not 0 < getattr(self, name) <= 1:
                raise _refused(name, getattr(self, name), "0 < value <= 1")
        if self.nesterov and not self.momentum:
            raise _refused("momentum", self.momentum, "more than 0 with --nesterov")
        if self.lr_cooldown_end > self.lr:
            raise _refused("lr_cooldown_end", self.lr_cooldown_end, f"at most --lr {self.lr}")

    def _check_use(self) -> None:
        """Refuse what the chosen optimizer or schedule would ignore."""
        for name, (chooser, choices) in _ONLY_WITH.items():
            choice = getattr(self, chooser)
            if choice not in choices and self._is_set(name):
                raise UserError(
                    f"{_said(name, getattr(self, name))}, which --{_flag(chooser)} {choice} has no "
                    f"use for: leave it out, or take {' or '.join(choices)}"
                )
        if not self.lookahead_k and self._is_set("lookahead_alpha"):
            raise UserError(
                f"--lookahead-alpha is {self.lookahead_alpha}, which has no use without "
                "--lookahead-k"
            )
        for name in ("lr_scheduler", "warmup"):
            value = getattr(self, name)
            if self.skip_scheduler and value and self._is_set(name):
                raise UserError(
                    f"{_said(name, value)} with --skip-scheduler, which keeps the rate at --lr: "
                    "leave one of them out"
                )

    def _check_schedule(self) -> None:
        if self.lr_scheduler == "step" and self.lr_step_size <= self.warmup:
            expected = f"more than --warmup {self.warmup} with --lr-scheduler step"
            raise _refused("lr_step_size", self.lr_step_size, expected)
        if self.lr_scheduler == "multi-step":
            bounds = (self.warmup, *self.lr_milestones)
            rising = all(a < b for a, b in zip(bounds, self.lr_milestones, strict=False))
            if not self.lr_milestones or not rising:
                expected = f"rising steps after --warmup {self.warmup}"
                raise _refused("lr_milestones", self.lr_milestones, expected)
        if self.lr_scheduler == "const-cooldown" and not (self.epochs_cooldown or 0) > 0:
            expected = "1 or more with --lr-scheduler const-cooldown"
            raise _refused("epochs_cooldown", self.epochs_cooldown, expected)

    def _is_set(self, name: str) -> bool:
        return getattr(self, name) != type(self).__dataclass_fields__[name].default

    def remarks(self, total_steps: int, steps_per_epoch: int) -> list[str]:
        """What of these options cannot do what its name says in a run of ``total_steps``."""
        run = f"the run's {total_steps} steps"
        told = []
        if self.lookahead_k > total_steps:
            told.append(f"--lookahead-k is {self.lookahead_k}, more than {run}: it does nothing")
        if self.skip_scheduler:
            return told
        if self.warmup > total_steps:
            peak = total_steps / self.warmup
            told.append(
                f"--warmup is {self.warmup}, more than {run}: the rate ends at {peak:.0%} of --lr"
            )
        drops = {"step": (self.lr_step_size,), "multi-step": self.lr_milestones}
        for step in drops.get(self.lr_scheduler, ()):
            if step >= total_steps:
                name = "step-size" if self.lr_scheduler == "step" else "milestones"
                told.append(f"--lr-{name}: the drop at step {step} comes after {run}")
        if self.lr_scheduler == "const-cooldown":
            cooldown = (self.epochs_cooldown or 0) * steps_per_epoch
            if cooldown > total_steps - self.warmup:
                told.append(
                    f"--epochs-cooldown {self.epochs_cooldown} is {cooldown} steps, more than "
                    f"--warmup {self.warmup} leaves of {run}: it is under way when the warm-up ends"
                )
        return told


# Options that mean something with certain choices only.
_ONLY_WITH: dict[str, tuple[str, tuple[str, ...]]] = {
    **dict.fromkeys(("beta1", "beta2", "eps"), ("opt", ("adamw",))),
    **dict.fromkeys(("momentum", "nesterov"), ("opt", ("sgd",))),
    "lr_step_size": ("lr_scheduler", ("step",)),
    "lr_milestones": ("lr_scheduler", ("multi-step",)),
    "lr_gamma": ("lr_scheduler", ("step", "multi-step")),
    **dict.fromkeys(
        ("epochs_cooldown", "lr_cooldown_power", "lr_cooldown_end"),
        ("lr_scheduler", ("const-cooldown",)),
    ),
}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _said(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        value = " ".join(map(str, value)) or "empty"
    return f"--{_flag(name)} is {'left out' if value is None else value}"


def _refused(name: str, value: Any, expected: str) -> UserError:
    return UserError(f"{_said(name, value)}, expected {expected}")
