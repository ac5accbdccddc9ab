import json
from pathlib import Path

import pytest
from annotation_files import EVERYTHING, open_file, read_all, values_of, write_json, write_pictures

from fastclip.data.sources import karpathy
from fastclip.errors import UserError


def image(number, split, *raws, **more):
    sentences = [{"raw": raw, "tokens": raw.split(), "imgid": number} for raw in raws]
    return {"filename": f"{number}.jpg", "split": split, "sentences": sentences, **more}


def write(folder, *found):
    path = write_json(folder / "dataset_x.json", {"images": list(found), "dataset": "x"})
    for entry in found:
        if isinstance(entry, dict) and isinstance(entry.get("filename"), str):
            write_pictures(folder / entry.get("filepath", ""), [entry["filename"]])
    return path


def refusal(path, **settings):
    with pytest.raises(UserError) as error:
        open_file(karpathy, path, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_coco_has_a_folder_a_picture_and_flickr_none(tmp_path):
    coco = image(1, "train", "A dog.\n", "two", filepath="val2014", cocoid=391895)
    source = open_file(karpathy, write(tmp_path, coco, image(2, "val", "three")), split="all")
    (first, second), bad = read_all(source)
    picture = tmp_path / "val2014" / "1.jpg"
    assert first.key == "val2014/1.jpg" and not bad
    assert first.values == {"picture": picture, "id": 391895, "captions": ["A dog.\n", "two"]}
    assert second.key == second.values["id"] == "2.jpg"
    assert source.holds == {"picture", "captions", "id"}


@pytest.mark.parametrize(
    ("split", "keys"),
    [
        ("all", ["1.jpg", "2.jpg", "3.jpg", "4.jpg"]),
        ("", ["1.jpg", "3.jpg"]),
        ("train", ["1.jpg", "3.jpg"]),
        ("val", ["2.jpg"]),
        ("test", ["4.jpg"]),
    ],
)
def test_splits_and_restval_which_is_train(tmp_path, split, keys):
    splits = ["train", "val", "restval", "test"]
    path = write(tmp_path, *(image(n, s, "a") for n, s in enumerate(splits, 1)))
    records, bad = read_all(open_file(karpathy, path, split=split))
    assert [r.key for r in records] == keys and not bad


@pytest.mark.parametrize("split", ["dev", "restval", "Train"])
def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path, split):
    path = write(tmp_path, image(1, "restval", "a"), image(2, "val", "b"))
    assert f"no split {split!r}; it has train, val (restval is train)" in refusal(path, split=split)


def test_wrong_entries_are_booked(tmp_path):
    found = [
        image(1, "train", "a"),
        5,
        {"split": "train", "sentences": []},
        image(2, "train", "b", filepath=3),
        image(1, "val", "again"),
        image(3, "train", "c") | {"sentences": None},
        image(4, "train", "d") | {"sentences": [{"tokens": ["a"]}, "x", {"raw": "kept"}]},
        image(5, None, "e"),
    ]
    records, bad = read_all(open_file(karpathy, write_all(tmp_path, found), split="all"))
    assert [r.key for r in records] == ["1.jpg", "3.jpg", "4.jpg", "5.jpg"]
    assert "captions" not in records[1].values and records[2].values["captions"] == ["kept"]
    assert [b.reason for b in bad if b.lost] == [
        "picture is not an object",
        "picture without a filename",
        "picture without a filename",
        "picture comes twice",
    ]
    assert [b.reason for b in bad if not b.lost] == [
        "sentences are not a list",
        "caption is not a text",
        "sentence is not an object",
    ]
    _, bad = read_all(open_file(karpathy, write_all(tmp_path, found), split="train"))
    assert "picture of no split" in {b.reason for b in bad}


def write_all(folder, found):
    write_pictures(folder, [f"{n}.jpg" for n in range(6)])
    return write_json(folder / "dataset.json", {"images": found})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "holds an empty list, expected an object with a list 'images'"),
        ({"dataset": "coco"}, "a list 'images', found no such key"),
        ({"images": []}, "names no pictures"),
    ],
)
def test_a_file_of_another_layout_is_refused(tmp_path, content, said):
    assert said in refusal(write_json(tmp_path / "x.json", content))


@pytest.mark.parametrize("folder", ["", "images", "../images", "flickr30k-images", "coco/images"])
def test_pictures_are_found_in_the_usual_folders(tmp_path, folder):
    path = write_json(tmp_path / "a" / "dataset.json", {"images": [image(1, "train", "a")]})
    assert "names pictures that are not there" in refusal(path)
    assert values_of(open_file(karpathy, path, EVERYTHING - {"picture"}), "captions") == [["a"]]
    write_pictures(tmp_path / "a" / folder, ["1.jpg"])
    assert values_of(open_file(karpathy, path), "picture")[0].is_file()


def test_the_split_is_part_of_the_identity(tmp_path):
    path = write(tmp_path, image(1, "train", "a"), image(2, "val", "b"))
    train, val, again = (open_file(karpathy, path, split=s) for s in ("train", "val", "train"))
    assert train.identity() == again.identity() != val.identity()
    assert open_file(karpathy, path).identity() == train.identity()
    assert open_file(karpathy, path, split="all").identity() not in (
        train.identity(),
        val.identity(),
    )


@pytest.mark.parametrize(
    ("content", "is_so"),
    [
        ({"images": [image(1, "train", "a")]}, True),
        ({"images": [{"filepath": "x", "sentids": [1, 2], "filename": "a.jpg"}]}, True),
        ({"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": []}, False),
        ([{"sentences": []}], False),
    ],
)
def test_it_is_told_by_its_start(content, is_so):
    assert karpathy.detects(Path("x.json"), json.dumps(content).encode()) == is_so
