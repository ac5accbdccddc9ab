"""One optimizer step's gradients, for every objective and any number of micro-batches.

Row sums add up over micro-batches: one forward and one backward pass each. Batch terms see the
whole global batch at once, so accumulating them over micro-batches would change them. Following
GradCache (Gao et al., 2021, arXiv 2101.06983), every micro-batch is embedded without a graph, the
loss is taken once on all features, and each micro-batch is run again with the same random numbers
to backpropagate its slice of the features' gradients; row sums travel with that second pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from fastclip.comm.ranks import Ranks
from fastclip.data.seeding import derived_seed
from fastclip.objectives.base import Losses, MicroBatch, Objective, Output
from fastclip.training.batch_norm_buffers import keep_batch_norm


@dataclass(frozen=True)
class StepContext:
    """What a step needs beside the engine, the objective and its batch.

    Attributes:
        seed, number: seed the generator of every micro-batch, with its place in the global batch.
        autocast: makes the context in which frozen parts and batch terms run.
        check: called with named losses on this rank before gradients of batch terms are taken, and
            with the row sums before the step; may raise, on all ranks together.
    """

    ranks: Ranks
    seed: int
    number: int
    autocast: Callable[[], AbstractContextManager]
    check: Callable[[Losses], None]


def accumulate_gradients(
    engine: Any, objective: Objective, batch: Sequence[MicroBatch], context: StepContext
) -> Losses:
    """Leave the gradients of the global batch's loss where ``engine.step()`` finds them.

    ``batch`` is this rank's run of micro-batches, on the host; every rank has as many. Gradients of
    ``objective.scalars`` are left in their ``.grad``, this rank's part of a mean over ranks, free
    of any loss scale.

    Returns the losses, detached; their mean over ranks is the loss of the global batch.
    """
    return _Step(engine, objective, batch, context).run()


class _Step:
    def __init__(self, engine, objective, batch, context: StepContext):
        self.engine, self.objective, self.batch, self.context = engine, objective, batch, context
        self.known = objective.prepare(batch, context.ranks)
        self.two_passes = objective.has_batch_terms and len(batch) > 1
        self.given: dict[int, dict[str, Any]] = {}

    def run(self) -> Losses:
        losses: Losses = {}
        gradients: list[Tensor] = []
        first: Output | None = None
        if self.objective.has_batch_terms:
            if self.two_passes:
                outputs = self._features_alone()
            else:
                first = self._forward(0)
                outputs = [first.features]
            losses, gradients = self._batch_terms(outputs)
        sums = self._backward(gradients, first)
        self.context.check(sums)
        return losses | sums

    def _features_alone(self) -> list[tuple[Tensor, ...]]:
        with torch.no_grad(), keep_batch_norm(self.engine):
            return [
                self._forward(index, features_only=True).features
                for index in range(len(self.batch))
            ]

    def _forward(self, index: int, features_only: bool = False) -> Output:
        context = self.context
        place = context.ranks.rank * len(self.batch) + index
        seed = derived_seed(context.seed, context.number, place)
        micro_batch = to_device(self.batch[index], context.ranks.device)
        if index not in self.given:
            torch.manual_seed(seed)
            with torch.no_grad(), context.autocast():
                self.given[index] = self.objective.given(micro_batch)
        # Behind the frozen part, whose draws the second pass does not make again.
        torch.manual_seed(seed)
        # By keyword: DeepSpeed's hooks replace what is inside positional arguments.
        return self.engine(
            micro_batch=micro_batch,
            step=self.known,
            given=self.given[index],
            features_only=features_only,
        )

    def _batch_terms(self, outputs: list[tuple[Tensor, ...]]) -> tuple[Losses, list[Tensor]]:
        """Losses, detached, and the gradients of the concatenated features.

        Empties what it concatenates as it goes and keeps no feature alive: at a large batch each
        copy counts.
        """
        columns = [list(column) for column in zip(*outputs, strict=True)]
        outputs.clear()
        leaves = []
        while columns:
            leaves.append(as_leaf(torch.cat(columns.pop(0))))
        given = [self.given[index] for index in range(len(self.batch))]
        with self.context.autocast():
            losses = self.objective.batch_losses(tuple(leaves), given, self.batch, self.known)
        self.context.check(losses)
        torch.stack([loss.float() for loss in losses.values()]).sum().backward()
        gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
        return {name: loss.detach() for name, loss in losses.items()}, gradients

    def _backward(self, gradients: list[Tensor], first: Output | None) -> Losses:
        """Backward passes of all micro-batches; returns the row sums, times the world's size."""
        engine, world = self.engine, self.context.ranks.world_size
        sums: Losses = {}
        starts = [0] * len(gradients)
        last = len(self.batch) - 1
        for index in range(len(self.batch)):
            engine.set_gradient_accumulation_boundary(index == last)
            output: Output | None = self._forward(index) if first is None else first
            assert output is not None
            terms = [world * value.float() for value in output.sums.values()]
            if gradients:
                stops = [s + len(f) for s, f in zip(starts, output.features, strict=True)]
                slices = [g[i:j] for g, i, j in zip(gradients, starts, stops, strict=True)]
                terms.append(inner_product(output.features, slices))
                starts = stops
            total = torch.stack(terms).sum()
            for name, value in output.sums.items():
                part = world * value.detach().double()
                sums[name] = sums[name] + part if name in sums else part
            # What the pass after this one does not need must not outlive it.
            first = output = None
            self.given.pop(index)
            engine.backward(total * unseen_loss_scale(engine), scale_wrt_gas=False)
        return sums


def to_device(micro_batch: MicroBatch, device: torch.device) -> MicroBatch:
    """The micro-batch with its tensors on ``device``.

    A copy to a GPU goes through pinned memory: from any other, the process would wait for the steps
    before it to end. Torch keeps the pinned buffer until the copy is done, and takes it again.
    """

    def moved(column: Any) -> Any:
        if not isinstance(column, Tensor):
            return column
        if device.type == "cuda" and column.device.type == "cpu":
            column = column.pin_memory()
        return column.to(device, non_blocking=True)

    return {name: moved(column) for name, column in micro_batch.items()}


def unseen_loss_scale(engine: Any) -> float:
    """fp16's loss scale at stage 0, where DeepSpeed (0.19.8) leaves it to its user; else 1.

    There ``engine.backward`` forgets it, the step divides gradients by it all the same, and the
    norm that the engine tells has it as a factor.
    """
    config = getattr(getattr(engine, "optimizer", None), "loss_scale_config", None)
    return 1.0 if config is None else float(config.cur_scale)


def as_leaf(features: Tensor) -> Tensor:
    """Features to take the loss on: detached, and fp16 widened to fp32.

    A feature's gradient is near 1/n: in fp16 it would be flushed to zero before DeepSpeed's loss
    scale could save it.
    """
    wide = features.float() if features.dtype is torch.float16 else features
    return wide.detach().requires_grad_()


def inner_product(features: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """``sum_k <features_k, gradients_k>`` in at least fp32, whose gradient is ``gradients``."""
    terms = []
    for feature, gradient in zip(features, gradients, strict=True):
        wide = torch.promote_types(feature.dtype, torch.float32)
        terms.append((feature.to(wide) * gradient.to(wide)).sum())
    return torch.stack(terms).sum()
