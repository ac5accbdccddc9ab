"""Builds the loader of a training run: streamed, or from memory where the set fits."""

from __future__ import annotations

import os
from typing import Any, Literal

from fastclip.data.cache.settings import CacheSettings, refuse_useless
from fastclip.data.fields.held import check_held
from fastclip.data.fields.reading import Reading
from fastclip.data.loaders.base import Loader
from fastclip.data.loaders.batching import Batching
from fastclip.data.loaders.chosen import DistinctOrders, SampledOrders
from fastclip.data.loaders.findings import Exchange
from fastclip.data.loaders.first_sizes import first_sizes
from fastclip.data.loaders.forward import build_forward
from fastclip.data.loaders.identity import identity
from fastclip.data.loaders.indexed import IndexedLoader
from fastclip.data.loaders.kept import keep_all
from fastclip.data.loaders.memory_need import kept_nbytes
from fastclip.data.loaders.reader import PartReader
from fastclip.data.loaders.set_loader import KeptLoader
from fastclip.data.loaders.step_batches import AnyOrder
from fastclip.data.order import Order, Sampler
from fastclip.data.sources.base import AnySource, ForwardSource
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

InMemory = Literal["auto", "always", "never"]
MEMORY_LIMIT = 2 << 30


def alone(value: object) -> list:
    """An exchange among the ranks of one process."""
    return [value]


def build_loader(
    source: AnySource,
    spec: DataSpec,
    reading: Reading,
    *,
    batch_size_per_rank: int,
    micro_batch_size: int | None = None,
    wanted_by: str = "this objective",
    sampler: Sampler | None = None,
    in_set_order: bool = False,
    rank: int = 0,
    world_size: int = 1,
    exchange: Exchange = alone,
    seed: int = 0,
    workers: int = 0,
    resampled: bool = False,
    in_memory: InMemory = "auto",
    cache: CacheSettings | None = None,
    memory_limit: int = MEMORY_LIMIT,
    progress: bool = True,
) -> Loader:
    """A loader for one rank of a training run; every rank must call it.

    ``micro_batch_size`` None makes one micro-batch of a batch. ``in_memory="auto"`` keeps the set
    in memory when all ranks of this machine together need at most ``memory_limit`` bytes; what is
    not kept there can have its decoded pictures in a ``cache`` on disk.
    ``resampled`` draws records with replacement. A ``sampler`` and ``in_set_order`` (the loader can
    run through the set as it lies, for labels made of it) need the set in memory; ``wanted_by``
    names in sentences what asked for them and for the fields. ``exchange`` gives every rank what
    all ranks gave. Raises :class:`UserError` for data that cannot be read, are fewer than one
    global batch or lack a field.
    """
    _check_choosers(source, spec, reading, sampler, resampled, wanted_by)
    check_held(source, reading.fields, wanted_by)
    if cache is not None:
        refuse_useless(cache, source, reading, in_memory, wanted_by)
    batching = Batching(
        batch_size_per_rank, micro_batch_size or batch_size_per_rank, rank, world_size
    )
    needs = _why_in_memory(reading, sampler, in_set_order, wanted_by)
    if isinstance(source, ForwardSource):
        if needs or in_memory == "always":
            raise UserError(
                f"{needs or '--in-memory always'} needs data that can be read again, found the "
                f"stream {source.name}: give local files"
            )
        return build_forward(
            source,
            spec,
            reading,
            batch_size_per_rank=batching.batch_size,
            micro_batch_size=batching.micro_batch_size,
            rank=rank,
            world_size=world_size,
            exchange=exchange,
            seed=seed,
            workers=workers,
            resampled=resampled,
            progress=progress,
        )
    # What the ranks' caches say may differ.
    sizes = exchange(first_sizes(source, batching.global_batch))[0]
    order: AnyOrder = Order(
        sizes, seed, batch=batching.global_batch, weights=source.weights, resampled=resampled
    )
    options: dict[str, Any] = dict(
        num_samples=spec.num_samples,
        max_bad_share=spec.max_bad_share,
        exchange=exchange,
        timeout=spec.read_timeout,
        identity=identity(
            source,
            spec,
            reading,
            global_batch=batching.global_batch,
            seed=seed,
            resampled=resampled,
        ),
    )
    if in_memory == "auto":
        copies = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        fits = kept_nbytes(source, order.sizes, reading) <= memory_limit // copies
        in_memory = "always" if exchange(fits)[0] else "never"
    if in_memory == "never":
        if needs:
            raise UserError(f"{needs} needs the data in memory: give --in-memory always")
        options["workers"] = workers
        if cache is not None:
            # Here, because it imports decoders.
            from fastclip.data.cache.loader import cached_loader

            return cached_loader(cache, source, order, reading, batching, **options)
        reader = PartReader(source, reading)
        return IndexedLoader(source, order, reader, reading, batching, **options)
    kept = keep_all(
        source,
        reading,
        threads=workers,
        max_bad_share=spec.max_bad_share,
        progress=progress,
        tell_apart=reading.captions.distinct,
    )
    if sampler is not None:
        order = SampledOrders(kept, sampler, seed, batching.global_batch)
    elif reading.captions.distinct:
        order = DistinctOrders(kept, spec.num_samples, source.name, seed, batching.global_batch)
    loader = KeptLoader(kept, source, order, kept, reading, batching, workers=0, **options)
    if cache is not None:
        loader.notes = [f"{source.name} is kept in memory, --cache {cache.folder} is not used"]
    return loader


def _why_in_memory(
    reading: Reading, sampler: Sampler | None, in_set_order: bool, wanted_by: str
) -> str | None:
    """What needs the set in memory, with a verb's subject in front; None where nothing does."""
    if sampler is not None:
        return f"{wanted_by} chooses its records itself, which"
    if in_set_order:
        return f"{wanted_by} makes labels of the set, which"
    return "--captions.distinct" if reading.captions.distinct else None


def _check_choosers(
    source: AnySource,
    spec: DataSpec,
    reading: Reading,
    sampler: Sampler | None,
    resampled: bool,
    wanted_by: str,
) -> None:
    """Refuse several choosers of an epoch's records, of which all but one would be ignored."""
    distinct, weighted = reading.captions.distinct, source.weights is not None
    if resampled and distinct:
        raise UserError(
            "--captions.distinct and --dataset-resampled cannot go together: records drawn with "
            "replacement may hold too few different captions for a batch"
        )
    if weighted and distinct:
        raise UserError(
            "--captions.distinct and --train-data-upsampling-factors cannot go together: the first "
            "shows every record once before any comes again"
        )
    if sampler is None:
        return
    for flag, is_given in (
        ("--dataset-resampled", resampled),
        ("--captions.distinct", distinct),
        ("--train-num-samples", spec.num_samples is not None),
        ("--train-data-upsampling-factors", weighted),
    ):
        if is_given:
            raise UserError(f"{wanted_by} chooses its records itself: leave out {flag}")
