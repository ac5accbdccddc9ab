"""Real commands through the loader of forward-only streams."""

import multiprocessing
import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from forward_sources import NumberField, loader, run
from processes import wait_until_ended
from shard_files import record, write_shard

from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.webdataset_stream import ShardStreams
from fastclip.errors import UserError

WORKERS = pytest.mark.parametrize("workers", [0, 2])


def shards(folder: Path, sizes: list[int]) -> list[Path]:
    paths, number = [], 0
    for shard, size in enumerate(sizes):
        keys = range(number, number + size)
        records = {f"{key:05d}": record(key, txt=str(key).encode()) for key in keys}
        paths.append(write_shard(folder / f"s{shard}.tar", records))
        number += size
    return paths


def streams(urls: list[str], workers: int, count: int, share=0.0, timeout=20.0, **settings):
    spec = DataSpec(
        path="::".join(urls), num_samples=count, read_timeout=timeout, max_bad_share=share
    )
    source = ShardStreams(spec, urls, NumberField().values)
    return loader(source, workers=workers, spec=spec, **settings)


def got(batches):
    return Counter(key for batch in batches for micro in batch for key in micro["key"])


def noting(folder: Path, command: str) -> str:
    """A pipe of ``command`` that leaves its pid in ``folder``."""
    return f"pipe:echo > {folder}/$$.pid; {command}"


def noted(folder: Path) -> list[int]:
    return [int(path.stem) for path in folder.glob("*.pid")]


@WORKERS
@pytest.mark.parametrize("sizes", [[16], [4, 12], [2] * 8])
def test_each_record_of_commands_comes_once_an_epoch(workers, sizes, tmp_path):
    urls = [f"pipe:cat {path}" for path in shards(tmp_path, sizes)]
    made = streams(urls, workers, 16)
    for epoch in range(2):
        found = got(run(made, epoch))
        assert len(found) == 16 and set(found.values()) == {1}
    assert made.finish() == []
    made.close()


@WORKERS
@pytest.mark.parametrize("code", [0, 18])
def test_a_command_that_dies_half_way_is_what_its_shard_should_have_held(workers, code, tmp_path):
    whole, half = shards(tmp_path, [8, 8])
    cut = half.stat().st_size // 2 // 512 * 512
    urls = [f"pipe:cat {whole}", f"pipe:head -c {cut} {half}; exit {code}"]
    told = []
    for share in (0.0, 0.6):
        made = streams(urls, workers, 16, share)
        try:
            found = got(run(made, 0))
            assert found.total() == 16 and len(found) < 16
            assert any("places were filled" in sentence for sentence in made.finish())
        except UserError as error:
            told.append(str(error))
        made.close()
    assert len(told) == 1 and "of 16 records are bad" in told[0]
    lost = int(told[0].split()[0])
    assert lost > 1


@WORKERS
def test_a_command_that_stalls_is_lost_and_left_behind_by_nobody(workers, tmp_path):
    (path,) = shards(tmp_path, [16])
    url = noting(tmp_path, f"head -c 4096 {path}; sleep 1000")
    made = streams([url], workers, 16, timeout=0.5)
    made.begin(0)
    started = time.monotonic()
    with pytest.raises(UserError, match="of 16 records are bad"):
        list(made.epoch(0))
    assert time.monotonic() - started < 15
    assert noted(tmp_path) and wait_until_ended(noted(tmp_path))


@pytest.mark.parametrize("how", ["closed", "killed"])
def test_commands_end_with_the_workers_that_read_them(how, tmp_path):
    paths = shards(tmp_path, [200, 200])
    urls = [noting(tmp_path, f"cat {path}; sleep 1000") for path in paths]
    others = multiprocessing.active_children()
    made = streams(urls, 2, 400, shuffle_buffer=4)
    made.begin(0)
    batches = made.epoch(0)
    next(batches)
    assert noted(tmp_path)
    if how == "closed":
        batches.close()
    else:
        worker = next(p for p in multiprocessing.active_children() if p not in others)
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(UserError, match="ended by SIGKILL"):
            list(batches)
    assert wait_until_ended(noted(tmp_path))
