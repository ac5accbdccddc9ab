"""What records say, for the training of tokenizers: no picture is looked at."""

from fastclip.data.bad_records import BadValueError
from fastclip.data.fields.texts import read_texts
from fastclip.data.sources.base import Record


def captions_of(record: Record) -> list[str]:
    """All usable texts of a record's ``caption`` and ``captions``, each once; maybe none."""
    texts: list[str] = []
    for name in ("caption", "captions"):
        try:
            texts += read_texts(record.values.get(name))
        except BadValueError:
            continue
    return list(dict.fromkeys(texts))
