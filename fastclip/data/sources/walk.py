"""Through a whole source, record by record."""

import logging
from collections.abc import Callable, Generator

from fastclip.data.bad_records import BadRecord
from fastclip.data.progress import Progress
from fastclip.data.sources.base import AnySource, ForwardSource, Part, Record, Size

logger = logging.getLogger(__name__)

Records = Generator[Record | BadRecord, None, None]


def all_records(source: AnySource) -> Records:
    """Every record and every problem of every part, in order, each once."""
    for part in range(source.num_parts):
        yield from part_records(source, part)


def part_records(
    source: AnySource, part: int, tell: Callable[[str], None] = logger.warning
) -> Records:
    """Every problem and every record of one part; closing the generator closes the part.

    Where the part holds another number of records than a file beside it says, ``tell`` is called
    with a sentence.
    """
    if isinstance(source, ForwardSource):
        stream = source.stream(part)
        try:
            yield from stream
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
        return
    said = source.size(part)
    opened = source.open(part)
    try:
        if not _is_as_said(opened, said):
            tell(
                f"{source.part_name(part)} is said to hold {said.records} records, it has "
                f"{len(opened)}"
            )
        yield from opened.problems
        for number in range(len(opened)):
            yield opened.read(number)
    finally:
        opened.close()


def _is_as_said(opened: Part, said: Size) -> bool:
    """Whether a part has what it is said to hold, with or without what its problems lost."""
    lost = sum(problem.lost for problem in opened.problems)
    return not said.believed or said.records in (len(opened), len(opened) + lost)


def count_records(
    source: AnySource, at_most: int | None = None, progress: bool = False
) -> int | None:
    """Records in ``source``, as far as it is believed now.

    None where a stream does not say how many it holds, or where ``at_most`` is passed.
    """
    total = 0
    with Progress("counting records", source.num_parts, "part", progress) as bar:
        for part in range(source.num_parts):
            if isinstance(source, ForwardSource):
                size = source.expected(part)
                if size is None:
                    return None
            else:
                size = source.size(part).records
            total += size
            if at_most is not None and total > at_most:
                return None
            bar.update()
    return total
