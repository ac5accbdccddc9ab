"""Which records of forward-only streams go where, and what is found of them on the way."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.base import Field
from fastclip.data.fields.reading import Reading
from fastclip.data.sources.base import ForwardSource

STREAMS_A_LANE = 4


@dataclass(frozen=True)
class Deal:
    """Which records of ``source`` a rank's lanes get, and in which order.

    Attributes:
        lanes: of each rank, at least 1.
        resampled: streams are drawn with replacement, by their weights where the source has some.
        shuffle_buffer: records among which the next one is drawn.
    """

    source: ForwardSource
    reading: Reading
    rank: int
    world_size: int
    lanes: int
    seed: int
    resampled: bool
    shuffle_buffer: int

    @property
    def own_streams(self) -> bool:
        """Whether each lane has streams of its own."""
        return self.source.num_parts >= STREAMS_A_LANE * self.world_size * self.lanes


@dataclass
class Found:
    """What a lane has found of its first pass.

    Attributes:
        bad: not yet told.
        usable: records that could be read, as far as it came.
        ended: whether it came to the end.
        sizes: records of the streams that were read to their end, bad and lost ones counted.
        read_seconds: spent on reading, not yet told.
    """

    bad: list[BadRecord] = field(default_factory=list)
    usable: int = 0
    ended: bool = False
    sizes: dict[int, int] = field(default_factory=dict)
    read_seconds: float = 0.0


@dataclass(frozen=True)
class Readied:
    """A record whose values were read and judged, and not yet built."""

    key: str
    values: Mapping[Field, Any]
