"""What one run found, as plain values: tests fill it, reports show it, ``results`` stores it."""

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any


def badness(error: float) -> tuple[bool, float]:
    """A key to sort errors by: NaN is above every number, as it is in no comparison."""
    return math.isnan(error), error


def worst(errors: Iterable[float]) -> float:
    """The largest, NaN if there is one."""
    return max(errors, key=badness)


@dataclass
class Record:
    """Times are seconds, memory MiB.

    ``losses`` holds one entry an implementation, shape and dtype, ``skipped`` and ``failed`` a
    reason by the name of a peer (and shape).
    """

    machine: dict[str, Any] = field(default_factory=dict)
    losses: list[dict[str, Any]] = field(default_factory=list)
    throughput: dict[str, Any] = field(default_factory=dict)
    step_memory: list[dict[str, Any]] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def to_plain(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "Record":
        return cls(**plain)


@dataclass
class GpuRecord:
    """What a run of the GPU part found. Times are seconds, memory MiB.

    ``losses``, ``large``, ``precision`` and ``schedule`` hold one entry a measurement, ``accuracy``
    the outcome of the accuracy tests, ``train_step`` of the training step. ``groups`` names the
    groups and ``tests`` the tests that were started; ``skipped``, ``failed`` and ``not_run`` hold a
    reason by name: ``skipped`` by an implementation's, ``failed`` by an entry's ``case`` or by a
    test that ended its process.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    accuracy: dict[str, Any] = field(default_factory=dict)
    losses: list[dict[str, Any]] = field(default_factory=list)
    large: list[dict[str, Any]] = field(default_factory=list)
    precision: list[dict[str, Any]] = field(default_factory=list)
    schedule: list[dict[str, Any]] = field(default_factory=list)
    train_step: dict[str, Any] = field(default_factory=dict)
    targets: list[dict[str, Any]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    tests: list[str] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    not_run: dict[str, str] = field(default_factory=dict)

    def __bool__(self) -> bool:
        found = (self.losses, self.large, self.precision, self.schedule, self.train_step)
        return any(found) or bool(self.skipped or self.failed or self.not_run)

    to_plain = Record.to_plain

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> "GpuRecord":
        return cls(**plain)
