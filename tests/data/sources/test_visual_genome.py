import json
from pathlib import Path

import pytest
from annotation_files import open_file, read_all, values_of, write_json, write_pictures

from fastclip.data.sources import visual_genome
from fastclip.data.sources.base import CroppedPicture
from fastclip.errors import UserError


def region(number, picture, phrase, box=(1, 2, 30, 40), **more):
    sides = dict(zip(("x", "y", "width", "height"), box, strict=True))
    return {"region_id": number, "image_id": picture, "phrase": phrase, **sides, **more}


def entry(number, *regions):
    return {"id": number, "regions": list(regions)}


def write(folder, *entries):
    write_pictures(folder / "VG_100K", ["1.jpg", "3.jpg"])
    write_pictures(folder / "VG_100K_2", ["2.jpg"])
    return write_json(folder / "region_descriptions.json", list(entries))


def opened(folder, *entries, regions="crop", **settings):
    return open_file(visual_genome, write(folder, *entries), regions=regions, **settings)


TWO = (
    entry(1, region(10, 1, "a red car"), region(11, 1, "the sky\n", (0, 0, 9, 9))),
    entry(2, region(12, 2, "A dog")),
)


def test_each_region_is_a_record_of_its_box(tmp_path):
    source = opened(tmp_path, *TWO)
    records, bad = read_all(source)
    assert [r.key for r in records] == ["1/10", "1/11", "2/12"] and not bad
    picture = CroppedPicture(tmp_path / "VG_100K" / "1.jpg", (1, 2, 30, 40))
    assert records[0].values == {"picture": picture, "caption": "a red car", "id": 1}
    # The pictures lie in two folders.
    assert records[2].values["picture"].picture == tmp_path / "VG_100K_2" / "2.jpg"
    assert source.holds == {"picture", "caption", "id"}


def test_each_picture_is_a_record_with_all_its_phrases(tmp_path):
    outside = region(13, 2, "outside", (-50, 0, 20, 20))
    source = opened(tmp_path, *TWO, entry(2, outside), entry(3), regions="whole")
    records, bad = read_all(source)
    assert [r.values.get("captions") for r in records] == [
        ["a red car", "the sky\n"],
        ["A dog", "outside"],
        None,
    ]
    assert records[0].values["picture"] == tmp_path / "VG_100K" / "1.jpg" and not bad
    assert records[0].values["id"] == 1 and source.holds == {"picture", "captions", "id"}


@pytest.mark.parametrize(
    ("box", "is_used"),
    [
        ((-3, -4, 30, 40), True),
        ((5000, 5000, 10, 10), True),
        ((0.5, 1.25, 2.75, 3), True),
        ((-30, 0, 30, 40), False),
        ((-31, 5, 30, 40), False),
        ((0, -41, 30, 40), False),
        ((1, 1, 0, 5), False),
        ((1, 1, 5, -5), False),
    ],
)
def test_boxes_reach_out_of_their_picture_and_are_judged_where_they_miss_it(tmp_path, box, is_used):
    records, bad = read_all(opened(tmp_path, entry(1, region(10, 1, "a", box))))
    if is_used:
        assert records[0].values["picture"].box == box and not bad
    else:
        assert not records and bad[0].reason == "box is outside its picture"


@pytest.mark.parametrize("wrong", [None, "3", True, float("nan"), float("inf"), 10**400, [1]])
def test_boxes_that_are_no_numbers_are_booked(tmp_path, wrong):
    records, (bad,) = read_all(
        opened(tmp_path, entry(1, region(10, 1, "a", (wrong, 1, 2, 3)), region(11, 1, "b")))
    )
    assert [r.key for r in records] == ["1/11"]
    assert (bad.key, bad.reason) == ("1/10", "box is not four numbers")


def test_every_region_is_used_or_booked(tmp_path):
    entries = [
        entry(1, region(10, 1, "a"), region(10, 1, "again"), region(11, 2, "of another picture")),
        entry("2", region("12", "2", "ids are texts"), region(None, 2, "no id"), "x", {"a": 1}),
        entry("abc", region(20, 1, "x"), region(21, 1, "y")),
        {"id": 3, "regions": None},
        5,
        region(30, 1, "not in a picture"),
        entry(3, region(40, 3, None), region(41, 3, 5)),
    ]
    records, bad = read_all(opened(tmp_path, *entries))
    assert [r.key for r in records] == ["1/10", "2/12", "2/no. 5"]
    assert sorted((b.reason, b.lost) for b in bad) == [
        ("entry is not a picture with regions", 1),
        ("entry is not a picture with regions", 1),
        ("phrase is not a text", 1),
        ("phrase is not a text", 1),
        ("picture without a number", 2),
        ("region of another picture", 1),
        ("region without a phrase", 1),
        ("region without a phrase", 1),
        ("region's id comes twice", 1),
        ("regions are not a list", 1),
    ]
    assert len({(b.key, b.reason) for b in bad}) == len(bad)


def test_regions_of_one_id_are_booked_apart_whatever_else_is_wrong(tmp_path):
    wrong = region(10, 1, "a", (None, 0, 1, 1))
    records, bad = read_all(opened(tmp_path, entry(1, wrong, wrong, region(10, 1, "b"))))
    assert not records and len(bad) == 3


def test_wrong_phrases_of_whole_pictures_are_booked_beside_the_others(tmp_path):
    source = opened(tmp_path, entry(1, region(1, 1, "a"), region(2, 1, None)), regions="whole")
    (record,), (bad,) = read_all(source)
    assert record.values["captions"] == ["a"] and (bad.reason, bad.lost) == (
        "caption is not a text",
        0,
    )


def test_the_first_edition_names_ids_otherwise(tmp_path):
    old = {"id": 7, "image": 1, "phrase": "a", "x": 1, "y": 1, "width": 5, "height": 5}
    (record,), bad = read_all(opened(tmp_path, entry(1, old)))
    assert record.key == "1/7" and not bad


def test_only_pictures_without_regions_are_no_records_of_regions(tmp_path):
    source = opened(tmp_path, entry(1), entry(2))
    assert source.num_parts == 1 and read_all(source) == ([], [])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "expected a list of pictures with regions"),
        ([], "is a list without pictures"),
        ([entry(77, region(1, 77, "a"))], "names pictures that are not there"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, content, said):
    path = write_json(tmp_path / "region_descriptions.json", content)
    with pytest.raises(UserError) as error:
        open_file(visual_genome, path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_choice_of_regions_is_part_of_the_identity(tmp_path):
    path = write(tmp_path, *TWO)
    crop, whole = (open_file(visual_genome, path, regions=r).identity() for r in ("crop", "whole"))
    assert crop != whole


def test_pictures_below_a_named_folder(tmp_path):
    path = write_json(tmp_path / "a" / "region_descriptions.json", list(TWO))
    write_pictures(tmp_path / "vg" / "VG_100K", ["1.jpg", "2.jpg"])
    source = open_file(visual_genome, path, image_root=str(tmp_path / "vg"))
    assert all(p.picture.is_file() for p in values_of(source, "picture"))


@pytest.mark.parametrize(
    ("content", "is_so"),
    [
        (list(TWO), True),
        ([{"id": 1, "regions": []}], True),
        ([{"image": "a.jpg", "caption": "a"}], False),
        ({"regions": [region(1, 1, "a")]}, False),
    ],
)
def test_it_is_told_by_its_start(content, is_so):
    assert visual_genome.detects(Path("x.json"), json.dumps(content).encode()) == is_so
