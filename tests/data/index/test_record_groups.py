import pytest

from fastclip.data.bad_records import BadRecord
from fastclip.data.index.records import ShardRecords
from fastclip.data.index.tar_header import Member


def grouped(names, fault=None):
    """{key: extensions} of the records in their order, and the bad records."""
    records = ShardRecords("")
    found = []
    for number, name in enumerate(names):
        member = Member(name, number * 512, 1, (fault or {}).get(name, ""))
        found += records.add(member, lambda _, name=name: name)
    found += records.finish()
    good = [group for group in found if not isinstance(group, BadRecord)]
    assert records.count == len(good)
    bad = [item for item in found if isinstance(item, BadRecord)]
    assert records.lost == sum(item.lost for item in bad)
    return {group.key: dict(group.members) for group in good}, bad


@pytest.mark.parametrize(
    "names, keys",
    [
        ("a.jpg a.txt b.jpg b.txt", "a b"),
        ("a.JPG a.Txt", "a"),
        ("./x/a.jpg ./x/a.txt ./y/a.jpg ./y/a.txt", "x/a y/a"),
        ("v1.0/a.jpg v1.0/a.txt v1.0/b.jpg v1.0/b.txt", "v1.0/a v1.0/b"),
        ("img.v2.16.jpg img.v2.16.txt img.v2.17.jpg img.v2.17.txt", "img.v2.16 img.v2.17"),
        ("a.b.txt a.b.png a.c.txt a.c.png", "a.b a.c"),
        ("a..jpg a..txt", "a."),
        ("2024.01.02.jpg 2024.01.02.cls 2024.01.03.jpg 2024.01.03.cls", "2024.01.02 2024.01.03"),
        # A base name that goes on where another one ends.
        ("p.jpg p.txt p.1.jpg p.1.txt p.2.png p.2.txt", "p p.1 p.2"),
        ("p.1.jpg p.1.txt p.jpg p.txt", "p.1 p"),
        ("p.jpg p.1.jpg p.2.jpg", "p p.1 p.2"),
        ("p.txt p.full.jpg p.full.txt", "p p.full"),
        # Compound extensions do not steal.
        ("a.jpg a.seg.png a.txt b.jpg b.seg.png b.txt", "a b"),
        ("a.depth.png a.jpg a.seg.png a.txt", "a"),
        ("a.jpg a.seg.png", "a"),
        ("a.jpg a.txt a.thumb.jpg a.en.txt a.meta.json a.x.npy", "a"),
        ("v.1.jpg v.1.seg.png v.1.txt v.2.jpg v.2.seg.png v.2.txt", "v.1 v.2"),
    ],
)
def test_which_members_are_a_record(names, keys):
    good, bad = grouped(names.split())
    assert list(good) == keys.split() and not bad
    assert sum(len(members) for members in good.values()) == len(names.split())


def test_the_main_picture_is_read_beside_compound_ones():
    good, _ = grouped(["a.depth.jpg", "a.jpg", "a.seg.jpg", "a.txt"])
    assert good["a"]["jpg"] == "a.jpg"
    assert set(good["a"]) == {"jpg", "depth.jpg", "seg.jpg", "txt"}


@pytest.mark.parametrize("count", [3, 200])
def test_a_stem_of_all_keys_keeps_few_open(count):
    names = [f"img.{n}.{e}" for n in range(count) for e in ("jpg", "txt")]
    good, bad = grouped(names)
    assert sorted(good) == sorted(f"img.{n}" for n in range(count)) and not bad
    with_main, bad = grouped(["img.jpg", "img.txt", *names])
    assert len(with_main) == count + 1 and not bad


def test_a_record_of_unknown_extensions_counts_with_its_extensions():
    good, bad = grouped(["a.jpg", "a.txt", "img.v2.16.heic", "b.jpg", "README.md"])
    assert list(good) == ["a", "b"]
    assert [(b.key, b.reason, b.lost) for b in bad] == [
        ("img.v2.16", "no member that can be read", 1),
        ("README", "no member that can be read", 1),
    ]
    assert "has the extension heic" in bad[0].detail


def test_every_one_of_many_unknown_records_counts():
    _, bad = grouped([f"img.v2.{n}.heic" for n in range(50)])
    assert sum(b.lost for b in bad) == 50


def test_a_text_beside_an_unknown_picture_has_its_extensions_told():
    good, bad = grouped(["a.heic", "a.txt"])
    assert good == {"a": {"heic": "", "txt": "a.txt"}} and not bad


@pytest.mark.parametrize(
    "names, told, lost",
    [
        ("7.jpg 7.txt 7.jpg 7.txt", "member 7.jpg comes twice, member 7.txt comes twice", 1),
        ("7.jpg 7.txt 7.JPG", "member 7.jpg comes twice", 1),
        ("d/7.jpg d/7.txt d/7.txt d/7.txt", "member 7.txt comes twice", 0),
        ("x.7.jpg x.7.jpg x.7.txt", "member x.7.jpg comes twice", 1),
    ],
)
def test_a_member_that_comes_twice(names, told, lost):
    good, bad = grouped(["6.jpg", *names.split(), "8.jpg"])
    assert len(good) == 3
    assert [(b.reason, b.detail, b.lost) for b in bad] == [
        ("member comes twice", f"{told}; the first is read", lost)
    ]
    first = names.split()[0]
    assert first in {name for members in good.values() for name in members.values()}


def test_a_key_that_comes_twice_far_apart():
    good, bad = grouped(["7.jpg", "7.txt", "8.jpg", "8.txt", "7.jpg", "7.txt"])
    assert list(good) == ["7", "8"]
    assert [(b.key, b.reason, b.lost) for b in bad] == [("7", "key comes twice in its shard", 1)]


FOREIGN = {
    ".DS_Store": "hidden file",
    ".a.xmp": "hidden file",
    "x/._a.jpg": "hidden file",
    "__MACOSX/x/a.jpg": "hidden file",
    "README": "name without an extension",
    "x/a.": "name without an extension",
    "x/.jpg": "name without an extension",
    "..jpg": "name without an extension",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_foreign_members_are_told_once_and_part_no_record(name):
    names = ["a.jpg", name, name, "a.txt", name]
    good, (bad,) = grouped(names)
    assert list(good) == ["a"]
    assert (bad.key, bad.reason, bad.lost) == ("", "foreign members", 0)
    assert bad.detail == f"3 x {FOREIGN[name]}, first {name}"


@pytest.mark.parametrize("key", [".a{}", ".v1.{}", "x/..a.{}", ".jpg.{}"])
def test_records_whose_names_begin_with_a_dot_are_read(key):
    keys = [key.format(number) for number in range(20)]
    good, bad = grouped([f"{k}.{e}" for k in keys for e in ("jpg", "txt")])
    assert list(good) == keys and not bad
    assert all(set(members) == {"jpg", "txt"} for members in good.values())


def test_a_link_of_an_unknown_extension_is_foreign():
    _, (bad,) = grouped(["a.jpg", "current.lnk"], {"current.lnk": "link"})
    assert bad.detail == "1 x link, first current.lnk"


def test_a_picture_that_is_a_link_leaves_its_record_without_one():
    good, bad = grouped(["a.jpg", "a.txt"], {"a.jpg": "link"})
    assert set(good["a"]) == {"jpg (link)", "txt"} and not bad


def test_a_record_of_a_link_alone_counts():
    _, (bad,) = grouped(["a.jpg"], {"a.jpg": "sparse file"})
    assert bad.lost == 1 and "jpg (sparse file)" in bad.detail
