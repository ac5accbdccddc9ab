"""Builds the loader of a training run: streamed, or from memory where the set fits."""

import os
from collections.abc import Sequence
from typing import Any, Literal

from fastclip.data.augment import AugmentConfig
from fastclip.data.batches import Loader
from fastclip.data.captions import CaptionConfig
from fastclip.data.collate import Collate
from fastclip.data.in_memory import InMemoryLoader
from fastclip.data.memory import decode_all
from fastclip.data.old_fields import CAPTION, PICTURE, TAGS, Field
from fastclip.data.old_sources import DataSpec, count_records, open_source
from fastclip.data.streaming import StreamingBatches, StreamingLoader
from fastclip.data.text.interface import Tokenizer
from fastclip.errors import UserError

MEMORY_LIMIT = 2 << 30


def build_loader(
    spec: DataSpec,
    *,
    image_size: int,
    tokenizer: Tokenizer,
    batch_size_per_rank: int,
    micro_batch_size: int | None = None,
    fields: Sequence[Field] = (PICTURE, CAPTION),
    wanted_by: str = "this objective",
    sampler: Any = None,
    in_set_order: bool = False,
    rank: int = 0,
    world_size: int = 1,
    seed: int = 0,
    workers: int = 0,
    augment: AugmentConfig | None = None,
    captions: CaptionConfig | None = None,
    resampled: bool = False,
    in_memory: Literal["auto", "always", "never"] = "auto",
    memory_limit: int = MEMORY_LIMIT,
    shuffle_buffer: int = 2000,
    progress: bool = True,
) -> Loader:
    """A loader for one rank of a training run.

    ``augment=None`` takes the evaluation transform, ``captions=None`` the captions as they are.
    ``micro_batch_size`` None makes one micro-batch of a batch. ``in_memory="auto"`` keeps decoded
    pictures in memory when all ranks of this machine together need at most ``memory_limit`` bytes.
    ``resampled`` draws shards (or, in memory, records) with replacement. A ``sampler`` and
    ``in_set_order`` (the loader can run through the set as it lies, for labels made of it) need the
    set in memory; ``wanted_by`` names in sentences what asked for them and for the fields. Raises
    :class:`UserError` for data that cannot be found, read, split into one global batch or that lack
    a field.
    """
    captions = captions or CaptionConfig()
    _check_order(captions, resampled, sampler, spec, wanted_by)
    source = open_source(
        spec, fields, with_tags=captions.tags > 0 or TAGS in fields, wanted_by=wanted_by
    )
    collate = Collate(tuple(fields), tokenizer, captions)
    global_batch = batch_size_per_rank * world_size
    micro_batch = micro_batch_size or batch_size_per_rank
    if in_memory == "auto":
        copies = int(os.environ.get("LOCAL_WORLD_SIZE", world_size))
        at_most = memory_limit // (3 * image_size**2 * copies)
        fits = count_records(source, at_most=at_most, progress=progress) is not None
    if in_memory == "always" or (in_memory == "auto" and fits):
        decoded = decode_all(
            source,
            image_size,
            threads=max(1, workers),
            max_bad_share=spec.max_bad_share,
            max_pixels=spec.max_pixels,
            progress=progress,
            what=spec.path,
        )
        samples = spec.num_samples or len(decoded)
        if sampler is not None:
            samples = sampler.samples_an_epoch(decoded)
        return InMemoryLoader(
            decoded,
            samples,
            _steps(samples, global_batch, spec),
            collate=collate,
            image_size=image_size,
            batch_size=batch_size_per_rank,
            micro_batch_size=micro_batch,
            rank=rank,
            world_size=world_size,
            seed=seed,
            augment=augment,
            sampler=sampler,
            resampled=resampled,
        )
    if sampler is not None or in_set_order:
        what = "chooses its records itself" if sampler is not None else "makes labels of the set"
        raise UserError(
            f"{wanted_by} {what}, which needs the data in memory: give --in-memory always"
        )
    if captions.distinct:
        raise UserError("--captions.distinct needs the data in memory: give --in-memory always")
    streamed = spec.num_samples or count_records(source, progress=progress)
    if streamed is None:
        raise UserError(
            f"the number of records in {spec.path} is not known without reading it: "
            "give --train-num-samples"
        )
    batches = StreamingBatches(
        source,
        collate,
        image_size=image_size,
        batch_size=batch_size_per_rank,
        micro_batch_size=micro_batch,
        steps=_steps(streamed, global_batch, spec),
        rank=rank,
        world_size=world_size,
        workers=workers,
        seed=seed,
        shuffle_buffer=shuffle_buffer,
        augment=augment,
        max_pixels=spec.max_pixels,
        resampled=resampled,
    )
    return StreamingLoader(batches, streamed, spec.max_bad_share)


def _check_order(
    captions: CaptionConfig, resampled: bool, sampler: Any, spec: DataSpec, wanted_by: str
) -> None:
    """Refuse several choosers of an epoch's records, of which all but one would be ignored."""
    if resampled and captions.distinct:
        raise UserError(
            "--captions.distinct and --dataset-resampled cannot go together: records drawn with "
            "replacement may hold too few different captions for a batch"
        )
    if sampler is None:
        return
    for flag, is_given in (
        ("--dataset-resampled", resampled),
        ("--captions.distinct", captions.distinct),
        ("--train-num-samples", spec.num_samples is not None),
    ):
        if is_given:
            raise UserError(f"{wanted_by} chooses its records itself: leave out {flag}")


def _steps(samples: int, global_batch: int, spec: DataSpec) -> int:
    if samples < global_batch:
        raise UserError(
            f"{spec.path} has {samples} usable samples, fewer than one global batch of "
            f"{global_batch}: lower --train-batch-size"
        )
    return samples // global_batch
