"""One limit for the pictures of all sets in the cache's folder."""

import os
from pathlib import Path

import pytest
from cached_sets import assert_same, cached, epochs, write_set
from numbered import in_ranks

from fastclip.data.cache.room import nbytes_of, remove_unused

pytestmark = [
    pytest.mark.filterwarnings("ignore:This DataLoader will create"),
    pytest.mark.filterwarnings("ignore:The given NumPy array is not writable"),
]
SIZES = (16, 17, 18)


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("set"))


def folders(cache):
    return {path.name for path in cache.iterdir() if path.is_dir()}


def nbytes(cache):
    return sum(map(nbytes_of, filter(Path.is_dir, cache.iterdir())))


def fill(shards, cache, size, age=0):
    """Pictures for crops of a size, in the folder that is returned."""
    before = folders(cache) if cache.exists() else set()
    epochs(cached(shards, cache, image_size=size), 1)
    (name,) = folders(cache) - before
    os.utime(cache / name, ns=(age, age))
    return name


def run(shards, cache, limit, size=19, **options):
    """What a run says, and its batches, while the limit is kept at any time."""
    loader = cached(shards, cache, (limit + 0.5) / 2**30, image_size=size, **options)
    said, found = list(loader.notes), []
    for number in range(2):
        said += loader.begin(number)
        for step in loader.epoch(number):
            assert nbytes(cache) <= limit
            found += step
    said += loader.finish()
    loader.close()
    return said, found


@pytest.mark.parametrize("workers", [0, 2])
def test_what_no_run_uses_goes_the_oldest_first_and_no_more_than_is_needed(
    shards, tmp_path, workers
):
    ages = {16: 2, 17: 1, 18: 3}
    names = {size: fill(shards, tmp_path, size, age) for size, age in ages.items()}
    sizes = {size: nbytes_of(tmp_path / name) for size, name in names.items()}
    limit = nbytes(tmp_path) + sizes[17] // 3
    said, found = run(shards, tmp_path, limit, workers=workers)
    assert names[17] not in folders(tmp_path) and names[18] in folders(tmp_path)
    told = [line for line in said if "was removed to keep the limit" in line]
    gone = set(names.values()) - folders(tmp_path)
    assert len(told) == len(gone) and all(any(name in line for line in told) for name in gone)
    assert_same(found, sum(epochs(cached(shards, None, image_size=19)), []))
    assert "holds 20 decoded" in cached(shards, tmp_path, image_size=18).notes[0]


def test_what_a_run_uses_stays_and_counts(shards, tmp_path):
    other = cached(shards, tmp_path, 0.001, image_size=16)
    for number in range(2):
        other.begin(number)
        list(other.epoch(number))
    (name,) = folders(tmp_path)
    used = nbytes(tmp_path)
    limit = used + used // 3
    said, _ = run(shards, tmp_path, limit)
    assert name in folders(tmp_path)
    assert [line for line in said if "has reached its limit" in line]
    assert not [line for line in said if "was removed" in line]
    other.close()
    _, found = run(shards, tmp_path, limit)
    assert name not in folders(tmp_path) and nbytes(tmp_path) <= limit
    assert_same(found, sum(epochs(cached(shards, None, image_size=19)), []))


def test_a_lower_limit_is_kept_when_the_folder_is_opened(shards, tmp_path):
    names = [fill(shards, tmp_path, size, age) for age, size in enumerate(SIZES)]
    own, two = (nbytes_of(tmp_path / name) for name in names[2:0:-1])
    loader = cached(shards, tmp_path, (own + two + 0.5) / 2**30, image_size=SIZES[2])
    assert folders(tmp_path) == set(names[1:])
    assert len([note for note in loader.notes if "was removed" in note]) == 1
    loader.close()
    cached(shards, tmp_path, 1 / 2**30, image_size=SIZES[2]).close()
    assert folders(tmp_path) == {names[2]}


def test_without_a_limit_nothing_is_removed(shards, tmp_path):
    names = {fill(shards, tmp_path, size) for size in SIZES}
    assert len(names) == 3 and folders(tmp_path) == names


def test_every_rank_says_what_was_removed(shards, tmp_path):
    names = [fill(shards, tmp_path, size) for size in SIZES[:2]]

    def work(rank, exchange):
        options = {"batch": 3, "rank": rank, "world_size": 2, "exchange": exchange}
        loader = cached(shards, tmp_path, 1 / 2**30, image_size=20, **options)
        loader.close()
        return [note for note in loader.notes if "was removed" in note]

    first, second = in_ranks(2, work)
    assert first == second
    assert {name for name in names if any(name in note for note in first)} == set(names)


def test_a_picture_that_can_never_fit_removes_nothing(shards, tmp_path):
    name = fill(shards, tmp_path, 16)
    limit = nbytes(tmp_path)
    loader = cached(shards, tmp_path, (limit + 0.5) / 2**30, image_size=17)
    with loader.cache.folder.locked():
        assert loader.cache.folder.make_room(limit + 1) == 0
    loader.close()
    assert name in folders(tmp_path)


def write_foreign(folder, kind):
    if kind == "a file of somebody":
        (folder / "notes.txt").write_text("x")
    elif kind == "a folder in it":
        (folder / "0123456789abcdef.1.pixels").mkdir()
    elif kind == "a link to a file":
        (folder / "0123456789abcdef.1.pixels").symlink_to(__file__)


@pytest.mark.parametrize("kind", ["a file of somebody", "a folder in it", "a link to a file"])
def test_what_is_not_of_a_cache_is_never_removed(tmp_path, kind):
    folder = tmp_path / ("a" * 32)
    folder.mkdir()
    (folder / "fedcba9876543210.7.pixels").write_bytes(b"x" * 100)
    write_foreign(folder, kind)
    before = sorted(path.name for path in folder.iterdir())
    assert remove_unused(tmp_path / ("b" * 32), 1000) == []
    assert sorted(path.name for path in folder.iterdir()) == before


def test_other_folders_are_left_alone(tmp_path):
    inside = tmp_path / "elsewhere"
    for path in (tmp_path / "data", tmp_path / ("A" * 32), inside):
        path.mkdir()
        (path / "fedcba9876543210.7.pixels").write_bytes(b"x" * 100)
    (tmp_path / ("c" * 32)).symlink_to(inside)
    (tmp_path / ("d" * 32)).write_text("a file")
    assert remove_unused(tmp_path / ("b" * 32), 1000) == []
    assert len(list(tmp_path.glob("*/*.pixels"))) == 4
