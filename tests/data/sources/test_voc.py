"""PASCAL VOC: annotations, splits and pictures that do not fit each other."""

import shutil

import pytest
from source_checks import bad, good, open_with, write_pictures
from voc_writing import annotation, write_voc

from fastclip.data.sources import voc
from fastclip.errors import UserError


def reasons(source):
    return [record.reason for record in bad(source)]


def test_labels_are_the_set_of_classes_and_tags_their_names(tmp_path):
    objects = [("person", 0), ("dog", 0), ("person", 0)]
    write_voc(tmp_path, {"000001": annotation(*objects), "000002": annotation(("cow", 0))})
    source = open_with(voc, tmp_path)
    assert source.class_names == list(voc.CLASSES)
    assert good(source) == {
        "000001": {
            "labels": [11, 14],
            "tags": ("dog", "person"),
            "picture": tmp_path / "JPEGImages" / "000001.jpg",
        },
        "000002": {
            "labels": [9],
            "tags": ("cow",),
            "picture": tmp_path / "JPEGImages" / "000002.jpg",
        },
    }
    assert source.holds == {"picture", "labels", "tags"}
    assert bad(source) == []


def test_difficult_objects_are_kept_out(tmp_path):
    mixed = annotation(("dog", 1), ("dog", 0), ("cat", 1))
    write_voc(tmp_path, {"1": mixed, "2": annotation(("cat", 1)), "3": annotation()})
    found = good(open_with(voc, tmp_path, ["tags", "labels"]))
    assert {key: values["tags"] for key, values in found.items()} == {
        "1": ("dog",),
        "2": (),
        "3": (),
    }
    assert found["2"]["labels"] == []


def test_an_object_without_a_mark_is_not_difficult(tmp_path):
    text = "<annotation><object><name> dog\n</name></object></annotation>"
    write_voc(tmp_path, {"1": text})
    assert good(open_with(voc, tmp_path, ["tags"])) == {"1": {"tags": ("dog",)}}


def test_other_classes_are_numbered_over_all_splits(tmp_path):
    texts = {
        "1": annotation(("zebra", 0)),
        "2": annotation(("ant", 0)),
        "3": annotation(("mug", 1)),
    }
    write_voc(tmp_path, texts, splits={"train": "1\n", "val": "2\n3\n"})
    train, val = (open_with(voc, tmp_path, ["labels"], split=s) for s in ("train", "val"))
    assert train.class_names == val.class_names == ["ant", "mug", "zebra"]
    assert good(train) == {"1": {"labels": [2]}}
    assert good(val) == {"2": {"labels": [0]}, "3": {"labels": []}}


def test_a_split_has_the_order_of_its_list_and_each_id_once(tmp_path):
    texts = {stem: annotation(("dog", 0)) for stem in "abcd"}
    write_voc(tmp_path, texts, splits={"train": "c \n\n a  1\nc\n", "dog_train": "a 1\nc -1\n"})
    train = open_with(voc, tmp_path, split="train")
    assert list(good(train)) == ["c", "a"]
    assert [(r.reason, r.lost) for r in bad(train)] == [("picture is listed more than once", 1)]
    assert list(good(open_with(voc, tmp_path, split="dog_train"))) == ["a", "c"]
    assert list(good(open_with(voc, tmp_path, split="all"))) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("split", ["test", "../Main/train", "dog"])
def test_a_split_without_a_list_is_refused_with_those_there_are(tmp_path, split):
    lists = {name: "a\n" for name in ("train", "val", "dog_train", "dog_val")}
    write_voc(tmp_path, {"a": annotation()}, splits=lists)
    with pytest.raises(UserError, match=r"no split '.*': it has train and val$"):
        open_with(voc, tmp_path, split=split)


def test_an_empty_split_is_refused(tmp_path):
    write_voc(tmp_path, {"a": annotation()}, splits={"train": "\n"})
    with pytest.raises(UserError, match="lists no picture in its split 'train'"):
        open_with(voc, tmp_path, split="train")
    (tmp_path / "Annotations" / "a.xml").unlink()
    with pytest.raises(UserError, match="Annotations holds no .xml file$"):
        open_with(voc, tmp_path, split="all")


@pytest.mark.parametrize("folder", ["Annotations", "JPEGImages"])
@pytest.mark.parametrize("below", ["", "VOC2007", "VOCdevkit/VOC2012"])
def test_a_year_that_lacks_a_folder_is_refused_and_no_folder_of_classes(tmp_path, folder, below):
    write_voc(tmp_path / below, {"a": annotation()}, splits={"train": "a\n"})
    shutil.rmtree(tmp_path / below / folder)
    assert voc.detects(tmp_path, b"")
    with pytest.raises(UserError, match=f"as VOC does, but no folder {folder}$"):
        open_with(voc, tmp_path)


def test_a_year_needs_no_lists(tmp_path):
    write_voc(tmp_path, {"a": annotation()})
    shutil.rmtree(tmp_path / "ImageSets")
    assert voc.detects(tmp_path, b"") and list(good(open_with(voc, tmp_path))) == ["a"]
    with pytest.raises(UserError, match="no split 'train': ImageSets/Main has no list"):
        open_with(voc, tmp_path, split="train")
    shutil.rmtree(tmp_path / "Annotations")
    assert not voc.detects(tmp_path, b"")


@pytest.mark.parametrize("below", ["", "VOCdevkit"])
def test_years_of_one_folder_are_one_set(tmp_path, below):
    for year, names in (("VOC2007", "ab"), ("VOC2012", "bc")):
        texts = {name: annotation(("dog", 0)) for name in names}
        splits = {"train": f"{names[0]}\n"} | ({"test": "b\n"} if year == "VOC2007" else {})
        write_voc(tmp_path / below / year, texts, splits=splits)
    assert voc.detects(tmp_path, b"")
    every = ["VOC2007/a", "VOC2007/b", "VOC2012/b", "VOC2012/c"]
    assert list(good(open_with(voc, tmp_path, split="all"))) == every
    assert list(good(open_with(voc, tmp_path, split="train"))) == ["VOC2007/a", "VOC2012/b"]
    assert list(good(open_with(voc, tmp_path, split="test"))) == ["VOC2007/b"]
    assert list(good(open_with(voc, tmp_path / below / "VOC2012", split="all"))) == ["b", "c"]


def test_what_is_missing_is_bad_or_a_problem(tmp_path):
    write_voc(
        tmp_path,
        {"1": annotation(("dog", 0)), "2": annotation(("dog", 0))},
        pictures=["1.jpg", "3.jpg", "4.JPG"],
        splits={"train": "1\n2\n3\n"},
    )
    whole = open_with(voc, tmp_path, split="all")
    assert list(good(whole)) == ["1"]
    problem, missing = bad(whole)
    assert (problem.reason, problem.lost) == ("picture has no annotation", 2)
    assert (missing.key, missing.reason) == ("2", "picture file is missing")
    split = open_with(voc, tmp_path, split="train")
    assert reasons(split) == ["picture file is missing", "annotation file is missing"]
    # Annotations that nobody wants are not looked for.
    assert list(good(open_with(voc, tmp_path, ["picture"], split="train"))) == ["1", "3"]


def test_pictures_of_other_endings(tmp_path):
    texts = {
        "1": annotation(),
        "2": annotation(filename="2.png"),
        "3": annotation(filename="x.png"),
    }
    pictures = ["1.JPG", "2.jpg", "2.png", "3.bmp", "3.gif"]
    write_voc(tmp_path, texts, pictures=pictures)
    found = good(open_with(voc, tmp_path))
    assert [values["picture"].name for values in found.values()] == ["1.JPG", "2.png", "3.bmp"]


def test_other_folders_are_not_voc(tmp_path):
    write_pictures(tmp_path, "ant/1.png")
    assert not voc.detects(tmp_path, b"")
    assert not voc.detects(tmp_path / "ant" / "1.png", b"")
    with pytest.raises(UserError, match="holds no Annotations and JPEGImages"):
        open_with(voc, tmp_path)
    with pytest.raises(UserError, match="holds no Annotations"):
        open_with(voc, tmp_path / "gone")


def test_identity_changes_with_the_objects(tmp_path):
    write_voc(tmp_path, {"1": annotation(("dog", 0))})
    first = open_with(voc, tmp_path).identity()
    assert open_with(voc, tmp_path).identity() == first
    write_voc(tmp_path, {"1": annotation(("cat", 0))})
    assert open_with(voc, tmp_path).identity() != first
