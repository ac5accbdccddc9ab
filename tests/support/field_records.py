"""Records and readings for tests of fields."""

from fastclip.data.bad_records import BadRecord
from fastclip.data.draws import Draws
from fastclip.data.fields.reading import Reading, build, collate, read
from fastclip.data.sources.base import Record
from fastclip.data.text.words import WordTokenizer

TOKENIZER = WordTokenizer(["cat", "dog", "left", "right"], buckets=32, context_length=8)


def draws(count=1, seed=0, hflip=0.0):
    """Draws of the first ``count`` places of epoch 0."""
    return Draws(seed, 0, list(range(count)), hflip)


def value_of(field, raw, **options):
    """What ``field`` reads of raw values."""
    return field.read(raw, Reading((field,), **options))


def found_bad(field, raw, **options):
    """The bad record that raw values give."""
    bad = read(Record("key", raw), Reading((field,), **options))
    assert isinstance(bad, BadRecord), bad
    assert "\n" not in bad.reason + bad.detail
    return bad


def columns_of(raws, reading, drawn=None):
    """Columns of a micro-batch of good records with those raw values."""
    built = []
    for number, raw in enumerate(raws):
        found = read(Record(f"k{number}", raw), reading)
        assert isinstance(found, dict), found
        built.append(build(f"k{number}", found, drawn and drawn.one(number), reading))
    return collate([f"k{number}" for number in range(len(raws))], built, drawn, reading)
