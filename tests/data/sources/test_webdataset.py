import gzip
import os
import tarfile
from pathlib import Path

import pytest
from shard_files import record, write_shard, write_shards
from tar_files import EVERYTHING, other_member, pairs, read_shards, tar_bytes

from fastclip.data.bad_records import BadRecord
from fastclip.data.index import shard_file
from fastclip.data.sources.base import Record, Size
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.webdataset import detects, open_source
from fastclip.errors import UserError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "cache"))


def source_of(path, wanted=EVERYTHING):
    return open_source(DataSpec(path=str(path)), wanted)


def write(path, members, **settings):
    path.write_bytes(tar_bytes(members, **settings))
    return path


def test_records_come_with_the_values_that_are_wanted(tmp_path):
    members = dict(record(3), json=b'{"a": 1}', npy=b"?")
    path = write_shard(tmp_path / "s.tar", {"x/7": members})
    names = {"picture": "png", "caption": "txt", "label": "cls", "json": "json"}
    for wanted in (set(), {"picture"}, {"caption", "label"}, {*names, "tags"}):
        good, bad = read_shards(path, wanted)
        assert good == [Record("s/x/7", {v: members[names[v]] for v in wanted - {"tags"}})]
        assert not bad


@pytest.mark.parametrize("picture", ["jpg", "jpeg", "png", "webp", "gif", "bmp", "GIF"])
def test_every_kind_of_picture_is_read(tmp_path, picture):
    good, bad = read_shards(write(tmp_path / "s.tar", pairs("ab", picture)))
    assert [r.values["picture"][:9] for r in good] == [b"picture a", b"picture b"] and not bad


def test_members_of_any_order_and_any_number_are_read(tmp_path):
    source = source_of(write_shards(tmp_path, [3, 5]))
    assert source.num_parts == 2
    part = source.open(1)
    assert [part.read(n).key for n in (4, 0, 4)] == ["s-01/00007", "s-01/00003", "s-01/00007"]
    with pytest.raises(IndexError):
        part.read(5)
    part.close()


def test_keys_have_the_whole_path_where_names_are_not_unique(tmp_path):
    for folder in "ab":
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "0.tar", pairs("x"))
    good, _ = read_shards(f"{tmp_path}/{{a,b}}/0.tar")
    assert [r.key for r in good] == [f"{tmp_path}/{f}/0.tar/x" for f in "ab"]


@pytest.mark.parametrize("prefix", ["file:", "file://"])
def test_file_urls_are_files(tmp_path, prefix):
    path = write(tmp_path / "a.tar", pairs("x"))
    assert not source_of(f"{prefix}{path}").forward_only
    assert len(read_shards(f"{path}::{prefix}{path}")[0]) == 2


@pytest.mark.parametrize(
    "name, keys",
    [
        ("{:04d}", [f"{n:04d}" for n in range(16)]),
        ("img.v2.{}", [f"img.v2.{n}" for n in range(16)]),
        ("2024.{:02d}.photo", [f"2024.{n:02d}.photo" for n in range(16)]),
        ("{}.", [f"{n}." for n in range(16)]),
    ],
)
def test_dots_in_base_names(tmp_path, name, keys):
    members = pairs([name.format(n) for n in range(16)])
    good, bad = read_shards(write(tmp_path / "s.tar", members))
    assert [r.key for r in good] == [f"s/{key}" for key in keys] and not bad
    assert all(set(r.values) == {"picture", "caption"} for r in good)


def test_a_record_without_a_picture_is_bad_with_what_it_has(tmp_path):
    path = write(tmp_path / "s.tar", [*pairs("a"), ("b.heic", b"x"), ("b.txt", b"x"), *pairs("c")])
    good, (bad,) = read_shards(path)
    assert [r.key for r in good] == ["s/a", "s/c"]
    assert (bad.key, bad.reason, bad.lost) == ("s/b", "no picture", 1)
    assert "has the extensions heic and txt" in bad.detail
    texts, bad = read_shards(path, {"caption"})
    assert [r.key for r in texts] == ["s/a", "s/b", "s/c"] and not bad


def test_members_that_no_record_has_are_one_problem(tmp_path):
    members = [
        other_member("folder", tarfile.DIRTYPE),
        *pairs("ab"),
        other_member("c.jpg", tarfile.SYMTYPE, "a.jpg"),
        ("c.txt", b"text"),
        *((f"._{n}", b"") for n in range(50)),
        ("LICENSE", b""),
    ]
    good, bad = read_shards(write(tmp_path / "s.tar", members))
    assert [r.key for r in good] == ["s/a", "s/b"]
    assert [(b.key.split("/")[-1], b.reason, b.lost) for b in bad] == [
        ("c", "no picture", 1),
        ("s.tar", "foreign members", 0),
    ]
    assert "jpg (link)" in bad[0].detail and "50 x hidden file, first ._0" in bad[1].detail


def test_keys_and_members_that_come_twice(tmp_path):
    twice = pairs(["1", "2"]) + pairs(["2"]) + pairs(["3", "1"])
    good, bad = read_shards(write(tmp_path / "s.tar", twice))
    assert [r.key for r in good] == ["s/1", "s/2", "s/3"]
    assert [(b.key, b.reason) for b in bad] == [
        ("s/2", "member comes twice"),
        ("s/1", "key comes twice in its shard"),
    ]


def test_second_pictures_of_a_key_are_told_once_a_shard_and_lose_no_record(tmp_path):
    members = [*pairs(["1"]), ("1.png", b"p"), *pairs(["2"]), ("3.png", b"p"), ("3.webp", b"w")]
    members += [(f"{n}.{e}", b"x") for n in (4, 5) for e in ("png", "jpg", "seg.png", "txt")]
    path = write(tmp_path / "s.tar", [*members, ("5.webp", b"x")])
    for _ in range(2):  # the second time of the kept index
        good, (bad,) = read_shards(path)
        assert [r.key for r in good] == [f"s/{n}" for n in range(1, 6)]
        assert bad == BadRecord(
            str(path),
            "records with a second picture",
            "3 x .png beside the .jpg that is read, first 1; 1 x .webp beside the .jpg that is "
            "read, first 5; 1 x .webp beside the .png that is read, first 3",
            lost=0,
        )


@pytest.mark.parametrize("said, lost", [(None, 1), (10, 6), (3, 1)])
def test_a_broken_end_counts_what_the_shard_should_have_held(tmp_path, said, lost):
    data = tar_bytes(pairs([f"{n:02d}" for n in range(10)]))
    a_record = data.index(b"01.jpg") - data.index(b"00.jpg")
    (tmp_path / "00.tar").write_bytes(data[: 4 * a_record + 700])
    if said is not None:
        (tmp_path / "00_stats.json").write_text(f'{{"successes": {said}}}')
    good, (bad,) = read_shards(tmp_path / "00.tar")
    assert len(good) == 4
    assert (bad.key, bad.reason) == (f"{tmp_path}/00.tar", "shard is truncated or unreadable")
    assert "member 04.jpg is cut" in bad.detail and bad.lost == lost


@pytest.mark.parametrize("data", [b"", b"no archive" * 99, b"\x1f\x8b broken", b"\x1f\x8b"])
def test_what_is_no_archive_counts_what_it_should_have_held(tmp_path, data):
    (tmp_path / "a.tar").write_bytes(data)
    (tmp_path / "sizes.json").write_text('{"a.tar": 7}')
    source = source_of(tmp_path / "a.tar")
    assert source.size(0).records in (0, 7)
    assert [(b.reason, b.lost) for b in read_shards(tmp_path / "a.tar")[1]] == [
        ("shard is truncated or unreadable", 7)
    ]


@pytest.mark.parametrize("said, lost", [(None, 1), (9, 9)])
def test_a_shard_that_disappears_counts_what_it_should_have_held(tmp_path, said, lost):
    path = write(tmp_path / "a.tar", pairs("abc"))
    source = source_of(path)
    if said:
        (tmp_path / "sizes.json").write_text(f'{{"a.tar": {said}}}')
    path.unlink()
    assert source.size(0) == Size(lost, believed=True)
    part = source.open(0)
    assert len(part) == 0
    assert [(b.key, b.lost, b.detail) for b in part.problems] == [
        (str(path), lost, "No such file or directory")
    ]
    part.close()


def test_a_shard_that_is_replaced_is_indexed_anew(tmp_path):
    path = write(tmp_path / "a.tar", pairs("abc"))
    source = source_of(path)
    assert source.size(0) == Size(3)
    write(tmp_path / "new", pairs("vwxyz")).replace(path)
    assert source.size(0) == Size(5)
    assert [r.key for r in read_shards(path)[0]] == [f"a/{k}" for k in "vwxyz"]


@pytest.mark.parametrize("how", ["shorter", "rewritten"])
def test_a_shard_that_changes_while_it_is_open_is_told(tmp_path, how):
    path = write(tmp_path / "a.tar", pairs("abc"))
    part = source_of(path).open(0)
    assert isinstance(part.read(2), Record)
    if how == "shorter":
        os.truncate(path, 600)
    else:
        write(path, pairs("xyz"))
        os.utime(path, ns=(0, 0))
    found = part.read(2)
    told = {"shorter": "cannot be read", "rewritten": "shard was changed while it was read"}
    assert isinstance(found, BadRecord) and found.reason == told[how]
    part.close()


@pytest.mark.parametrize("ending", ["tar", "tgz"])
def test_a_failure_of_the_disk_is_told_and_forgotten(tmp_path, monkeypatch, ending):
    data = tar_bytes(pairs([f"{n:02d}" for n in range(40)]))
    path = tmp_path / f"a.{ending}"
    path.write_bytes(gzip.compress(data) if ending == "tgz" else data)

    def fails(*_):
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch:
        if ending == "tar":
            pread = os.pread
            patch.setattr(os, "pread", lambda f, n, at: fails() if at > 50_000 else pread(f, n, at))
        else:
            patch.setattr("tempfile.SpooledTemporaryFile.write", fails)
        good, bad = read_shards(path)
        assert "Input/output error" in bad[-1].detail and len(good) < 40
    assert len(read_shards(path)[0]) == 40


@pytest.mark.parametrize("ending", ["tar.gz", "tgz", "tar"])
@pytest.mark.parametrize("memory", [1 << 28, 1000])
def test_gzip_shards_are_read_at_random(tmp_path, monkeypatch, ending, memory):
    monkeypatch.setattr(shard_file, "MAX_UNPACKED_MEMORY", memory)
    path = tmp_path / f"s.{ending}"
    data = tar_bytes(pairs("abc"))
    path.write_bytes(gzip.compress(data[:700]) + gzip.compress(data[700:]))
    source = source_of(path)
    for size in (Size(3), Size(3)):
        assert source.size(0) == size
        part = source.open(0)
        assert [part.read(n).values["caption"] for n in (2, 0)] == [b"caption c", b"caption a"]
        assert (part.nbytes() > len(data)) == (memory > len(data))
        part.close()


def test_a_gzip_shard_that_is_cut(tmp_path):
    packed = gzip.compress(tar_bytes([*pairs("abc"), ("d.jpg", os.urandom(9000))]))
    (tmp_path / "s.tgz").write_bytes(packed[:-3000])
    good, (bad,) = read_shards(tmp_path / "s.tgz")
    assert [r.key for r in good] == ["s/a", "s/b", "s/c"]
    assert "d.jpg is cut" in bad.detail and "Compressed file ended" in bad.detail


def test_a_gzip_shard_unpacks_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(shard_file, "MAX_UNPACKED_BYTES", 1 << 20)
    (tmp_path / "s.tgz").write_bytes(gzip.compress(tar_bytes([("a.jpg", bytes(1 << 23))])))
    _, (bad,) = read_shards(tmp_path / "s.tgz")
    assert bad.reason == "shard is truncated or unreadable" and "unpacks to more" in bad.detail


def test_believed_sizes_open_no_shard_and_true_ones_win(tmp_path, monkeypatch):
    path = write(tmp_path / "a.tar", pairs("abc"))
    (tmp_path / "a_stats.json").write_text('{"successes": 5}')
    source = source_of(path)
    with monkeypatch.context() as patch:
        patch.setattr("fastclip.data.index.shard_file.ShardFile.__init__", None)
        assert source.size(0) == Size(5, believed=True)
    source.open(0).close()
    assert source.size(0) == Size(3)
    assert source_of(path).size(0) == Size(3)


def test_the_identity_is_that_of_the_records(tmp_path):
    (tmp_path / "copy").mkdir()
    one = write(tmp_path / "a.tar", pairs("abc"))
    same = write(tmp_path / "copy" / "a.tar", pairs("abc"))
    more = write(tmp_path / "b.tar", pairs(map(str, range(30))))
    assert source_of(one).identity() == source_of(same).identity()
    assert len({source_of(p).identity() for p in (one, more, f"{one}::{more}")}) == 3
    before = source_of(one).identity()
    write(one, pairs(map(str, range(30))))
    assert source_of(one).identity() != before


@pytest.mark.parametrize("path", ["no.tar", "no-{0..3}.tar", "no-*.tar", ""])
def test_shards_that_are_not_there_are_refused(tmp_path, path):
    with pytest.raises(UserError) as error:
        source_of(f"{tmp_path}/{path}" if path else "")
    assert "\n" not in str(error.value)


def test_urls_that_cannot_be_opened_are_refused():
    with pytest.raises(UserError, match="s3://bucket/0.tar.*accepted are.*https:.*pipe:aws"):
        source_of("s3://bucket/0.tar")


@pytest.mark.parametrize(
    "path, head, right",
    [
        ("a.tar", b"", True),
        ("a-{000..999}.tar", b"", True),
        ("a.tar.gz::b.tgz", b"", True),
        ("data", tar_bytes([("a.jpg", b"")])[:512], True),
        ("a.csv", b"filepath\ttitle\n", False),
        ("a.json.gz", b"\x1f\x8b", False),
        ("target", b"", False),
    ],
)
def test_what_is_taken_for_shards(path, head, right):
    assert detects(Path(path), head) is right
