"""How the fields of records are read: what was asked for, and with which settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastclip.data.augment import AugmentConfig
from fastclip.data.bad_records import BadRecord, BadValueError, listed
from fastclip.data.captions import CaptionConfig
from fastclip.data.draws import Draw, Draws
from fastclip.data.fields.base import Field
from fastclip.data.sources.base import AnySource, Record
from fastclip.data.sources.spec import MAX_PIXELS
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError

Decode = Literal["auto", "whole", "scaled", "pillow"]


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
    found: dict[Field, Any] = {}
    for f in (*reading.fields, *reading.optional):
        if not any(name in record.values for name in f.values):
            if f in reading.optional:
                continue
            has = listed(sorted(record.values)) if record.values else "nothing"
            return BadRecord(record.key, f"no {f.name}", f"has {has}, needs {f.found_in}")
        try:
            found[f] = f.read(record.values, reading)
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


def check_held(source: AnySource, fields: Sequence[Field], wanted_by: str) -> None:
    """Raise :class:`UserError` for a source whose records cannot have one of ``fields``."""
    if source.holds is None:
        return
    for f in fields:
        if not source.holds.intersection(f.values):
            raise UserError(
                f"{source.name} holds {listed(sorted(source.holds))} of each record; {wanted_by} "
                f"needs a {f.name}, which is read from {f.found_in}"
            )
