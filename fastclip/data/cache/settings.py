"""Where decoded pictures are kept, and how many."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fastclip.data.fields.picture import PICTURE
from fastclip.data.sources.base import AnySource, ForwardSource
from fastclip.errors import UserError

if TYPE_CHECKING:
    from fastclip.data.fields.reading import Reading


@dataclass(frozen=True)
class CacheSettings:
    """A folder, and the GiB that the pictures of all sets may take there; None for most of what is
    free."""

    folder: Path
    limit: float | None = None


def refuse_useless(
    settings: CacheSettings, source: AnySource, reading: Reading, in_memory: str, wanted_by: str
) -> None:
    """Raise :class:`UserError` where a cache would never be read."""
    asked = f"--cache {settings.folder}"
    if isinstance(source, ForwardSource):
        raise UserError(
            f"{asked} needs data that can be read again, found the stream {source.name}: give "
            "local files"
        )
    if in_memory == "always":
        raise UserError(
            f"{asked} and --in-memory always cannot go together: a set in memory is read once"
        )
    if PICTURE not in (*reading.fields, *reading.optional):
        raise UserError(f"{wanted_by} reads no pictures: leave out {asked}")
