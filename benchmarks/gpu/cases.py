"""What the GPU part runs, most important first, and the clock that decides where it ends."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

from benchmarks.gpu.clock import DEVICE
from benchmarks.losses.peers import Peer
from benchmarks.losses.problems import Problem
from benchmarks.reporting.operations import (
    INFONCE,
    LAYERS,
    LINEAR,
    LINEAR_SIGMOID,
    MULTI_TARGET,
    SIGLIP,
)

BF16, FP32 = torch.bfloat16, torch.float32
Kind = Literal["losses", "large", "precision", "schedule"]

# Exit code of a run that ended because the device gave up; what is left can run in another process.
GPU_LOST = 70

_N, _TWO_N, _MILLION, _RANKS = 32_768, 65_536, 1_048_576, 8
# Pairs of cosine near 0.2: at a scale of 100 and D = 512 about half learned.
_HALF_LEARNED = {"scale": 100.0, "noise": 2.0}


@dataclass(frozen=True)
class Group:
    """Implementations that are compared on one problem."""

    kind: Kind
    problem: Problem

    @property
    def name(self) -> str:
        words = {"losses": "", "large": "", "precision": "error of ", "schedule": "schedule of "}
        return words[self.kind] + self.problem.label

    def case(self, peer: Peer) -> str:
        """What an entry of the record, or the reason that there is none, is about."""
        return f"{peer.name}, {self.name}"


def case_id(group: Group, peer: Peer) -> str:
    """A test's id: easy to select by ``-k``."""
    return f"{group.problem.slug}-{peer.name}".replace(" ", "-").replace(",", "")


def groups(tiny: bool = False) -> list[Group]:
    """All groups in the order they run in; ``tiny`` ones have the same code and no meaning."""

    def contrastive(n: int, width: int, operation: str = INFONCE, dtype=BF16, **more) -> Problem:
        ranks = more.get("ranks", 1)
        return Problem(operation, n // ranks, n, width, dtype, DEVICE, **more)

    def linear(rows: int, width: int, vocabulary: int, operation: str = LINEAR) -> Problem:
        return Problem(operation, rows, vocabulary, width, BF16, DEVICE)

    found = [
        Group("losses", contrastive(_N, 512)),
        Group("losses", linear(4096, 4096, 128_256)),
        Group("losses", contrastive(_N, 512, ranks=_RANKS)),
        Group("losses", contrastive(_TWO_N, 512)),
        Group("losses", contrastive(_N, 512, SIGLIP)),
        Group("losses", contrastive(_N, 512, dtype=FP32)),
        Group("losses", contrastive(_N, 1024)),
        Group("precision", contrastive(_N, 512, **_HALF_LEARNED)),
        Group("schedule", contrastive(_N, 512, ranks=_RANKS)),
        Group("large", contrastive(_MILLION, 512)),
        Group("losses", contrastive(_N, 768)),
        Group("losses", linear(16_384, 1024, 49_408)),
        Group("losses", linear(14_848, 1024, 10_000)),
        Group("losses", linear(131_072, 768, 30_522)),
        Group("losses", contrastive(_TWO_N, 1024)),
        Group("losses", contrastive(_TWO_N, 768)),
        Group("precision", contrastive(_N, 512)),
        Group("schedule", contrastive(_N, 1024, ranks=_RANKS)),
        Group("losses", contrastive(_N, 1024, ranks=_RANKS)),
        Group("losses", contrastive(_N, 768, SIGLIP)),
        Group("losses", contrastive(_N, 1024, SIGLIP)),
        Group("losses", contrastive(_N, 768, ranks=_RANKS)),
        Group("schedule", contrastive(_N, 768, ranks=_RANKS)),
        # A step of Mahajan et al. on their 17,000 hashtags, from ResNeXt-101's features; all words
        # of Joulin et al. from GoogLeNet's, one class against the rest; the n-grams of Li et al.
        # from ResNet-34's; and as many tags of captions as ICMLM might predict from ResNet-50's.
        # The last three at batches of today: theirs are of 128 pictures, or not told.
        Group("losses", linear(8064, 2048, 17_000, MULTI_TARGET)),
        Group("losses", linear(8192, 1024, 100_000, LINEAR_SIGMOID)),
        Group("losses", linear(8192, 512, 142_806, MULTI_TARGET)),
        Group("losses", linear(8192, 2048, 5000, LINEAR_SIGMOID)),
        # Two more points of the plots against N.
        Group("losses", contrastive(8192, 512)),
        Group("losses", contrastive(16_384, 512)),
    ]
    return [replace(group, problem=_tiny(group.problem)) for group in found] if tiny else found


def _tiny(problem: Problem) -> Problem:
    rows = max(24, problem.rows // 1024)
    columns = rows * problem.ranks
    if problem.operation in LAYERS:
        columns = max(40, problem.columns // 1024)
    return replace(problem, rows=rows, columns=columns, width=problem.width // 16)


@dataclass
class Budget:
    """Groups start until ``seconds`` have passed; one that has started may finish."""

    seconds: float | None = None
    now: Callable[[], float] = time.monotonic
    started: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.start = self.now()

    def allows(self, group: str) -> bool:
        if group in self.started:
            return True
        if self.seconds is not None and self.now() - self.start >= self.seconds:
            return False
        self.started.add(group)
        return True
