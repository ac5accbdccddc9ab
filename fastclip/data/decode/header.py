"""What a picture's header says, read and judged before anything is decoded."""

import contextlib
import io
import stat
import struct
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from fastclip.data.bad_records import BadValueError
from fastclip.data.decode.orientation import Orientation
from fastclip.data.decode.signatures import foreign_format

START_OF_SCAN = b"\xff\xda"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")

# Pillow warns of what is judged here or has no meaning for the pixels: large pictures, broken EXIF.
warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


@dataclass(frozen=True, slots=True)
class Header:
    """Size in pixels as stored, how that is turned upright, and what can decode it.

    ``for_turbo``: a JPEG of grey levels or colors that libjpeg-turbo makes RGB of.
    ``several_scans``: a JPEG that may come in more than one pass over its pixels.
    """

    height: int
    width: int
    orientation: Orientation
    for_turbo: bool
    several_scans: bool


def read_header(encoded: bytes | Path, max_pixels: int) -> Header:
    """Read and judge a picture's header; raises :class:`BadValueError`."""
    with open_encoded(encoded) as file:
        try:
            with Image.open(file, formats=FORMATS) as picture:
                width, height = picture.size
                if width * height > max_pixels:
                    raise BadValueError(
                        "picture is too large", f"{width} x {height} > {max_pixels} pixels"
                    )
                is_jpeg = picture.format in ("JPEG", "MPO")
                return Header(
                    height,
                    width,
                    _orientation(picture, file),
                    for_turbo=is_jpeg and picture.mode in ("L", "RGB"),
                    several_scans=is_jpeg and _has_several_scans(picture, file),
                )
        except Exception as error:
            raise judged(error, file) from error


@contextlib.contextmanager
def open_encoded(encoded: bytes | Path) -> Iterator[BinaryIO]:
    """The encoded bytes as a file; raises :class:`BadValueError` where there are none."""
    if isinstance(encoded, bytes):
        if not encoded:
            raise BadValueError("picture is empty", "0 bytes")
        yield io.BytesIO(encoded)
        return
    try:
        # Opening a named pipe would wait for a writer.
        found = encoded.stat()
        if not stat.S_ISREG(found.st_mode):
            raise BadValueError("picture file cannot be read", f"{encoded} is no file")
        if not found.st_size:
            raise BadValueError("picture is empty", f"{encoded} has 0 bytes")
        file = encoded.open("rb")
    except (FileNotFoundError, NotADirectoryError) as error:
        raise BadValueError("picture file is missing", str(encoded)) from error
    except (OSError, ValueError) as error:
        raise BadValueError("picture file cannot be read", f"{encoded}: {error}") from error
    with file:
        yield file


def read_encoded(encoded: bytes | Path) -> bytes:
    """The encoded bytes; raises :class:`BadValueError` where they cannot be read."""
    if isinstance(encoded, bytes):
        return encoded
    with open_encoded(encoded) as file:
        try:
            return file.read()
        except OSError as error:
            raise BadValueError("picture file cannot be read", f"{encoded}: {error}") from error


def judged(error: Exception, file: BinaryIO) -> BadValueError:
    """The judgement on a picture of whose decoding came ``error``.

    Pillow raises nearly anything on broken input: struct.error, SyntaxError, ...
    """
    if isinstance(error, BadValueError):
        return error
    if isinstance(error, Image.DecompressionBombError):
        return BadValueError("picture is too large", str(error))
    if not isinstance(error, Image.UnidentifiedImageError):
        return BadValueError("picture is corrupt", f"{type(error).__name__}: {error}")
    file.seek(0)
    start = file.read(64)
    foreign = foreign_format(start)
    if foreign is None:
        return BadValueError(
            "picture is corrupt", f"no readable header, starts with {start[:12]!r}"
        )
    accepted = f"{', '.join(FORMATS[:-1])} and {FORMATS[-1]}"
    return BadValueError("picture is of another format", f"{foreign}; {accepted} are read")


def _orientation(picture: Image.Image, file: BinaryIO) -> Orientation:
    # A broken EXIF block says nothing about the picture itself.
    with contextlib.suppress(Exception):
        if picture.format == "PNG" and "exif" not in picture.info:
            late = _late_exif(file)
            if late is not None:
                picture.info["exif"] = late
        # A PNG's own getexif decodes the picture first, to find a block behind the pixels.
        exif = Image.Image.getexif(picture)
        return Orientation.from_exif(exif.get(ExifTags.Base.Orientation))
    return Orientation()


def _has_several_scans(picture: Image.Image, file: BinaryIO) -> bool:
    """Whether Pillow, which reads a JPEG up to its pixels, stopped behind a scan of less than all
    that there is."""
    components = len(picture.getbands())
    head = _read_at(file, max(0, file.tell() - 8 - 2 * components), 5)
    whole = head[:2] == START_OF_SCAN and head[4] == components
    return "progressive" in picture.info or not whole


def _late_exif(file: BinaryIO) -> bytes | None:
    """The content of a PNG's eXIf chunk, found by going from chunk to chunk."""
    place = file.tell()
    try:
        at = 8
        while len(head := _read_at(file, at, 8)) == 8:
            length, name = struct.unpack(">I4s", head)
            if name == b"eXIf":
                return file.read(length)
            at += length + 12
        return None
    finally:
        file.seek(place)


def _read_at(file: BinaryIO, place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)
