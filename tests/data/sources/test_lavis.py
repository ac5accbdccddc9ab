import json
from pathlib import Path

import pytest
from annotation_files import open_file, read_all, values_of, write_json, write_pictures

from fastclip.data.sources import lavis
from fastclip.errors import UserError


def write(folder, *rows):
    write_pictures(folder, ["a.jpg", "b.jpg", "sub/c.jpg"])
    return write_json(folder / "coco_karpathy_x.json", list(rows))


def row(image, caption, **more):
    return {"image": image, "caption": caption, **more}


def refusal(path, **settings):
    with pytest.raises(UserError) as error:
        open_file(lavis, path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_training_rows_of_one_picture_are_one_record(tmp_path):
    rows = [
        row("sub/c.jpg", "one", image_id="coco_1"),
        row("a.jpg", "other", image_id="coco_2"),
        row("sub/c.jpg", "two\n", image_id="coco_1"),
    ]
    source = open_file(lavis, write(tmp_path, *rows))
    (first, second), bad = read_all(source)
    picture = tmp_path / "sub" / "c.jpg"
    assert first.key == "sub/c.jpg" and second.key == "a.jpg" and not bad
    assert first.values == {"picture": picture, "id": "sub/c.jpg", "captions": ["one", "two\n"]}
    assert source.holds == {"picture", "captions", "id"}


def test_validation_rows_have_lists_and_both_may_be_mixed(tmp_path):
    rows = [row("a.jpg", ["1", "2", "3", "4", "5", "6"]), row("b.jpg", "x"), row("b.jpg", ["y"])]
    found = values_of(open_file(lavis, write(tmp_path, *rows)), "captions")
    assert found == [["1", "2", "3", "4", "5", "6"], ["x", "y"]]


def test_wrong_rows_are_booked(tmp_path):
    rows = [
        row("a.jpg", "kept"),
        "x",
        {"caption": "no image"},
        row(3, "a"),
        row("", "a"),
        row("a.jpg", None),
        row("b.jpg", [None, "also kept", 3]),
        {"image": "sub/c.jpg"},
    ]
    records, bad = read_all(open_file(lavis, write(tmp_path, *rows)))
    assert [r.values.get("captions") for r in records] == [["kept"], ["also kept"], None]
    assert [(b.key, b.lost) for b in bad] == [
        ("row 2", 1),
        ("row 3", 1),
        ("row 4", 1),
        ("row 5", 1),
        ("row 6", 0),
        ("row 7, caption 1", 0),
        ("row 7, caption 3", 0),
        ("row 8", 0),
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds an empty object, expected a list of rows with an image and a caption"),
        ([], "is a list without rows"),
        ([row("nowhere.jpg", "a")], "names pictures that are not there"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused(tmp_path, content, said):
    assert said in refusal(write_json(tmp_path / "x.json", content))


def test_pictures_beside_the_folder_of_annotations(tmp_path):
    path = write_json(tmp_path / "annotations" / "x.json", [row("val2014/1.jpg", "a")])
    write_pictures(tmp_path / "images", ["val2014/1.jpg"])
    assert values_of(open_file(lavis, path), "picture")[0].is_file()


def test_lone_surrogates_are_left_to_whoever_reads_the_caption(tmp_path):
    path = write(tmp_path, row("a.jpg", "\ud800 dog"), row("\ud800.jpg", "a"), row("b.jpg", "é"))
    (first, second), (bad,) = read_all(open_file(lavis, path))
    with pytest.raises(UnicodeDecodeError):
        first.values["captions"][0].decode()
    assert second.values["captions"] == ["é"] and bad.detail == "it is not UTF-8"


@pytest.mark.parametrize(
    ("content", "is_so"),
    [
        ([row("a.jpg", "a")], True),
        ([row("a.jpg", ["a", "b"])], True),
        (row("a.jpg", "a"), False),
        ([{"id": 1, "regions": [{"phrase": "a"}]}], False),
    ],
)
def test_it_is_told_by_its_start(content, is_so):
    assert lavis.detects(Path("x.json"), json.dumps(content).encode()) == is_so
