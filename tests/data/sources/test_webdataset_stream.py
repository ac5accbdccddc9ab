import gc
import gzip
import multiprocessing
import os
import socket
import time

import pytest
from tar_files import EVERYTHING, other_member, pairs, read_shards, tar_bytes
from webdataset.gopen import gopen, gopen_schemes

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.webdataset import open_source

TRUNCATED = "shard is truncated or unreadable"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FASTCLIP_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def shard(tmp_path):
    path = tmp_path / "00000.tar"
    path.write_bytes(tar_bytes(pairs([f"{n:02d}" for n in range(20)])))
    return path


def keys(records):
    return [record.key for record in records]


def test_a_stream_gives_what_the_file_holds(tmp_path):
    members = [
        *pairs("abc"),
        ("c.jpg", b"again"),
        ("c.png", b"beside"),
        ("d.seg.png", b"mask"),
        *pairs("d"),
        *pairs(f"x.y.{n}" for n in range(20)),
        ("e.txt", b"alone"),
        other_member("f.jpg", b"2", "a.jpg"),
        ("f.txt", b"link"),
        ("g.heic", b"?"),
        *pairs("a"),
        ("._a.jpg", b""),
    ]
    path = tmp_path / "s.tar"
    path.write_bytes(tar_bytes(members)[:-512])
    good, bad = read_shards(path)
    assert len(good) == 24 and len(bad) == 7
    stream, stream_bad = read_shards(f"pipe:cat {path}")
    assert {r.key: dict(r.values) for r in stream} == {r.key: dict(r.values) for r in good}
    told = {(b.key.split("/")[-1], b.reason, b.detail, b.lost) for b in bad}
    assert {(b.key.split("/")[-1], b.reason, b.detail, b.lost) for b in stream_bad} == told


@pytest.mark.parametrize("wanted", [{"caption"}, {"picture"}, {"picture", "label"}])
def test_only_what_is_wanted_is_kept(shard, wanted):
    good, _ = read_shards(f"pipe:cat {shard}", wanted)
    assert len(good) == 20
    assert {name for record in good for name in record.values} == wanted - {"label"}


def test_a_list_of_files_and_commands_is_a_list_of_streams(shard):
    source = open_source(DataSpec(path=f"{shard}::pipe:cat {shard}"), EVERYTHING)
    assert source.forward_only and source.num_parts == 2
    for part in (0, 1):
        assert len([r for r in source.stream(part) if not isinstance(r, BadRecord)]) == 20


@pytest.mark.parametrize(
    "packed", [gzip.compress, lambda d: gzip.compress(d[:9]) + gzip.compress(d[9:])]
)
def test_gzip_is_unpacked(tmp_path, shard, packed):
    (tmp_path / "x").write_bytes(packed(shard.read_bytes()))
    good, bad = read_shards(f"pipe:cat {tmp_path}/x")
    assert len(good) == 20 and not bad


@pytest.mark.parametrize(
    "command, cause",
    [
        ("head -c 13000 {}", "cut inside"),
        ("head -c 8500 {}", "is cut: 308 of 600"),
        ("head -c 13000 {}; exit 18", "the command ended with status 18; "),
        ("head -c 13000 {}; kill -9 $$", "the command was ended by signal 9; "),
        ("gzip -c {} | head -c 300", "Compressed file ended before"),
        (
            "no-such-command {}",
            "the command ended with status 127: /bin/sh: 1: no-such-command: not",
        ),
        ("head -c 13000 {}; echo oh dear >&2; exit 18", "status 18: oh dear; "),
        ("echo one >&2; (echo; echo ' two  words'; echo) >&2; : {}; exit 1", "status 1: two words"),
        ("head -c 100000 /dev/zero >&2; echo end >&2; : {}; exit 1", "end"),
        ("cat {} missing.tar | head -c 13000; cat missing.tar", "cat: missing.tar: No such file"),
        ("true {}", "0 bytes"),
        ("head -c 1000 /dev/urandom; : {}", "not a tar archive"),
        ("exit 3; cat {}", "the command ended with status 3"),
    ],
)
def test_a_pipe_that_dies_half_way_counts_what_it_should_have_held(shard, command, cause):
    good, (bad,) = read_shards("pipe:" + command.format(shard))
    assert bad.reason == TRUNCATED and cause in bad.detail
    assert len(good) + bad.lost == 20 and len(good) < 20


@pytest.mark.parametrize("num_samples, lost", [(None, 1), (60, 27)])
def test_what_should_have_been_held_can_be_told_by_the_run(tmp_path, num_samples, lost):
    data = tar_bytes(pairs("abc"))
    (tmp_path / "x").write_bytes(data[: data.index(b"c.txt") + 1024])
    url = f"pipe:cat {tmp_path}/x::pipe:cat {tmp_path}/x"
    good, bad = read_shards(url, num_samples=num_samples)
    assert len(good) == 6 and [b.lost for b in bad] == [lost, lost]


def test_a_whole_shard_of_a_command_that_failed_is_told_and_nothing_is_lost(shard):
    good, (bad,) = read_shards(f"pipe:cat {shard}; exit 5")
    assert len(good) == 20
    assert (bad.reason, bad.detail, bad.lost) == (TRUNCATED, "the command ended with status 5", 0)


@pytest.mark.parametrize("beside, expected", [({}, None), ({"00000_stats.json": 33}, 33)])
def test_what_a_stream_is_expected_to_hold(shard, beside, expected):
    for name, records in beside.items():
        (shard.parent / name).write_text(f'{{"successes": {records}}}')
    for url in (f"pipe:cat '{shard}' | cat", f"pipe:head -c 5 <{shard}; exit 2"):
        assert open_source(DataSpec(path=url), EVERYTHING).expected(0) == expected
    assert open_source(DataSpec(path="pipe:cat x"), EVERYTHING).expected(0) is None


def is_running(pid_file):
    pid = pid_file.read_text().strip() if pid_file.exists() else ""
    try:
        with open(f"/proc/{pid or None}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until_ended(pid):
    deadline = time.monotonic() + 10
    while is_running(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(pid)


@pytest.mark.parametrize(
    "command",
    [
        "cat {shard}; sleep 100",
        "head -c 9000 {shard}; sleep 100",
        "sleep 100",
        "head -c 9000 {shard} | (cat; sleep 100 & echo $! > {pid}; wait)",
        "head -c 1 {shard}; sleep 100",
    ],
)
def test_a_pipe_that_stalls_is_ended_and_counted(tmp_path, shard, command):
    pid = tmp_path / "pid"
    url = f"pipe:echo $$ > {pid}; {command.format(shard=shard, pid=pid)}"
    good, (bad,) = read_shards(url, read_timeout=0.2)
    assert bad.reason == TRUNCATED and bad.lost == max(
        1, (20 if "shard" in command else 1) - len(good)
    )
    assert "no byte came for 0.2 seconds" in bad.detail and "--read-timeout" in bad.detail
    wait_until_ended(pid)


@pytest.mark.parametrize("way", ["close", "garbage"])
def test_a_stream_that_is_left_ends_its_command(tmp_path, shard, way):
    pid = tmp_path / "pid"
    url = f"pipe:echo $$ > {pid}; cat {shard} {shard} {shard}; sleep 100"
    stream = open_source(DataSpec(path=url), EVERYTHING).stream(0)
    assert next(stream).key == "00000/00"
    assert is_running(pid)
    if way == "close":
        stream.close()
    else:
        del stream
        gc.collect()
    wait_until_ended(pid)


def test_a_process_that_is_killed_leaves_no_command(tmp_path, shard):
    pid = tmp_path / "pid"
    url = f"pipe:cat {shard}; (echo $$ > {pid}; sleep 100)"

    def read():
        stream = open_source(DataSpec(path=url), EVERYTHING).stream(0)
        list(stream)

    process = multiprocessing.get_context("fork").Process(target=read)
    process.start()
    while not (pid.exists() and pid.read_text().strip()):
        time.sleep(0.01)
    assert is_running(pid)
    process.kill()
    process.join()
    wait_until_ended(pid)


def test_commands_are_run_as_a_shell_runs_them(shard):
    url = f"pipe:if read line; then exit 9; fi; sleep 0.01 & wait; A='{shard}'; cat \"$A\""
    good, bad = read_shards(url, read_timeout=5)
    assert len(good) == 20 and not bad


def test_what_a_command_leaves_running_is_ended(tmp_path, shard):
    pid = tmp_path / "pid"
    url = f"pipe:cat {shard}; sleep 100 >/dev/null & echo $! > {pid}"
    read_shards(url)
    wait_until_ended(pid)


def test_no_file_stays_open(shard):
    before = len(os.listdir("/proc/self/fd"))
    read_shards(f"{shard}::pipe:cat {shard}::pipe:exit 2")
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_remote_url_is_read_by_webdataset(shard, monkeypatch):
    def opened(url, mode, bufsize):
        return gopen(f"pipe:cat {shard}")

    monkeypatch.setitem(gopen_schemes, "gs", opened)
    good, bad = read_shards("gs://bucket/some.tar", read_timeout=5)
    assert keys(good)[:2] == ["some/00", "some/01"] and len(good) == 20 and not bad


@pytest.mark.parametrize(
    "error", [ValueError("no\ntoken"), OSError(2, "No such file"), KeyError("x")]
)
def test_a_remote_url_that_cannot_be_opened_is_counted(monkeypatch, error):
    def fails(url, mode, bufsize):
        raise error

    monkeypatch.setitem(gopen_schemes, "gs", fails)
    good, (bad,) = read_shards("gs://bucket/some.tar", num_samples=12)
    assert not good and (bad.reason, bad.lost) == (TRUNCATED, 12) and "\n" not in bad.detail


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_an_url_that_nobody_answers_is_told(scheme):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"{scheme}://127.0.0.1:{taken.getsockname()[1]}/a;b.tar"
        good, (bad,) = read_shards(url, read_timeout=20)
    assert not good and bad.key == url
    assert (
        "the command ended with status 7: curl: (7)" in bad.detail and "0 bytes" not in bad.detail
    )


def test_what_a_stalled_command_said_last_is_told(shard):
    _, (bad,) = read_shards("pipe:echo waiting for a lock >&2; sleep 100", read_timeout=0.3)
    assert bad.detail.endswith("the limit of --read-timeout: waiting for a lock")


def test_a_file_that_disappears_is_counted(shard):
    source = open_source(DataSpec(path=f"{shard}::pipe:true"), EVERYTHING)
    (shard.parent / "sizes.json").write_text('{"00000.tar": 20}')
    shard.unlink()
    (bad,) = source.stream(0)
    assert (bad.lost, bad.detail) == (20, "No such file or directory")
