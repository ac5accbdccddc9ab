"""What a resumed run must share with the run it continues, for the same batches to come."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastclip.data.fields.reading import Reading
from fastclip.data.sources.base import AnySource
from fastclip.data.sources.spec import DataSpec


def identity(
    source: AnySource,
    spec: DataSpec,
    reading: Reading,
    *,
    global_batch: int,
    seed: int,
    resampled: bool,
) -> dict[str, Any]:
    """Plain values by the flags that set them.

    Ranks, workers and whether the set is kept in memory change no batch, and are left out.
    """
    shared: dict[str, Any] = {
        "--train-data": source.identity(),
        "--train-batch-size": global_batch,
        "--train-num-samples": spec.num_samples,
        "--train-data-upsampling-factors": spec.upsampling,
        "--dataset-resampled": resampled,
        "--seed": seed,
        "fields of the data": sorted(f.name for f in (*reading.fields, *reading.optional)),
        "image size": reading.image_size,
        "--decode": reading.decode,
        "largest picture": reading.max_pixels,
    }
    for flag, config in (("captions", reading.captions), ("augment", reading.augment)):
        for name, value in (asdict(config) if config else {}).items():
            plain = list(value) if isinstance(value, tuple) else value
            shared[f"--{flag}.{name}"] = plain
    return shared
