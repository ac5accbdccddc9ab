"""The sizes of parts with which a run's first epoch begins."""

from __future__ import annotations

import logging
from contextlib import closing

from fastclip.data.sources.base import Source

logger = logging.getLogger(__name__)


def first_sizes(source: Source, enough: int) -> list[int]:
    """Records of each part, as far as they are known or believed.

    Where those are fewer than ``enough``, with which no epoch could begin, the parts of which the
    size is only said are opened and counted.
    """
    sizes = [source.size(part) for part in range(source.num_parts)]
    said = sum(size.records for size in sizes)
    believed = [part for part, size in enumerate(sizes) if size.believed]
    records = [size.records for size in sizes]
    if said >= enough or not believed:
        return records
    for part in believed:
        with closing(source.open(part)) as opened:
            records[part] = len(opened)
    if sum(records) != said:
        logger.warning(f"{source.name} is said to hold {said} records, counted {sum(records)}")
    return records
