"""What records say, for those who only look: no picture is looked at."""

from fastclip.data.bad_records import BadValueError
from fastclip.data.fields.texts import read_captions
from fastclip.data.sources.base import Record


def captions_of(record: Record) -> list[str]:
    """All usable captions of a record, each once; maybe none."""
    try:
        return list(dict.fromkeys(read_captions(record.values)))
    except BadValueError:
        return []
