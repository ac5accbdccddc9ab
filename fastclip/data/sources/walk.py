"""Through a whole source, record by record."""

from collections.abc import Iterator

from fastclip.data.bad_records import BadRecord
from fastclip.data.progress import Progress
from fastclip.data.sources.base import AnySource, ForwardSource, Record


def all_records(source: AnySource) -> Iterator[Record | BadRecord]:
    """Every record and every problem of every part, in order, each once."""
    for part in range(source.num_parts):
        yield from part_records(source, part)


def part_records(source: AnySource, part: int) -> Iterator[Record | BadRecord]:
    """Every problem and every record of one part; closing the iterator closes the part."""
    if isinstance(source, ForwardSource):
        stream = source.stream(part)
        try:
            yield from stream
        finally:
            close = getattr(stream, "close", None)
            if close is not None:
                close()
        return
    opened = source.open(part)
    try:
        yield from opened.problems
        for number in range(len(opened)):
            yield opened.read(number)
    finally:
        opened.close()


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
