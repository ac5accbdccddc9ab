"""How the fields of records are read: what was asked for, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastclip.data.augment import AugmentConfig
from fastclip.data.bad_records import BadRecord, BadValueError, listed
from fastclip.data.captions import CaptionConfig
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.base import Field, NotHeldError
from fastclip.data.fields.raw_values import is_missing
from fastclip.data.sources.base import Record
from fastclip.data.sources.spec import MAX_PIXELS, Decode
from fastclip.data.text.interface import Tokenizer


@dataclass(frozen=True)
class Reading:
    """Which fields are read of a record, and with which settings.

    Attributes:
        fields: a record that lacks one of them is bad.
        optional: read of records that have them; a column where a whole micro-batch has.
        image_size: side of the pictures in pixels.
        tokenizer: of captions and texts; None leaves their token columns out.
        augment: of training pictures; None is the evaluation's transform.
        decode: how JPEGs are decoded.
    """

    fields: tuple[Field, ...]
    optional: tuple[Field, ...] = ()
    image_size: int = 224
    tokenizer: Tokenizer | None = None
    captions: CaptionConfig = field(default_factory=CaptionConfig)
    augment: AugmentConfig | None = None
    decode: Decode = "auto"
    max_pixels: int = MAX_PIXELS

    @property
    def hflip(self) -> float:
        """Probability that a picture is mirrored."""
        return 0.0 if self.augment is None else self.augment.hflip

    @property
    def wanted(self) -> frozenset[str]:
        """Names of the raw values that are looked at: a source need not read others."""
        return wanted_of((*self.fields, *self.optional))


def wanted_of(fields: Sequence[Field]) -> frozenset[str]:
    """Names of the raw values that ``fields`` look at."""
    return frozenset(name for f in fields for name in (*f.values, *f.also))


def read(record: Record, reading: Reading) -> dict[Field, Any] | BadRecord:
    """The values of a record's fields, parsed and judged."""
    held = {name: raw for name, raw in record.values.items() if not is_missing(raw)}
    values = {"id": record.key, **held}
    found: dict[Field, Any] = {}
    for f in (*reading.fields, *reading.optional):
        try:
            found[f] = f.read(values, reading)
        except NotHeldError as error:
            if f not in reading.fields:
                continue
            has = listed(sorted(held)) if held else "nothing"
            return BadRecord(record.key, error.reason, f"has {has}, needs {f.found_in}")
        except BadValueError as error:
            return error.of(record.key)
    return found


def build(
    key: str, values: Mapping[Field, Any], draw: Draw | None, reading: Reading
) -> dict[Field, Any] | BadRecord:
    """This time's values of a record that :func:`read` took."""
    try:
        return {f: f.build(value, draw, reading) for f, value in values.items()}
    except BadValueError as error:
        return error.of(key)


def collate(
    keys: Sequence[str],
    built: Sequence[Mapping[Field, Any]],
    draws: Draws | None,
    reading: Reading,
) -> dict[str, Any]:
    """The columns of a micro-batch of at least one record."""
    columns: dict[str, Any] = {"key": list(keys)}
    for f in (*reading.fields, *reading.optional):
        if all(f in values for values in built):
            columns |= f.collate([values[f] for values in built], draws, reading)
    return columns
