"""What one run found, as plain values: filled by the tests, shown and stored by ``report``."""

from dataclasses import asdict, dataclass, field
from typing import Any


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
