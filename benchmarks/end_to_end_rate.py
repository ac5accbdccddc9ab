"""Pictures a core-second from tar shards to batches with two workers, ours and others'."""

import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
from cpu_time import ROUNDS, Measured, interleaved
from loader_peers import PEERS, Epoch, Load, Maker
from photograph_shards import write_shards

# Enough for what workers cost to start and end to be little: imports are not counted.
PICTURES = {256: 1024, 512: 512, 1024: 256}
BATCH = 64
WORKERS = 2


def end_to_end_rates(
    pictures: Mapping[int, int] = PICTURES,
    peers: Mapping[str, Maker] = PEERS,
    batch: int = BATCH,
    rounds: int = ROUNDS,
) -> dict[str, Measured]:
    """Pictures a core-second by short side and by peer; ``pictures`` of each side are loaded.

    Every peer reads the same shards, whose records are all delivered once a run.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return {str(side): _rates(side, n, peers, batch, rounds) for side, n in pictures.items()}
    finally:
        torch.set_num_threads(threads)


def _rates(
    short_side: int, pictures: int, peers: Mapping[str, Maker], batch: int, rounds: int
) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["FASTCLIP_CACHE"] = folder  # for the index of shards that will not stay
        shards = write_shards(Path(folder), short_side, pictures)
        load = Load(shards, pictures, batch, WORKERS)
        makers = {name: partial(_checked, maker, load) for name, maker in peers.items()}
        seconds, left_out = interleaved(makers, rounds)
    return Measured({name: pictures / s for name, s in seconds.items()}, left_out)


def _checked(maker: Maker, load: Load) -> Epoch:
    """An epoch that fails where pictures are missing or come twice."""
    epoch = maker(load)

    def checked() -> int:
        count = epoch()
        if count != load.pictures:
            raise RuntimeError(f"{count} of {load.pictures} pictures came")
        return count

    return checked
