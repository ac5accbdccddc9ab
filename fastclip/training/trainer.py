"""The training loop: batches in, optimizer steps, checkpoints and figures out."""

import contextlib
import itertools
import os
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from fastclip.comm.ranks import Ranks
from fastclip.data.loaders.base import Loader
from fastclip.errors import UserError
from fastclip.objectives.base import Losses, MicroBatch, Objective
from fastclip.training import checkpoint, gradients, optimizers, resuming
from fastclip.training.config import TrainConfig, to_plain
from fastclip.training.epochs import begin_epoch
from fastclip.training.host_memory import keep_large_buffers, return_large_buffers
from fastclip.training.reporting import Reporter
from fastclip.training.scalars import ScalarsOptimizer
from fastclip.training.schedules import Schedule
from fastclip.training.steps import StepContext, accumulate_gradients, unseen_loss_scale
from fastclip.training.waits import Waits, cores_here

Validate = Callable[[int], dict[str, float]]
"""Evaluates after so many epochs and returns figures for the log; {} where none are due."""


class Trainer:
    """Runs one objective and loader under DeepSpeed.

    Args:
        cfg: the run's configuration.
        ranks: this process's place.
        objective: the system to train.
        loader: yields this rank's run of micro-batches on the host, step by step; the trainer
            does not close it.
        precision, deepspeed: as resolved by :mod:`fastclip.training.deepspeed_config`.
        fingerprint: of the tokenizer; a checkpoint of another is refused.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        ranks: Ranks,
        *,
        objective: Objective,
        loader: Loader,
        precision: str,
        deepspeed: dict,
        fingerprint: str,
    ):
        import deepspeed as ds

        self.cfg, self.ranks, self.loader, self.fingerprint = cfg, ranks, loader, fingerprint
        self.objective = objective
        self.micro_batch = deepspeed["train_micro_batch_size_per_gpu"]
        self.precision = precision
        self.zero_stage = deepspeed["zero_optimization"]["stage"]
        if ranks.device.type == "cpu":
            several = deepspeed["gradient_accumulation_steps"] > 1
            return_large_buffers() if several else keep_large_buffers()
        optimizer = optimizers.build_optimizer(_groups(objective, cfg), cfg.optim)
        with optimizers.without_initial_step(optimizer):
            self.engine, self.optimizer, _, _ = ds.initialize(
                model=objective.network, optimizer=optimizer, config=deepspeed
            )
        if self.zero_stage == 0 and ranks.world_size == 1:
            # A mean over one rank is a copy of every gradient into a bucket and back.
            self.engine.enable_backward_allreduce = False
        if cfg.run.torchcompile:
            self.engine.compile()
        if objective.frozen is not None:
            objective.frozen.to(ranks.device).eval().requires_grad_(False)
        self.scalars = ScalarsOptimizer(objective.scalars, cfg.optim, ranks)
        self.step = 0
        self._plan()
        self.run: Path | None = None

    def train(
        self,
        run: Path,
        validate: Validate | None = None,
        at_the_end: Callable[[], dict[str, float]] | None = None,
    ) -> None:
        """Run the remaining steps, reporting, evaluating and saving into ``run``.

        ``at_the_end`` is called after the last one and returns the last figures for the log.
        """
        self.run = run
        reporter = Reporter(
            run,
            active=self.ranks.is_first,
            total_steps=self.total_steps,
            first_step=self.step,
            cfg=self.cfg.run,
            config=to_plain(self.cfg),
        )
        waits = Waits()
        given = waits.timed(self._batches(reporter))
        with contextlib.closing(reporter), contextlib.closing(given) as batches:
            for epoch, batch in batches:
                metrics = self.train_step(batch)
                seconds = waits.step_metrics()
                rate = self.cfg.run.train_batch_size / seconds["compute_seconds"]
                metrics |= {"epoch": epoch, "samples_per_second": rate, **seconds}
                reporter.step(self.step, metrics)
                ends_epoch = self.step == self.loader.steps_before(epoch + 1)
                if self._save_is_due(ends_epoch):
                    self.save(run)
                if validate and ends_epoch:
                    reporter.validation(self.step, validate(epoch + 1))
            for sentence in [*self.loader.finish(), *self._diagnosis(waits)]:
                reporter.note(sentence)
            if at_the_end:
                reporter.last_validation(self.step, at_the_end())

    def _diagnosis(self, waits: Waits) -> list[str]:
        ranks = int(os.environ.get("LOCAL_WORLD_SIZE", self.ranks.world_size))
        told = waits.diagnosis(
            self.loader.seconds, self.cfg.data.workers, max(1, cores_here() // ranks)
        )
        return [told] if told else []

    def _plan(self) -> None:
        """Steps and rates by what is known of the data now."""
        run, loader = self.cfg.run, self.loader
        self.total_steps = loader.steps_before(run.epochs)
        if run.max_steps is not None:
            self.total_steps = min(self.total_steps, run.max_steps)
        self.schedule = Schedule(self.cfg.optim, self.total_steps, loader.steps_per_epoch)

    def _batches(self, reporter: Reporter) -> Generator[tuple[int, list[MicroBatch]], None, None]:
        """Epoch and batch from the current step to the last."""
        epoch = next(e for e in itertools.count() if self.loader.steps_before(e + 1) > self.step)
        while self.step < self.total_steps:
            for sentence in self.loader.begin(epoch):
                reporter.note(sentence)
            self._plan()
            reporter.total(self.total_steps)
            done = self.step - self.loader.steps_before(epoch)
            if not done:
                begin_epoch(self, epoch)
            self.engine.train()
            with contextlib.closing(self.loader.epoch(epoch, start_step=done)) as batches:
                for batch in batches:
                    yield epoch, batch
                    if self.step >= self.total_steps:
                        return
            epoch += 1

    def _save_is_due(self, ends_epoch: bool) -> bool:
        every = self.cfg.run.save_frequency
        due = self.step % every == 0 if every else ends_epoch
        return due or self.step == self.total_steps

    def train_step(self, batch: list[MicroBatch]) -> dict[str, float]:
        """One optimizer step on this rank's rows; returns its metrics, equal on all ranks."""
        optimizers.set_learning_rate(self.optimizer, self.schedule, self.step)
        self.scalars.begin_step(self.schedule, self.step)
        rate = self.schedule.rate(self.cfg.optim.lr, self.step)

        def check(losses: Losses) -> None:
            if losses:
                values = torch.stack([loss.detach().float() for loss in losses.values()])
                if not self.ranks.all_finite(values):
                    is_ours = not values.isfinite().all()
                    told = self._explain_loss(batch, losses) if is_ours else None
                    raise UserError(self.ranks.first_of(told))

        context = StepContext(self.ranks, self.cfg.run.seed, self.step, self.autocast, check)
        losses = accumulate_gradients(self.engine, self.objective, batch, context)
        self.scalars.average_gradients()
        norm = self._step_engine()
        if self.engine.was_step_applied():  # not where fp16 overflowed and the network stood still
            self.scalars.step(gradients.clip_coefficient(norm, self.cfg.optim.grad_clip_norm))
            self.objective.after_step()
        self.step += 1
        means = self.ranks.means(torch.stack([loss.double() for loss in losses.values()]))
        metrics = dict(zip(losses, means, strict=True))
        metrics |= {"lr": rate, **self.objective.report()}
        if norm is not None:
            metrics["grad_norm"] = norm
        return metrics

    def autocast(self) -> torch.autocast:
        """bf16 autocast under amp_bf16, nothing otherwise."""
        return torch.autocast(
            self.ranks.device.type, dtype=torch.bfloat16, enabled=self.precision == "amp_bf16"
        )

    def _explain_loss(self, batch: list[MicroBatch], losses: Losses) -> str:
        """What to say of a loss of this rank that is not finite."""
        found = ", ".join(f"{name} {float(loss.detach()):g}" for name, loss in losses.items())
        every = [key for micro_batch in batch for key in micro_batch["key"]]
        keys = ", ".join(every[:4])
        if len(every) > 4 and self.run is not None:
            listed = self.run / f"not_finite_rank{self.ranks.rank}.txt"
            listed.write_text("\n".join(every) + "\n")
            keys += f" and {len(every) - 4} more, listed in {listed}"
        return (
            f"loss is not finite at step {self.step + 1} ({found} on rank {self.ranks.rank}); "
            f"the step was not taken; its batch holds {keys}"
        )

    def _step_engine(self) -> float | None:
        """Let DeepSpeed clip and step; returns the network's gradient norm before clipping."""
        norm = None
        if self.cfg.optim.grad_clip_norm and self.zero_stage == 0:
            grads = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
            norm = float(nn.utils.get_total_norm(grads))
        scale = unseen_loss_scale(self.engine)
        self.engine.step()
        after = self.engine.get_global_grad_norm()
        return float(after) / scale if after is not None else norm

    def save(self, run: Path) -> None:
        """Write a checkpoint of everything the next step depends on."""
        checkpoint.save(
            run / "checkpoints",
            self.step,
            self.engine,
            self._state(),
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            keep=self.cfg.run.keep_checkpoints,
        )

    def _state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "made_with": resuming.made_with(self),
            "objective": self.objective.state(),
            "scalars": self.scalars.state(),
            "loader": self.loader.state(),
        }

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint as if the run had never stopped."""
        ranks = self.ranks
        state = checkpoint.load_state(path, rank=ranks.rank, world_size=ranks.world_size)
        resuming.check(path, state["made_with"], resuming.made_with(self))
        with optimizers.keep_settings(self.optimizer):
            checkpoint.load_engine(path, self.engine)
        self.objective.load_state(state["objective"])
        self.scalars.load_state(state["scalars"])
        self.loader.load_state(state["loader"])
        self.step = state["step"]
        self._plan()


def _groups(objective: Objective, cfg: TrainConfig) -> list[dict[str, Any]]:
    """The optimizer's groups: every part of the network, with weight decay and without."""
    groups = []
    for part in objective.groups():
        groups += optimizers.split_decay(
            part.parameters.items(),
            cfg.optim.wd if part.wd is None else part.wd,
            lr=part.lr,
            name=part.name,
            decays=part.decays or optimizers.is_matrix,
        )
    return groups
