"""Pictures a core-second from tar shards to batches with two workers, ours and others'."""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch

from benchmarks.data.cpu_time import ROUNDS, Measured, Runs, interleaved
from benchmarks.data.loader_peers import CACHED, PEERS, Epoch, Load, Maker
from benchmarks.data.photograph_shards import write_shards

PICTURES = {256: 1024, 512: 512, 1024: 384}
CACHED_PICTURES = {512: 1024}
BATCH = 64
WORKERS = 2


def end_to_end_rates(
    pictures: Mapping[int, int] = PICTURES,
    peers: Mapping[str, Maker] = PEERS,
    batch: int = BATCH,
    rounds: int = ROUNDS,
) -> dict[str, Measured]:
    """Pictures a core-second by short side and by peer; ``pictures`` of each side are loaded.

    Every peer reads the same shards, whose records are all delivered once a run. What the workers'
    start and end costs is taken off everywhere: an epoch of one batch a worker is measured beside
    the whole one, and what counts are the pictures and the seconds that the whole one has more.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {str(side): _rates(side, n, peers, batch, rounds) for side, n in pictures.items()}
    finally:
        torch.set_num_threads(threads)


def cached_rates(
    pictures: Mapping[int, int] = CACHED_PICTURES, batch: int = BATCH, rounds: int = ROUNDS
) -> dict[str, Measured]:
    """As :func:`end_to_end_rates`, of ours from the second epoch on with a cache on disk: the
    round that is not counted is the first."""
    return end_to_end_rates(pictures, CACHED, batch, rounds)


def _rates(
    short_side: int, pictures: int, peers: Mapping[str, Maker], batch: int, rounds: int
) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FASTCLIP_CACHE"] = folder  # for the index of shards that will not stay
        few = batch * WORKERS
        loads = [
            Load(write_shards(Path(folder, str(n)), short_side, n), n, batch, WORKERS)
            for n in (pictures, few)
        ]
        makers = {name: partial(_runs, maker, *loads) for name, maker in peers.items()}
        seconds, left_out = interleaved(makers, rounds)
    return Measured({name: (pictures - few) / s for name, s in seconds.items()}, left_out)


def _runs(maker: Maker, all_of: Load, few_of: Load) -> Runs:
    return Runs(_checked(maker(all_of), all_of), _checked(maker(few_of), few_of))


def _checked(epoch: Epoch, load: Load) -> Epoch:
    """An epoch that fails where pictures are missing or come twice."""

    def checked() -> int:
        count = epoch()
        if count != load.pictures:
            raise RuntimeError(f"{count} of {load.pictures} pictures came")
        return count

    return checked
