import random
import tarfile
import tracemalloc

import pytest
from tar_files import EVERYTHING, pairs, read_shards, tar_bytes

KEYS = [f"{n:04d}" for n in range(12)]
FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def whole(rng, format):
    members = pairs(KEYS)
    if format != tarfile.USTAR_FORMAT:
        members = [(f"{'long/' * 30}{name}", data) for name, data in members]
    return bytearray(tar_bytes(members, format))


def damaged(rng, format):
    data = whole(rng, format)
    how = rng.randrange(3)
    if how != 1:
        for _ in range(rng.choice([1, 3, 30])):
            # Bytes of headers, more than those of data.
            place = rng.randrange(len(data) // 512) * 512 + min(511, int(rng.expovariate(0.005)))
            data[place] = rng.randrange(256) if rng.random() < 0.5 else data[place] ^ 0x80
    if how != 0:
        del data[rng.randrange(len(data)) :]
    return bytes(data)


@pytest.mark.parametrize("turn", range(15))
def test_damaged_shards_give_records_and_bad_records(tmp_path, monkeypatch, turn):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "cache"))
    rng = random.Random(turn)
    tracemalloc.start()
    for number in range(10):
        path = tmp_path / f"{number}.tar"
        path.write_bytes(damaged(rng, rng.choice(FORMATS)))
        (tmp_path / "sizes.json").write_text(f'{{"{path.name}": {len(KEYS)}}}')
        good, bad = read_shards(path)
        assert all(set(r.values) <= EVERYTHING for r in good)
        assert len({record.key for record in good}) == len(good)
        assert all("\n" not in item.detail for item in bad)
        # A damaged name can add a record, damage to the data is not seen here.
        assert len(good) + sum(item.lost for item in bad) >= len(KEYS)
        # Kept, and from a stream, they are the same.
        assert read_shards(path) == (good, bad)
        stream, stream_bad = read_shards(f"{path}::pipe:true")
        assert {r.key: r.values for r in stream} == {r.key: r.values for r in good}
        assert sum(b.lost for b in stream_bad) == sum(b.lost for b in bad) + 1
    assert tracemalloc.get_traced_memory()[1] < 32 << 20
    tracemalloc.stop()


def test_undamaged_shards_are_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "cache"))
    for format in FORMATS:
        path = tmp_path / "a.tar"
        path.write_bytes(whole(random.Random(0), format))
        good, bad = read_shards(path)
        assert len(good) == len(KEYS) and not bad
