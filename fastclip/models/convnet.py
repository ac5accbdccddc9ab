"""A small residual convnet for small pictures: quick on CPUs, where wide stems are not."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fastclip.models.batch_norm import guard_batch_norms
from fastclip.models.tower import ImageTower, LayerGroup


class ConvNetTower(ImageTower):
    """Stages of a downsampling convolution and one residual block each, pooled, then linear.

    Pixels [b, 3, s, s] to features [b, embed_dim], not normalized; the side halves in every stage.
    The grid is the last stage's map.
    """

    def __init__(
        self, widths: Sequence[int], embed_dim: int | None, pool: Literal["mean", "max"] = "mean"
    ):
        super().__init__(embed_dim)
        inputs = (3, *widths[:-1])
        self.stages = nn.ModuleList(
            Stage(i, o, stem=index == 0)
            for index, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.grid_width = widths[-1]
        if embed_dim is not None:
            self.projection = nn.Linear(widths[-1], embed_dim, bias=False)
            nn.init.normal_(self.projection.weight, std=widths[-1] ** -0.5)
        guard_batch_norms(self.stages)
        self.pool = pool
        self.checkpointed = False

    def _last_states(self, batch: Tensor) -> Tensor:
        # Convolutions run in the layout of their input, and channels last is the fast one.
        x = batch.contiguous(memory_format=torch.channels_last)
        for stage in self.stages:
            x = checkpoint(stage, x, use_reentrant=False) if self.checkpointed else stage(x)
        return x

    def _pooled(self, states: Tensor) -> Tensor:
        return self.projection(states.mean((2, 3)) if self.pool == "mean" else states.amax((2, 3)))

    def _positions(self, states: Tensor) -> Tensor:
        return states.permute(0, 2, 3, 1).flatten(1, 2)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.checkpointed = enable

    def layer_groups(self) -> list[LayerGroup]:
        head = [] if self.embed_dim is None else [[self.projection]]
        return [*([stage] for stage in self.stages), *head]


class Stage(nn.Module):
    """Halve the side, then one residual block that starts as the identity."""

    def __init__(self, inputs: int, width: int, stem: bool):
        super().__init__()
        size, padding = (4, 1) if stem else (3, 1)
        self.down = nn.Conv2d(inputs, width, size, 2, padding, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv1 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.down(x)))
        residual = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        return F.relu(x + residual)
