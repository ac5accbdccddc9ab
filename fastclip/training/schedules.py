"""The learning rate of each step: linear warm-up, then the schedule of ``--lr-scheduler``.

Steps are optimizer steps, counted from 0. Nothing here keeps state, so that a resumed run goes on
with the rates that it would have had.
"""

import math
from bisect import bisect_right
from dataclasses import dataclass

from fastclip.training.options.optim import OptimConfig


@dataclass(frozen=True)
class Schedule:
    """Rates of a run of ``total_steps``, of which ``steps_per_epoch`` make an epoch.

    Warm-up, ``const``, ``cosine`` and ``const-cooldown`` are those of ``open_clip_train.scheduler``
    (up to rounding), with two differences: past the last step cosine, linear and cooldown stay at
    their last value, and ``--lr-cooldown-end`` is what a base rate of ``--lr`` ends at, other base
    rates ending in proportion (open_clip has one rate for all). ``step`` and ``multi-step`` drop at
    the steps of torch's ``StepLR`` and ``MultiStepLR``; the steps of the warm-up count.
    """

    options: OptimConfig
    total_steps: int
    steps_per_epoch: int

    def rate(self, base: float, step: int) -> float:
        """Rate of optimizer step ``step`` for weights whose peak rate is ``base``."""
        options = self.options
        if options.skip_scheduler:
            return base
        if step < options.warmup:
            return base * (step + 1) / options.warmup
        match options.lr_scheduler:
            case "const":
                return base
            case "cosine":
                progress = self._progress(step, options.warmup)
                return 0.5 * base * (1 + math.cos(math.pi * progress))
            case "linear":
                return base * (1 - self._progress(step, options.warmup))
            case "step":
                return base * options.lr_gamma ** (step // options.lr_step_size)
            case "multi-step":
                return base * options.lr_gamma ** bisect_right(options.lr_milestones, step)
            case "const-cooldown":
                return self._cooldown(base, step)
        raise ValueError(f"unknown lr_scheduler {options.lr_scheduler!r}")

    def factor(self, step: int) -> float:
        """Rate of step ``step`` as a part of the peak rate, in [0, 1]."""
        return self.rate(1.0, step)

    def _progress(self, step: int, start: int) -> float:
        """Part of the way from step ``start`` to the end of the run, in [0, 1]."""
        return min(1.0, (step - start) / max(1, self.total_steps - start))

    def _cooldown(self, base: float, step: int) -> float:
        options = self.options
        start = self.total_steps - (options.epochs_cooldown or 0) * self.steps_per_epoch
        if step < start:
            return base
        end = base / options.lr * options.lr_cooldown_end
        decay = (1 - self._progress(step, start)) ** options.lr_cooldown_power
        return decay * (base - end) + end
