"""What records say, for the training of tokenizers: no picture is looked at."""

from fastclip.data.bad_records import BadValueError
from fastclip.data.fields.raw_values import is_missing
from fastclip.data.fields.texts import read_texts
from fastclip.data.sources.base import Record


def captions_of(record: Record) -> list[str]:
    """All usable texts of a record's ``caption`` and ``captions``, each once; maybe none."""
    texts: list[str] = []
    for name in ("caption", "captions"):
        raw = record.values.get(name)
        if not is_missing(raw):
            try:
                texts += read_texts(raw)
            except BadValueError:
                continue
    return list(dict.fromkeys(texts))
