"""Folders of pictures: classes, splits, and whatever else lies in them."""

import os

import pytest
from shard_files import picture_bytes
from source_checks import bad, good, open_with, write_pictures

from fastclip.data.sources import image_folder
from fastclip.errors import UserError


def labels(source):
    return {key: values["label"] for key, values in good(source).items()}


def reasons(source):
    return {found.reason: (found.detail, found.lost) for found in bad(source)}


def test_classes_are_numbered_by_sorted_names(tmp_path):
    write_pictures(tmp_path, "zebra/1.png", "ant/b.jpg", "ant/a.jpg", "Bee/1.png")
    source = open_with(image_folder, tmp_path)
    assert source.class_names == ["Bee", "ant", "zebra"]
    assert list(labels(source).items()) == [
        ("Bee/1.png", 0),
        ("ant/a.jpg", 1),
        ("ant/b.jpg", 1),
        ("zebra/1.png", 2),
    ]
    assert source.holds == {"picture", "label"}
    assert good(source)["ant/a.jpg"]["picture"] == tmp_path / "ant" / "a.jpg"
    assert bad(source) == []


def test_only_what_is_wanted_is_given(tmp_path):
    write_pictures(tmp_path, "ant/1.png")
    assert good(open_with(image_folder, tmp_path, ["label"])) == {"ant/1.png": {"label": 0}}


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp", "gif", "bmp", "JPG", "Png"])
def test_every_ending_of_a_picture_is_read(tmp_path, ending):
    write_pictures(tmp_path, f"ant/1.{ending}")
    assert labels(open_with(image_folder, tmp_path)) == {f"ant/1.{ending}": 0}


def test_nested_folders_belong_to_the_class_above_them(tmp_path):
    write_pictures(tmp_path, "ant/deep/er/1.png", "bee/1.png", "bee/x/1.png")
    found = labels(open_with(image_folder, tmp_path))
    assert found == {"ant/deep/er/1.png": 0, "bee/1.png": 1, "bee/x/1.png": 1}


def test_names_that_differ_in_their_ending_are_two_records(tmp_path):
    write_pictures(tmp_path, "ant/1.png", "ant/1.jpg", "ant/1.v2.png")
    found = labels(open_with(image_folder, tmp_path))
    assert set(found) == {"ant/1.png", "ant/1.jpg", "ant/1.v2.png"}


def test_an_empty_class_keeps_its_number_and_is_told(tmp_path):
    write_pictures(tmp_path, "cat/1.png")
    (tmp_path / "ant").mkdir()
    (tmp_path / "bee" / "inner").mkdir(parents=True)
    source = open_with(image_folder, tmp_path)
    assert (source.class_names, labels(source)) == (["ant", "bee", "cat"], {"cat/1.png": 2})
    assert reasons(source) == {"class has no picture": ("2, e.g. ant", 0)}


def test_each_kind_of_other_thing_is_one_problem(tmp_path):
    write_pictures(tmp_path, "ant/1.png", "2.png", "3.png")
    for name in (
        "ant/.DS_Store",
        "ant/._1.png",
        ".hidden.png",
        "README",
        "ant/notes.txt",
        "a.json",
    ):
        (tmp_path / name).write_text("x")
    for name in ("ant/5.tiff", "ant/6.heic", "ant/7", "ant/8.jpg_large"):
        (tmp_path / name).write_text("x")
    (tmp_path / ".git").mkdir()
    write_pictures(tmp_path, ".git/1.png")
    os.mkfifo(tmp_path / "ant" / "9.png")
    source = open_with(image_folder, tmp_path)
    assert labels(source) == {"ant/1.png": 0}
    found = reasons(source)
    assert found.pop("file is hidden") == ("4, e.g. .git", 0)
    assert found.pop("file is no picture") == ("3, e.g. README", 0)
    assert found.pop("ending is none of jpg, jpeg, png, webp, gif, bmp") == (
        "4, e.g. ant/5.tiff",
        4,
    )
    assert found.pop("is no file") == ("ant/9.png", 1)
    assert found.pop("picture lies in no class's folder") == ("2, e.g. 2.png", 2)
    assert not found


def test_links(tmp_path):
    write_pictures(tmp_path / "set", "ant/1.png")
    write_pictures(tmp_path / "elsewhere", "2.png", "3.png")
    ant = tmp_path / "set" / "ant"
    (ant / "2.png").symlink_to(tmp_path / "elsewhere" / "2.png")
    (ant / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "set" / "bee").symlink_to(tmp_path / "elsewhere")
    (ant / "round").symlink_to(tmp_path / "set")
    (ant / "self.png").symlink_to(ant / "self.png")
    source = open_with(image_folder, tmp_path / "set")
    # A link to a picture that is gone is a record, and bad when its picture is read.
    assert set(labels(source)) == {
        *("ant/1.png", "ant/2.png", "ant/gone.png", "ant/self.png"),
        *("bee/2.png", "bee/3.png"),
    }
    assert reasons(source) == {"folder links to one that it lies in": ("ant/round", 0)}


def test_names_that_are_not_utf8_are_spelled_out(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    with open(folder + b"/\xff.png", "wb") as file:
        file.write(picture_bytes(0))
    source = open_with(image_folder, tmp_path)
    assert source.class_names == ["caf\\udce9"]
    [(key, values)] = good(source).items()
    assert key == "caf\\udce9/\\udcff.png"
    assert values["picture"].read_bytes() == picture_bytes(0)
    assert len(source.identity()) == 64


def test_pictures_without_class_folders_have_no_label(tmp_path):
    write_pictures(tmp_path, "b.png", "a.jpg")
    (tmp_path / "empty").mkdir()
    source = open_with(image_folder, tmp_path)
    assert (source.holds, source.class_names) == ({"picture"}, None)
    assert list(good(source)) == ["a.jpg", "b.png"]


def test_splits_are_not_classes(tmp_path):
    write_pictures(tmp_path, "train/ant/1.png", "train/bee/1.png", "val/bee/2.png")
    source = open_with(image_folder, tmp_path, split="all")
    assert source.class_names == ["ant", "bee"]
    assert labels(source) == {"train/ant/1.png": 0, "train/bee/1.png": 1, "val/bee/2.png": 1}
    train = open_with(image_folder, tmp_path, split="train")
    assert labels(train) == {"ant/1.png": 0, "bee/1.png": 1}


def test_folders_beside_a_split_are_classes(tmp_path):
    write_pictures(tmp_path, "train/1.png", "plane/1.png")
    assert open_with(image_folder, tmp_path).class_names == ["plane", "train"]


@pytest.mark.parametrize("split", ["test", "..", "train/ant", "/", "1.png"])
def test_a_split_that_is_not_there_is_refused(tmp_path, split):
    write_pictures(tmp_path, "train/ant/1.png", "val/ant/1.png", "1.png")
    with pytest.raises(UserError, match="no split .*: its folders are train and val"):
        open_with(image_folder, tmp_path, split=split)


def test_a_folder_without_pictures_is_refused_with_what_it_has(tmp_path):
    (tmp_path / "a.tiff").write_text("x")
    (tmp_path / "notes.txt").write_text("x")
    said = r"holds no picture \(jpg, .*, bmp\); it holds 2 other files, e.g. a.tiff$"
    with pytest.raises(UserError, match=said):
        open_with(image_folder, tmp_path)
    with pytest.raises(UserError, match="is no folder of pictures"):
        open_with(image_folder, tmp_path / "gone")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "00.tar").write_text("x")
    with pytest.raises(UserError, match=r"name shards themselves, e.g. .*/train/\*.tar$"):
        open_with(image_folder, tmp_path)
    with pytest.raises(UserError, match="it holds 1 other file, e.g. 00.tar; name shards"):
        open_with(image_folder, tmp_path / "train")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(UserError, match="it holds empty folders alone$"):
        open_with(image_folder, tmp_path / "empty")
    with pytest.raises(UserError, match="it holds nothing$"):
        open_with(image_folder, tmp_path / "empty" / "below")


def test_many_pictures_come_in_several_parts_each_once(tmp_path):
    write_pictures(tmp_path, *(f"c{n % 3}/{n:03d}.bmp" for n in range(150)))
    source = open_with(image_folder, tmp_path)
    assert source.num_parts == 3
    assert len(labels(source)) == 150
    assert sum(source.size(part).records for part in range(3)) == 150
    opened = source.open(2)
    with pytest.raises(IndexError):
        opened.read(len(opened))


def test_identity_changes_with_the_records(tmp_path):
    write_pictures(tmp_path, "ant/1.png")
    first = open_with(image_folder, tmp_path).identity()
    assert open_with(image_folder, tmp_path).identity() == first
    write_pictures(tmp_path, "ant/2.png")
    second = open_with(image_folder, tmp_path).identity()
    (tmp_path / "aaa").mkdir()
    third = open_with(image_folder, tmp_path).identity()
    assert len({first, second, third}) == 3
