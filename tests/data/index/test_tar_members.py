import io
import tarfile

import pytest
from tar_files import other_member, pairs, tar_bytes

from fastclip.data.index.tar_header import BrokenTarError, Member
from fastclip.data.index.tar_members import members
from fastclip.data.sources.streamed_tar import StreamedTar


class Whole:
    def __init__(self, data):
        self.data, self.end = data, len(data)

    def read(self, offset, size):
        return self.data[offset : offset + size]


def streamed(data):
    file = io.BytesIO(data)
    return StreamedTar(lambda: file.read(700))


OPENINGS = pytest.mark.parametrize("opened", [Whole, streamed])
LONG = "folder/" * 30 + "name.jpg"


def all_members(archive):
    found = []
    try:
        for member in members(archive):
            found.append(member)
    except BrokenTarError as error:
        return found, str(error)
    return found, ""


@OPENINGS
@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_lie_where_tarfile_finds_them(opened, format):
    files = [("a.jpg", b"x" * 1000), ("ä ö.txt", b"t"), ("empty.cls", b""), ("b.jpg", b"y" * 512)]
    if format != tarfile.USTAR_FORMAT:
        files.insert(1, (LONG, b"long"))
    data = tar_bytes(files, format)
    found, broken = all_members(opened(data))
    assert not broken
    assert [(m.name, data[m.offset : m.offset + m.size]) for m in found] == files


def test_a_pax_header_overrides_name_and_size():
    info = tarfile.TarInfo("short.jpg")
    info.pax_headers = {"path": "other.jpg", "comment": "a\nb=c"}
    assert [m.name for m in members(Whole(tar_bytes([info], tarfile.PAX_FORMAT)))] == ["other.jpg"]


def test_global_pax_headers_are_passed_over():
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", pax_headers={"comment": "of all"}) as tar:
        tar.addfile(tarfile.TarInfo("a.jpg"))
    assert [m.name for m in members(Whole(file.getvalue()))] == ["a.jpg"]


@OPENINGS
@pytest.mark.parametrize(
    "kind, fault",
    [
        (tarfile.SYMTYPE, "link"),
        (tarfile.LNKTYPE, "link"),
        (tarfile.CHRTYPE, "device or pipe"),
        (tarfile.FIFOTYPE, "device or pipe"),
        (b"V", "unknown kind of file"),
        (tarfile.GNUTYPE_SPARSE, "sparse file"),
    ],
)
def test_what_is_no_plain_file_is_told_and_what_follows_is_found(opened, kind, fault):
    data = tar_bytes([other_member("x.jpg", kind, "/etc/passwd"), ("b.jpg", b"data")])
    found, broken = all_members(opened(data))
    assert [(m.name, m.fault) for m in found] == [("x.jpg", fault), ("b.jpg", "")]
    assert not broken


def test_a_sparse_file_in_a_pax_header_is_refused():
    info = tarfile.TarInfo("s.jpg")
    info.pax_headers = {"GNU.sparse.major": "1"}
    (member,) = members(Whole(tar_bytes([info], tarfile.PAX_FORMAT)))
    assert member.fault == "sparse file"


def test_the_map_of_a_sparse_file_may_go_on():
    header = bytearray(tar_bytes([other_member("s.jpg", tarfile.GNUTYPE_SPARSE)])[:512])
    header[482] = 1
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    more = bytearray(512)
    more[504] = 1
    data = bytes(header + more + bytes(512)) + tar_bytes([("b.jpg", b"data")])
    found, broken = all_members(Whole(data))
    assert [m.name for m in found] == ["s.jpg", "b.jpg"] and not broken


def test_folders_are_no_members():
    data = tar_bytes([other_member("f", tarfile.DIRTYPE), ("f/b.jpg", b"data")])
    assert [m.name for m in members(Whole(data))] == ["f/b.jpg"]


def test_names_stay_on_one_line():
    assert [m.name for m in members(Whole(tar_bytes([("a\nb\t.jpg", b"")])))] == ["a\\nb\\t.jpg"]


def test_a_name_that_is_not_utf8_is_spelled_out():
    data = tar_bytes([("aXb.jpg", b"")]).replace(b"aXb", b"a\xe9b", 1)
    changed = bytearray(data)
    changed[148:156] = b"        "
    changed[148:156] = b"%06o\0 " % sum(changed[:512])
    assert [m.name for m in members(Whole(bytes(changed)))] == ["a\\xe9b.jpg"]


@OPENINGS
def test_two_archives_one_behind_the_other_are_both_read(opened):
    data = tar_bytes(pairs("ab")) + tar_bytes(pairs("cd"))
    found, broken = all_members(opened(data))
    assert "".join(m.name[0] for m in found) == "aabbccdd" and not broken


WHOLE = tar_bytes([("a.jpg", b"x" * 600), ("b.jpg", b"y" * 600)])
# a: header 0, data 512 to 1112, padded to 1536; b: header 1536, data 2048 to 2648, padded to 3072.


@OPENINGS
@pytest.mark.parametrize(
    "data, names, cause",
    [
        (b"", "", "0 bytes"),
        (b"\x1f", "", "not a tar archive, it begins with b'\\x1f'"),
        (b"<html>404</html>", "", "not a tar archive, it begins with b'<html>404</h'"),
        (b"\1" + WHOLE[1:], "", "a member's header is wrong: bad checksum"),
        (WHOLE[:300], "", "cut inside a member's header"),
        (WHOLE[:700], "", "member a.jpg is cut: 188 of 600 bytes"),
        (WHOLE[:1536], "a", "no end mark"),
        (WHOLE[:1600], "a", "cut inside a member's header"),
        (WHOLE[:2600], "a", "member b.jpg is cut: 552 of 600 bytes"),
        (WHOLE[:2900], "ab", "no end mark"),
        (WHOLE[:3072], "ab", "no end mark"),
        (WHOLE[:3584], "ab", ""),
        (WHOLE[:3590], "ab", ""),
        (WHOLE + b"junk" * 200, "ab", "is wrong: invalid header, behind the end mark"),
        (WHOLE[:1536] + b"\1" + WHOLE[1537:], "a", "a member's header is wrong: bad checksum"),
        (b"this is no archive" * 99, "", "not a tar archive, it begins with b'this is no a'"),
        (b"BZh9" + bytes(range(256)) * 3, "", "bzip2 data, accepted are .tar and .tar.gz"),
        (b"\x28\xb5\x2f\xfd" + b"1" * 900, "", "zstd data, accepted are .tar and .tar.gz"),
    ],
)
def test_where_an_archive_breaks_off(opened, data, names, cause):
    found, broken = all_members(opened(data))
    # A stream tells that the last member is cut only after it.
    sound = [m for m in found if m.offset + m.size <= len(data)]
    assert "".join(m.name[0] for m in sound) == names
    assert cause in broken and bool(broken) == bool(cause)


def with_size(field):
    header = bytearray(tar_bytes([("a.jpg", b"")]))
    header[124:136] = field
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


@pytest.mark.parametrize(
    "field", [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"77777777777\0", b"99999999999\0"]
)
def test_a_size_beyond_all_bounds_breaks_off(field):
    found, broken = all_members(Whole(with_size(field)))
    assert not found and broken


@pytest.mark.parametrize(
    "records",
    [
        b"99 path=a.jpg\n",
        b"5 path=a.jpg\n",
        b"path=a.jpg\n",
        b"14 size=-12345\n",
        b"14 size=12345x\n",
    ],
)
def test_pax_records_that_are_wrong_break_off(records):
    info = tarfile.TarInfo("p")
    info.type, info.size = tarfile.XHDTYPE, len(records)
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(records))
        tar.addfile(tarfile.TarInfo("a.jpg"))
    found, broken = all_members(Whole(file.getvalue()))
    assert not found and "header is wrong" in broken


def test_a_header_that_would_fill_the_memory_breaks_off():
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 33
    found, broken = all_members(Whole(info.tobuf(tarfile.GNU_FORMAT)))
    assert not found and "header is wrong" in broken


def test_a_member_of_more_than_a_gibibyte_is_not_read():
    class Endless(Whole):
        end = 1 << 40

        def __init__(self, data):
            self.data = data

    (member, *_), _ = all_members(Endless(with_size(b"20000000000\0")))
    assert member == Member("a.jpg", 512, 1 << 31, "file above 1 GiB")


class Endless:
    """``data``, then zeros for ever, of which it was asked for ``reached`` bytes."""

    end = None

    def __init__(self, data):
        self.data, self.reached = data, 0

    def read(self, offset, size):
        self.reached = offset + size
        return self.data[offset : offset + size].ljust(size, b"\0")


@pytest.mark.parametrize("files", [[], [("a.jpg", b"x" * 1000), ("a.txt", b"t")]])
def test_zeros_without_end_are_not_read_for_ever(files, monkeypatch):
    monkeypatch.setattr("fastclip.data.index.tar_members.MOST_ZEROS", 1 << 16)
    data = Endless(tar_bytes(files).rstrip(b"\0"))
    found, broken = all_members(data)
    assert [member.name for member in found] == [name for name, _ in files]
    assert broken.startswith("zeros alone from byte ")
    assert data.reached < len(data.data) + (1 << 17)


@OPENINGS
def test_an_archive_that_follows_not_too_many_zeros_is_read(opened, monkeypatch):
    monkeypatch.setattr("fastclip.data.index.tar_members.MOST_ZEROS", 1 << 16)
    one = tar_bytes([("a.jpg", b"x" * 1000)]).rstrip(b"\0")
    one += bytes(-len(one) % 512) + bytes(60_000 // 512 * 512)
    found, broken = all_members(opened(one + one + one))
    assert len(found) == 3 and not broken
