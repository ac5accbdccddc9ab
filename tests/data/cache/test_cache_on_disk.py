"""What lies in the cache's folder: complete or not read, within its limit, shared by runs."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cached_sets import assert_same, cached, epochs, write_set
from numbered import in_ranks
from open_loader import batches
from processes import wait_until_ended

from fastclip.data.cache.file_lock import try_lock
from fastclip.data.cache.settings import CacheSettings
from fastclip.data.loaders.set_loader import KeptLoader
from fastclip.errors import UserError

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),
]
SUPPORT = str(Path(__file__).parents[2] / "support")


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def streamed(shards):
    return epochs(cached(shards, None))


def files(cache):
    """Files by their kind."""
    found = {"pixels": [], "npz": [], "owner": [], "unfinished": [], "lock": []}
    for file in sorted(cache.glob("*/*")):
        found[file.name.rpartition(".")[2]].append(file)
    return found


def nbytes(cache):
    return sum(file.stat().st_size for file in cache.glob("*/*"))


def held(loader):
    """How many pictures a new loader finds."""
    return int(loader.notes[0].partition(" holds ")[2].split()[0])


def check(shards, cache, streamed, **options):
    """A run with the cache gives what is streamed; what it said."""
    loader = cached(shards, cache, **options)
    said, found = list(loader.notes), []
    for number in range(2):
        said += loader.begin(number)
        found.append([batch for step in loader.epoch(number) for batch in step])
    said += loader.finish()
    loader.close()
    for shown, same in zip(streamed, found, strict=True):
        assert_same(shown, same)
    return said


@pytest.mark.parametrize("end", ["begin", "finish", "close"])
def test_an_index_is_written_when_an_epoch_has_ended(shards, tmp_path, end):
    loader = cached(shards, tmp_path)
    batches(loader, 0)
    assert not files(tmp_path)["npz"]
    {"begin": lambda: loader.begin(1), "finish": loader.finish, "close": loader.close}[end]()
    assert len(files(tmp_path)["npz"]) == 1
    loader.close()
    assert held(cached(shards, tmp_path)) == 20
    found = files(tmp_path)
    assert len(found["npz"]) == len(found["pixels"]) == 1
    assert not found["unfinished"]


def test_an_epoch_that_is_broken_off_leaves_nothing(shards, tmp_path):
    loader = cached(shards, tmp_path)
    loader.begin(0)
    steps = loader.epoch(0)
    next(steps)
    steps.close()
    loader.close()
    assert not any(found for kind, found in files(tmp_path).items() if kind != "lock")


def run(code, *args):
    """A process that runs ``code`` with the helpers of these tests at hand."""
    start = f"import sys; sys.path.insert(0, {SUPPORT!r}); from cached_sets import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code, *map(str, args)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_is_killed_in_the_first_epoch_leaves_nothing_that_is_read(
    shards, streamed, tmp_path, workers
):
    code = """
import multiprocessing, time
loader = cached(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
loader.begin(0)
steps = loader.epoch(0)
next(steps), next(steps), next(steps)
print(*[child.pid for child in multiprocessing.active_children()], flush=True)
time.sleep(60)
"""
    with run(code, shards, tmp_path, workers) as process:
        children = [int(pid) for pid in process.stdout.readline().split()]
        left = files(tmp_path)["pixels"]
        assert left
        alive = cached(shards, tmp_path)
        assert held(alive) == 0
        assert set(files(tmp_path)["pixels"]) >= set(left), "their owner lives"
        alive.close()
        os.kill(process.pid, signal.SIGKILL)
    assert wait_until_ended(children)
    # Threads of a process may hold its files a moment longer.
    deadline = time.monotonic() + 10
    while (fd := try_lock(files(tmp_path)["owner"][0])) is None:
        assert time.monotonic() < deadline
    os.close(fd)
    check(shards, tmp_path, streamed)
    assert not set(files(tmp_path)["pixels"]) & set(left)
    assert not files(tmp_path)["owner"]


def flip_pixels(cache):
    file = max(files(cache)["pixels"], key=lambda file: file.stat().st_size)
    content = bytearray(file.read_bytes())
    for place in range(0, len(content), 1000):
        content[place] ^= 1
    file.write_bytes(content)


def cut_pixels(cache):
    os.truncate(files(cache)["pixels"][0], 100)


def lengthen_pixels(cache):
    with files(cache)["pixels"][0].open("ab") as file:
        file.write(b"x")


def remove_pixels(cache):
    files(cache)["pixels"][0].unlink()


def empty_pixels(cache):
    os.truncate(files(cache)["pixels"][0], 0)


def flip_index(cache):
    content = bytearray(files(cache)["npz"][0].read_bytes())
    content[len(content) // 2] ^= 1
    files(cache)["npz"][0].write_bytes(content)


def cut_index(cache):
    os.truncate(files(cache)["npz"][0], 300)


def empty_index(cache):
    os.truncate(files(cache)["npz"][0], 0)


DAMAGES = [cut_pixels, lengthen_pixels, remove_pixels, empty_pixels]
DAMAGES += [flip_index, cut_index, empty_index]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_what_is_damaged_is_told_and_made_anew(shards, streamed, tmp_path, damage):
    epochs(cached(shards, tmp_path), 1)
    damage(tmp_path)
    said = check(shards, tmp_path, streamed)
    assert len([line for line in said if "is damaged and is left out" in line]) == 1
    assert "holds 0 decoded" in said[0]
    again = check(shards, tmp_path, streamed)
    assert not [line for line in again if "left out" in line]
    assert len(files(tmp_path)["pixels"]) == len(files(tmp_path)["npz"])


@pytest.mark.parametrize("workers", [0, 2])
def test_pixels_that_are_not_what_was_written_are_decoded_anew(shards, streamed, tmp_path, workers):
    epochs(cached(shards, tmp_path), 2)
    flip_pixels(tmp_path)
    said = check(shards, tmp_path, streamed, workers=workers)
    assert len([line for line in said if "damaged or gone" in line]) == 1


def test_segments_that_go_in_mid_run_are_done_without(shards, streamed, tmp_path):
    epochs(cached(shards, tmp_path), 2)
    loader = cached(shards, tmp_path)
    for file in files(tmp_path)["pixels"]:
        file.unlink()
    for shown, same in zip(streamed, epochs(loader), strict=True):
        assert_same(shown, same)


def test_a_folder_that_goes_in_mid_run_is_done_without(shards, streamed, tmp_path):
    loader = cached(shards, tmp_path / "cache")
    loader.begin(0)
    steps = loader.epoch(0)
    shown = [*next(steps)]
    (tmp_path / "cache").rename(tmp_path / "moved")
    shown += [batch for step in steps for batch in step]
    assert_same(shown, streamed[0])
    said = loader.begin(1)
    assert [line for line in said if "cannot be kept" in line]
    assert_same([batch for step in loader.epoch(1) for batch in step], streamed[1])
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.7])
def test_the_limit_is_kept_at_any_time(shards, streamed, tmp_path, workers, share):
    epochs(cached(shards, tmp_path / "whole"))
    whole = nbytes(tmp_path / "whole")
    limit = int(whole * share)
    loader = cached(shards, tmp_path / "cache", (limit + 0.5) / 2**30, workers=workers)
    said = []
    for number in range(2):
        said += loader.begin(number)
        for (shown,), same in zip(loader.epoch(number), streamed[number], strict=True):
            assert nbytes(tmp_path / "cache") <= limit
            assert_same([shown], [same])
    said += loader.finish()
    loader.close()
    assert nbytes(tmp_path / "cache") <= limit
    assert len([line for line in said if "has reached its limit" in line]) == 1
    assert (nbytes(tmp_path / "cache") > limit / 3) == (share > 0)
    if share:
        assert 0 < held(cached(shards, tmp_path / "cache")) < 24


def test_ranks_keep_one_limit(shards, tmp_path):
    limit = 40_000

    def work(rank, exchange):
        options = {"batch": 3, "rank": rank, "world_size": 2, "exchange": exchange}
        loader = cached(shards, tmp_path, limit / 2**30, **options)
        said = []
        for number in range(2):
            said += loader.begin(number)
            for _ in loader.epoch(number):
                assert nbytes(tmp_path) <= limit
        said += loader.finish()
        loader.close()
        return said

    first, second = in_ranks(2, work)
    assert first == second
    assert len([line for line in first if "has reached its limit" in line]) == 1
    assert limit / 3 < nbytes(tmp_path) <= limit


def test_a_full_disk_ends_the_adding_and_not_the_run(shards, streamed, tmp_path):
    code = """
import pickle, resource
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))
loader = cached(sys.argv[1], sys.argv[2])
said, found = [], []
for number in range(2):
    said += loader.begin(number)
    found.append([batch for step in loader.epoch(number) for batch in step])
said += loader.finish()
loader.close()
for line in said:
    print(line)
for shown, same in zip(epochs(cached(sys.argv[1], None)), found, strict=True):
    assert_same(shown, same)
print("as streamed")
"""
    with run(code, shards, tmp_path) as process:
        said = process.communicate()[0].splitlines()
    assert said[-1] == "as streamed"
    assert len([line for line in said if "cannot be written (File too large)" in line]) == 1
    assert 0 < held(cached(shards, tmp_path)) < 24
    check(shards, tmp_path, streamed)


def test_runs_at_once_do_each_other_no_harm(shards, streamed, tmp_path):
    code = """
loader = cached(sys.argv[1], sys.argv[2], workers=1)
found = epochs(loader, 2)
for shown, same in zip(epochs(cached(sys.argv[1], None)), found, strict=True):
    assert_same(shown, same)
print("as streamed")
"""
    processes = [run(code, shards, tmp_path) for _ in range(2)]
    for process in processes:
        with process:
            assert process.communicate()[0] == "as streamed\n"
    assert held(cached(shards, tmp_path)) >= 20
    check(shards, tmp_path, streamed)
    assert len(files(tmp_path)["npz"]) >= 2


@pytest.mark.parametrize("kind", ["a file", "below a file"])
def test_a_folder_that_cannot_be_made_is_refused_by_every_rank(shards, tmp_path, kind):
    (tmp_path / "file").write_bytes(b"")
    folder = tmp_path / "file" / ("" if kind == "a file" else "below")

    def work(rank, exchange):
        path = folder if rank == 1 else tmp_path / "good"
        with pytest.raises(UserError) as raised:
            cached(shards, path, world_size=2, batch=2, rank=rank, exchange=exchange)
        return str(raised.value)

    first, second = in_ranks(2, work)
    assert first == second
    assert first.startswith(f"--cache {folder} cannot be written: ")
    assert not files(tmp_path / "good")["owner"]


def test_a_cache_that_would_not_be_used_is_refused(shards, tmp_path):
    with pytest.raises(UserError, match="--in-memory always cannot go together"):
        cached(shards, tmp_path, in_memory="always")
    with pytest.raises(UserError, match="found the stream pipe:cat"):
        cached("pipe:cat s-0.tar", tmp_path, num_samples=10)
    from fastclip.data.fields import CAPTION

    with pytest.raises(UserError, match="an objective reads no pictures: leave out --cache"):
        cached(shards, tmp_path, fields=(CAPTION,), wanted_by="an objective")
    assert not list(tmp_path.iterdir())


def test_a_set_that_fits_is_kept_in_memory(shards, tmp_path):
    loader = cached(shards, tmp_path, in_memory="auto")
    assert isinstance(loader, KeptLoader)
    assert loader.notes == [f"{shards} is kept in memory, --cache {tmp_path} is not used"]
    assert not list(tmp_path.iterdir())
    loader = cached(shards, tmp_path, in_memory="auto", memory_limit=1000)
    assert held(loader) == 0
    loader.close()


def test_the_limit_by_default_is_most_of_what_is_free(shards, tmp_path, monkeypatch):
    import shutil

    real = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real._replace(free=10 * 2**30))
    loader = cached(shards, tmp_path)
    (said,) = loader.notes
    assert said == (
        f"--cache {tmp_path} holds 0 decoded pictures of this set and may take up to 8 GiB, 80% "
        "of what is free on its disk (--cache-limit)"
    )
    loader.close()
    assert CacheSettings(tmp_path).limit is None
