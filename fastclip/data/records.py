"""One record of a data set: raw bytes as read, then decoded; and the book kept on bad ones."""

import contextlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from fastclip.data.bad_records import BadRecord, BadRecords

__all__ = ["BadRecord", "BadRecords"]

PICTURE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_PIXELS = 64_000_000


@dataclass(frozen=True)
class RawRecord:
    """A record as it was read. ``key`` is unique in the data set."""

    key: str
    picture: bytes | Path
    text: bytes | None = None
    label: bytes | None = None
    json: bytes | None = None
    """Read where tags or attributes are asked for."""


@dataclass(frozen=True)
class Facts:
    """What is known of a picture: caption "" and label None where there is none."""

    key: str
    caption: str = ""
    label: int | None = None
    tags: tuple[str, ...] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What the record's json says, where it was read."""


@dataclass(frozen=True)
class Sample:
    """A decoded record: an RGB picture and what is known of it."""

    picture: Image.Image
    facts: Facts


def decode(raw: RawRecord, max_pixels: int = MAX_PIXELS) -> Sample | BadRecord:
    """Decode one record; whatever is wrong with it comes back as a :class:`BadRecord`."""
    facts = read_facts(raw)
    if isinstance(facts, BadRecord):
        return facts
    source = raw.picture if isinstance(raw.picture, Path) else io.BytesIO(raw.picture)
    # Pillow's decoders raise nearly anything on broken input: struct.error, SyntaxError, ...
    try:
        with Image.open(source, formats=PICTURE_FORMATS) as picture:
            if picture.width * picture.height > max_pixels:
                size = f"{picture.width} x {picture.height}"
                return BadRecord(raw.key, "picture is too large", f"{size} > {max_pixels} pixels")
            return Sample(to_rgb(picture), facts)
    except Image.DecompressionBombError as error:
        return BadRecord(raw.key, "picture is too large", str(error))
    except FileNotFoundError:
        return BadRecord(raw.key, "picture file is missing")
    except Exception as error:
        return BadRecord(raw.key, "picture is corrupt", f"{type(error).__name__}: {error}")


def read_facts(raw: RawRecord) -> Facts | BadRecord:
    """What a record says of its picture, which is left alone."""
    caption, label = "", None
    attributes: dict = {}
    if raw.text is not None:
        try:
            caption = raw.text.decode("utf-8").strip()
        except UnicodeDecodeError as error:
            return BadRecord(raw.key, "text is not UTF-8", str(error))
        if not caption:
            return BadRecord(raw.key, "text is empty")
    if raw.label is not None:
        try:
            label = int(raw.label)
        except ValueError:
            return BadRecord(raw.key, "label is not an integer", repr(raw.label[:20]))
    tags: tuple[str, ...] = ()
    if raw.json is not None:
        try:
            attributes = json.loads(raw.json)
            tags = tuple(map(str, attributes.get("tags") or ()))
        except (ValueError, AttributeError, TypeError) as error:
            return BadRecord(raw.key, "json has no list of tags", str(error))
    return Facts(raw.key, caption, label, tags, attributes)


def to_rgb(picture: Image.Image) -> Image.Image:
    """An RGB copy of any picture: upright, transparency on white, 16-bit grey scaled to 8."""
    # A broken EXIF block says nothing about the picture itself.
    with contextlib.suppress(Exception):
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        white = Image.new("RGBA", rgba.size, "white")
        return Image.alpha_composite(white, rgba).convert("RGB")
    return picture.convert("RGB")
