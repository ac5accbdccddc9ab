"""The training loop: batches in, optimiser steps, checkpoints and figures out."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fastclip.errors import UserError
from fastclip.objectives.contrastive import Objective
from fastclip.training import checkpoint, optim
from fastclip.training.config import TrainConfig
from fastclip.training.distributed import Ranks, all_finite, mean_over_ranks
from fastclip.training.feature_cache import RandomState, step_gradients, unseen_loss_scale
from fastclip.training.host_memory import keep_large_buffers, return_large_buffers
from fastclip.training.reporting import Reporter


class Trainer:
    """Runs one model, objective and loader under DeepSpeed.

    Args:
        cfg: the run's configuration.
        ranks: this process's place.
        model: ``model(image, text) -> (image_features, text_features)``.
        objective: features of the whole local batch to named losses.
        loader: ``steps_per_epoch`` and ``epoch(epoch, start_step)`` yielding batches of this
            rank's rows on the host.
        precision, deepspeed: as resolved by :mod:`fastclip.training.deepspeed_config`.
        fingerprint: of the tokenizer; a checkpoint of another is refused.
    """

    def __init__(
        self,
        cfg: TrainConfig,
        ranks: Ranks,
        *,
        model: nn.Module,
        objective: Objective,
        loader: Any,
        precision: str,
        deepspeed: dict,
        fingerprint: str,
    ):
        import deepspeed as ds

        self.cfg, self.ranks, self.loader, self.fingerprint = cfg, ranks, loader, fingerprint
        self.micro_batch = deepspeed["train_micro_batch_size_per_gpu"]
        self.precision = precision
        self.zero_stage = deepspeed["zero_optimization"]["stage"]
        if ranks.device.type == "cpu":
            several = deepspeed["gradient_accumulation_steps"] > 1
            return_large_buffers() if several else keep_large_buffers()
        self.engine, self.optimizer, _, _ = ds.initialize(
            model=model,
            optimizer=optim.adamw(optim.parameter_groups(model, cfg.wd), cfg),
            config=deepspeed,
        )
        optim.forget_initial_step(self.optimizer)
        if self.zero_stage == 0 and ranks.world_size == 1:
            # A mean over one rank is a copy of every gradient into a bucket and back.
            self.engine.enable_backward_allreduce = False
        self.objective = objective.to(ranks.device)
        self.objective_optimizer = optim.adamw(self.objective.parameters(), cfg)
        self.total_steps = cfg.epochs * loader.steps_per_epoch
        if cfg.max_steps is not None:
            self.total_steps = min(self.total_steps, cfg.max_steps)
        self.step = 0
        self.run: Path | None = None

    def train(self, run: Path) -> None:
        """Run the remaining steps, reporting and saving into ``run``."""
        cfg = self.cfg
        self.run = run
        reporter = Reporter(
            run,
            active=self.ranks.is_first,
            total_steps=self.total_steps,
            first_step=self.step,
            tensorboard=cfg.report_to == "tensorboard",
            every=cfg.log_every_n_steps,
        )
        self.engine.train()
        try:
            for epoch, batch in self._batches():
                started = time.perf_counter()
                metrics = self.train_step(batch)
                seconds = time.perf_counter() - started
                metrics |= {"epoch": epoch, "samples_per_second": cfg.train_batch_size / seconds}
                reporter.step(self.step, metrics)
                if self._due():
                    self.save(run)
        finally:
            reporter.close()

    def _batches(self) -> Iterator[tuple[int, dict]]:
        """Epoch and batch from the current step to the last."""
        while self.step < self.total_steps:
            epoch, done = divmod(self.step, self.loader.steps_per_epoch)
            for batch in self.loader.epoch(epoch, start_step=done):
                yield epoch, batch
                if self.step >= self.total_steps:
                    return

    def _due(self) -> bool:
        every = self.cfg.save_frequency or self.loader.steps_per_epoch
        return self.step % every == 0 or self.step == self.total_steps

    def train_step(self, batch: dict) -> dict[str, float]:
        """One optimiser step on this rank's rows; returns its metrics, equal on all ranks."""
        cfg = self.cfg
        rate = optim.learning_rate(cfg, self.step, self.total_steps)
        optim.set_learning_rate(self.optimizer, rate)
        optim.set_learning_rate(self.objective_optimizer, rate)
        self.objective_optimizer.zero_grad(set_to_none=True)

        def stop_if_not_finite(losses: dict[str, Tensor]) -> None:
            values = torch.stack([loss.detach().float() for loss in losses.values()])
            if not all_finite(values, self.ranks):
                self._refuse_loss(batch, losses)

        losses = step_gradients(
            self.engine,
            self._split(batch),
            self._embed,
            self._losses,
            stop_if_not_finite,
        )
        optim.average_gradients(self.objective, self.ranks.world_size)
        norm = self._step_engine()
        self._step_objective(norm)
        self.step += 1
        metrics = {name: mean_over_ranks(loss, self.ranks) for name, loss in losses.items()}
        metrics["lr"] = rate
        metrics["logit_scale"] = float(self.objective.logit_scale.detach().exp())
        if norm is not None:
            metrics["grad_norm"] = norm
        return metrics

    def _split(self, batch: dict) -> list[dict]:
        columns = {k: v.split(self.micro_batch) for k, v in batch.items() if isinstance(v, Tensor)}
        return [
            dict(zip(columns, parts, strict=True)) for parts in zip(*columns.values(), strict=True)
        ]

    def _embed(self, micro_batch: dict) -> tuple[Tensor, ...]:
        device = self.ranks.device
        image = micro_batch["image"].to(device, non_blocking=True)
        text = micro_batch["text"].to(device, non_blocking=True)
        return self.engine(image, text)

    def _losses(self, *features: Tensor) -> dict[str, Tensor]:
        with self.autocast():
            return self.objective(*features)

    def autocast(self) -> torch.autocast:
        """bf16 autocast under amp_bf16, nothing otherwise."""
        return torch.autocast(
            self.ranks.device.type, dtype=torch.bfloat16, enabled=self.precision == "amp_bf16"
        )

    def _refuse_loss(self, batch: dict, losses: dict[str, Tensor]) -> None:
        found = ", ".join(f"{name} {float(loss.detach()):g}" for name, loss in losses.items())
        keys = ", ".join(batch["key"][:4])
        if len(batch["key"]) > 4 and self.run is not None:
            listed = self.run / f"not_finite_rank{self.ranks.rank}.txt"
            listed.write_text("\n".join(batch["key"]) + "\n")
            keys += f" and {len(batch['key']) - 4} more, listed in {listed}"
        raise UserError(
            f"loss is not finite at step {self.step + 1} ({found} on rank {self.ranks.rank}); "
            f"the step was not taken; its batch holds {keys}"
        )

    def _step_engine(self) -> float | None:
        """Let DeepSpeed clip and step; returns the towers' gradient norm before clipping."""
        norm = None
        if self.cfg.grad_clip_norm and self.zero_stage == 0:
            grads = [p.grad for p in self.engine.module.parameters() if p.grad is not None]
            norm = float(nn.utils.get_total_norm(grads))
        scale = unseen_loss_scale(self.engine)
        self.engine.step()
        after = self.engine.get_global_grad_norm()
        return float(after) / scale if after is not None else norm

    def _step_objective(self, norm: float | None) -> None:
        """Step the objective's scalars, unless fp16 overflowed and the towers stood still."""
        if not self.engine.was_step_applied():
            return
        factor = optim.clip_coefficient(norm, self.cfg.grad_clip_norm)
        for parameter in self.objective.parameters():
            if parameter.grad is not None:
                parameter.grad *= factor
        self.objective_optimizer.step()
        self.objective.clamp()

    def save(self, run: Path) -> None:
        """Write a checkpoint of everything the next step depends on."""
        random = RandomState(self.ranks.device)
        state = {
            "step": self.step,
            "made_with": self._made_with(),
            "objective": self.objective.state_dict(),
            "objective_optimizer": self.objective_optimizer.state_dict(),
            "random_cpu": random.cpu,
            "random_device": random.on_device,
        }
        checkpoint.save(
            run / "checkpoints",
            self.step,
            self.engine,
            state,
            rank=self.ranks.rank,
            world_size=self.ranks.world_size,
            keep=self.cfg.keep_checkpoints,
        )

    def _made_with(self) -> dict[str, str | int]:
        """What a resumed run must share with the run it continues."""
        cfg = self.cfg
        return {
            "--model": cfg.model,
            "tokenizer (--tokenizer, --vocab-size and the captions)": self.fingerprint[:12],
            "steps an epoch (--train-data and --train-batch-size)": self.loader.steps_per_epoch,
            "--zero-stage": self.zero_stage,
            "--precision": self.precision,
            "--seed": cfg.seed,
            "--train-micro-batch-size-per-gpu": self.micro_batch,
            "--workers": cfg.workers,
            # DeepSpeed's ZeRO optimisers take it from the checkpoint, whatever the flag says.
            "--grad-clip-norm": cfg.grad_clip_norm,
            "--siglip": cfg.siglip,
        }

    def resume(self, path: Path) -> None:
        """Continue from a checkpoint as if the run had never stopped."""
        ranks = self.ranks
        state = checkpoint.load_state(path, rank=ranks.rank, world_size=ranks.world_size)
        before = state["made_with"]
        for what, found in self._made_with().items():
            if before.get(what) != found:
                raise UserError(
                    f"checkpoint {path} was made with {what} {before.get(what)}, this run has "
                    f"{found}: resume with the same"
                )
        checkpoint.load_engine(path, self.engine)
        self.objective.load_state_dict(state["objective"])
        self.objective_optimizer.load_state_dict(state["objective_optimizer"])
        self.step = state["step"]
        random = RandomState(ranks.device)
        random.cpu, random.on_device = state["random_cpu"], state["random_device"]
        random.restore()
