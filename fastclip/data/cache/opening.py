"""Opens a set's cache on every rank, or refuses it on every rank."""

from __future__ import annotations

import contextlib
import shutil

from fastclip.data.cache.disk_cache import DiskCache
from fastclip.data.cache.fingerprint import cache_fingerprint
from fastclip.data.cache.settings import CacheSettings
from fastclip.data.cache.writer import removed_told
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.findings import Exchange
from fastclip.data.sources.base import Source
from fastclip.errors import UserError

_GIB = 2**30
_SHARE_OF_FREE = 0.8


def open_cache(
    settings: CacheSettings, source: Source, reading: Reading, exchange: Exchange
) -> tuple[DiskCache, list[str]]:
    """The cache of a set, and what there is to say of it; every rank must call it.

    Raises :class:`UserError`, on every rank, where the folder of any cannot be written.
    """
    asked = f"--cache {settings.folder}"
    path = settings.folder / cache_fingerprint(source, reading)
    try:
        cache = DiskCache(path, asked)
        found: str | int = _limit(settings, cache)
    except OSError as error:
        found = f"{asked} cannot be written: {error.strerror or error}"
    by_rank = exchange(found)
    refused = next((one for one in by_rank if isinstance(one, str)), None)
    if refused is not None:
        if not isinstance(found, str):
            cache.close()
        raise UserError(refused)
    cache.folder.limit = min(by_rank)
    with contextlib.suppress(OSError), cache.folder.locked():
        cache.folder.make_room()
    removed = exchange(removed_told(cache.folder, asked))
    notes = [sentence for told in removed for sentence in told]
    return cache, [_told(cache, settings, asked), *notes, *cache.told()]


def _told(cache: DiskCache, settings: CacheSettings, asked: str) -> str:
    room = f"up to {cache.folder.limit / _GIB:.3g} GiB"
    if settings.limit is None:
        room += f", {_SHARE_OF_FREE:.0%} of what is free on its disk (--cache-limit)"
    return f"{asked} holds {len(cache.stored)} decoded pictures of this set and may take {room}"


def _limit(settings: CacheSettings, cache: DiskCache) -> int:
    if settings.limit is not None:
        return int(settings.limit * _GIB)
    free = shutil.disk_usage(cache.folder.path).free
    return cache.folder.nbytes() + int(_SHARE_OF_FREE * free)
