"""Batches whose pictures are decoded in the first epoch alone."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

from fastclip.data.cache.disk_cache import DiskCache
from fastclip.data.cache.opening import open_cache
from fastclip.data.cache.reader import CachedReader
from fastclip.data.cache.settings import CacheSettings
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.base import MicroBatch
from fastclip.data.loaders.batching import Batching
from fastclip.data.loaders.findings import Exchange
from fastclip.data.loaders.indexed import IndexedLoader
from fastclip.data.loaders.step_batches import AnyOrder, Item
from fastclip.data.sources.base import Source


def cached_loader(
    settings: CacheSettings,
    source: Source,
    order: AnyOrder,
    reading: Reading,
    batching: Batching,
    *,
    exchange: Exchange,
    **options: Any,
) -> CachedLoader:
    """A loader with the cache that ``settings`` name; ``options`` are :class:`IndexedLoader`'s.

    Raises :class:`UserError` where the cache cannot be written.
    """
    cache, notes = open_cache(settings, source, reading, exchange)
    try:
        reader = CachedReader(source, reading, cache)
        loader = CachedLoader(
            cache, source, order, reader, reading, batching, exchange=exchange, **options
        )
    except BaseException:
        cache.close()
        raise
    loader.notes = notes
    return loader


class CachedLoader(IndexedLoader):
    """As :class:`IndexedLoader`; what an epoch has added to the cache is there for the next one.

    Workers know what was there when they were started: they are started anew after an epoch that
    added something.
    """

    def __init__(self, cache: DiskCache, *args: Any, exchange: Exchange, **options: Any) -> None:
        self.cache = cache
        super().__init__(*args, exchange=exchange, **options)
        self._exchange = exchange
        self._is_whole = False

    def begin(self, epoch: int) -> list[str]:
        """See :meth:`IndexedLoader.begin`."""
        if epoch == self._calendar.epoch:
            return []
        self._commit()
        said = super().begin(epoch)  # where every rank waits for the others
        if self.cache.load():
            self._end_workers()
        return [*said, *self._told()]

    def epoch(self, epoch: int, start_step: int = 0) -> Generator[list[MicroBatch], None, None]:
        """See :meth:`IndexedLoader.epoch`."""
        self._is_whole = False
        yield from super().epoch(epoch, start_step)
        self._is_whole = True

    def finish(self) -> list[str]:
        """See :meth:`IndexedLoader.finish`."""
        self._commit()
        return [*super().finish(), *self._told()]

    def close(self) -> None:
        """See :meth:`IndexedLoader.close`; what an unfinished epoch has added is removed."""
        super().close()
        if self._is_whole:
            self.cache.commit()
        self.cache.close()

    def _take(self, item: Item) -> None:
        self.cache.take(item["news"])
        super()._take(item)

    def _commit(self) -> None:
        if self.cache.has_news:
            self._end_workers()
            self.cache.commit()

    def _told(self) -> list[str]:
        """What the ranks have to say, each sentence once."""
        by_rank = self._exchange(self.cache.told())
        return list(dict.fromkeys(sentence for told in by_rank for sentence in told))
