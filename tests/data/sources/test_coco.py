import json
from pathlib import Path

import pytest
from annotation_files import EVERYTHING, open_file, read_all, values_of, write_json, write_pictures

from fastclip.data.sources import coco
from fastclip.errors import UserError

CATEGORIES = [
    {"id": 90, "name": "toothbrush"},
    {"id": 1, "name": "person"},
    {"id": 13, "name": "s"},
]


def images(*ids):
    return [{"id": n, "file_name": f"{n}.jpg"} for n in ids]


def caption(image_id, text, **more):
    return {"image_id": image_id, "id": 5, "caption": text, **more}


def instance(image_id, category_id, **more):
    return {"image_id": image_id, "id": 5, "category_id": category_id, "iscrowd": 0, **more}


def write(folder, pictures, annotations, name="captions_val2017.json", **more):
    for image in pictures:
        if isinstance(image, dict) and isinstance(image.get("file_name"), str):
            write_pictures(folder, [image["file_name"]])
    content = {"info": {}, "images": pictures, "annotations": annotations, **more}
    return write_json(folder / name, content)


def refusal(path, wanted=EVERYTHING, **settings):
    with pytest.raises(UserError) as error:
        open_file(coco, path, wanted, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_captions_come_with_their_picture_as_they_lie(tmp_path):
    said = ["A DOG runs.", "a cat\n", "  three ", "four", "five", "six", "seven"]
    annotations = [caption(1, said[0]), caption(2, "other"), *(caption(1, s) for s in said[1:])]
    source = open_file(coco, write(tmp_path, images(2, 1, 3), annotations))
    records, bad = read_all(source)
    assert [r.key for r in records] == ["2.jpg", "1.jpg", "3.jpg"] and not bad
    assert records[1].values == {"picture": tmp_path / "1.jpg", "id": 1, "captions": said}
    assert set(records[2].values) == {"picture", "id"}
    assert source.holds == {"picture", "captions", "id"}


def test_instances_number_classes_without_the_gaps_of_their_ids(tmp_path):
    annotations = [
        instance(1, 90),
        instance(1, 1),
        instance(1, 90),
        instance(2, 13, iscrowd=1, segmentation={"counts": [1, 2], "size": [3, 4]}),
    ]
    path = write(tmp_path, images(1, 2, 3), annotations, "x.json", categories=CATEGORIES)
    source = open_file(coco, path)
    assert source.holds == {"picture", "tags", "labels", "id"}
    assert source.class_names == ["person", "s", "toothbrush"]
    assert values_of(source, "labels") == [[0, 2], [1], []]
    assert values_of(source, "tags") == [["person", "toothbrush"], ["s"], []]


@pytest.mark.parametrize("named", ["captions", "instances"])
def test_captions_and_instances_of_one_split_are_joined(tmp_path, named):
    write(tmp_path, images(1, 2), [caption(1, "a"), caption(2, "b")])
    paths = {"captions": tmp_path / "captions_val2017.json"}
    # The other file may have other pictures, in another order.
    annotations = [instance(2, 90), instance(1, 1), instance(7, 1)]
    name = "instances_val2017.json"
    paths["instances"] = write(tmp_path, images(7, 2, 1), annotations, name, categories=CATEGORIES)
    source = open_file(coco, paths[named])
    found = {r.values["id"]: r.values for r in read_all(source)[0]}
    assert source.holds == {"picture", "captions", "tags", "labels", "id"}
    assert set(found) == ({1, 2} if named == "captions" else {1, 2, 7})
    assert found[2]["captions"] == ["b"] and found[2]["tags"] == ["toothbrush"]
    assert not read_all(source)[1]


def test_the_other_file_is_opened_where_it_is_wanted_and_must_agree(tmp_path):
    path = write(tmp_path, images(1), [caption(1, "a")])
    beside = tmp_path / "instances_val2017.json"
    beside.write_text("{")
    source = open_file(coco, path, frozenset({"picture", "captions"}))
    assert source.holds == {"picture", "captions", "tags", "labels", "id"}
    assert "instances_val2017.json is not JSON" in refusal(path)
    other = [{"id": 1, "file_name": "other.jpg"}]
    write(tmp_path, other, [instance(1, 1)], beside.name, categories=CATEGORIES)
    assert "beside it disagree: picture 1 is '1.jpg' in one and 'other.jpg'" in refusal(path)


@pytest.mark.parametrize("text", ["\ud800", "a\nb", "é"])
def test_whatever_texts_a_file_has_keys_and_sentences_can_be_printed(tmp_path, text):
    pictures = [{"id": text, "file_name": "1.jpg"}, {"id": text, "file_name": text}, {"id": text}]
    path = write_json(tmp_path / "x.json", {"images": pictures, "annotations": [caption(text, "")]})
    write_pictures(tmp_path, ["1.jpg"])
    (record,), bad = read_all(open_file(coco, path))
    assert record.values["id"].encode() and all(f"{b}".encode() for b in bad)
    wrong = [{"id": text, "name": 3}]
    refusal(write(tmp_path, images(1), [instance(1, 1)], categories=wrong)).encode()


def test_ids_may_be_texts(tmp_path):
    pictures = [{"id": "01", "file_name": "1.jpg"}, {"id": "a", "file_name": "2.jpg"}]
    annotations = [caption(1, "one"), caption("a", "two"), {**instance("1", "90")}]
    path = write(tmp_path, pictures, annotations, categories=CATEGORIES)
    source = open_file(coco, path)
    assert values_of(source, "captions") == [["one"], ["two"]]
    assert values_of(source, "tags") == [["toothbrush"], []]


def test_annotations_of_unknown_pictures_are_booked_once_a_picture(tmp_path):
    annotations = [caption(1, "a"), caption(8, "b"), caption(8, "c"), caption(9, "d"), {"id": 3}]
    records, bad = read_all(open_file(coco, write(tmp_path, images(1), annotations)))
    assert len(records) == 1
    assert {(b.key.split()[-1], b.detail) for b in bad} == {
        ("8", "2 of them"),
        ("9", "1 of them"),
        ("missing", "1 of them"),
    }
    assert {b.reason for b in bad} == {"annotation of an unknown picture"}


def test_what_is_no_picture_is_booked(tmp_path):
    pictures = [
        *images(1),
        7,
        None,
        {"file_name": "x.jpg"},
        {"id": True, "file_name": "x.jpg"},
        {"id": 2},
        {"id": 3, "file_name": 5},
        {"id": 4, "file_name": " "},
        {"id": 5, "file_name": "a\0.jpg"},
        {"id": 1, "file_name": "again.jpg"},
        {"id": 6, "file_name": "1.jpg"},
    ]
    path = tmp_path / "x.json"
    write_pictures(tmp_path, ["1.jpg"])
    write_json(path, {"images": pictures, "annotations": []})
    records, bad = read_all(open_file(coco, path))
    assert len(records) == 1 and len(bad) == 10 and all(b.lost == 1 for b in bad)
    assert len({(b.key, b.reason) for b in bad}) == 10
    assert [b.reason for b in bad[-2:]] == [
        "picture's id comes twice",
        "picture's file_name comes twice",
    ]


@pytest.mark.parametrize("wrong", [None, 3, float("nan"), ["a"], {"a": 1}])
def test_a_caption_of_a_wrong_type_is_booked_and_the_others_are_used(tmp_path, wrong):
    path = write(tmp_path, images(1, 2), [caption(1, "a"), caption(1, wrong), caption(2, wrong)])
    records, bad = read_all(open_file(coco, path))
    assert records[0].values["captions"] == ["a"] and "captions" not in records[1].values
    assert [(b.reason, b.lost) for b in bad] == [("caption is not a text", 0)] * 2


def test_other_wrong_annotations_are_booked(tmp_path):
    annotations = [instance(1, 1), instance(1, 2), instance(1, None), "x"]
    path = write(tmp_path, images(1), annotations, categories=CATEGORIES)
    records, bad = read_all(open_file(coco, path))
    assert records[0].values["labels"] == [0]
    assert sorted(b.reason for b in bad) == [
        "annotation is not an object",
        "annotation of an unknown category",
        "annotation of an unknown category",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is empty"),
        ("{", "is not JSON"),
        ('{"images": [{"id": 1, "file_na', "is not JSON, the file is cut off"),
        ('{"images": [], "annotations": [', "is not JSON, the file is cut off"),
        ("[" * 200_000, "too deeply"),
        ('{"images": ' + "9" * 5000 + "}", "is not JSON"),
        ("[]", "holds an empty list, expected an object with a list 'images'"),
        ('"x"', "holds the text 'x'"),
        ("null", "holds null"),
        ("[[1]]", "holds a list that begins with a list, expected an object"),
        ('[{"a": 1, "b": 2}]', "begins with an object with the keys 'a', 'b', expected"),
        ("{}", "a list 'images', found no such key"),
        ('{"images": 3}', "a list 'images', found the number 3"),
        ('{"images": [], "annotations": {}}', "a list 'annotations', found an object"),
        ('{"images": []}', "a list 'annotations', found no such key"),
        ('{"images": [], "annotations": []}', "names no pictures"),
        (b"\xff\xfe{\0}\0", "is UTF-16, expected UTF-8"),
        (b'{"a": "\xe9"}', "is not UTF-8"),
        (b"\0" * 10, "has NUL bytes in its first line"),
        ('{"images": [], "annotations": [], "images": []}', "the key 'images' twice in one object"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(tmp_path, content, said):
    path = tmp_path / "captions_a.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    sentence = refusal(path)
    assert said in sentence and str(path) in sentence


@pytest.mark.parametrize(
    "categories",
    [None, {}, [3], [{"id": 1}], [{"name": "a"}], [{"id": 1, "name": 2}], CATEGORIES * 2],
)
def test_categories_that_do_not_name_classes_are_refused(tmp_path, categories):
    path = write(tmp_path, images(1), [instance(1, 1)], categories=categories)
    assert "categories" in refusal(path)


@pytest.mark.parametrize(
    "folder", ["annotations", "val2017", "images", "images/val2017", "annotations/images"]
)
def test_pictures_are_found_in_the_usual_folders(tmp_path, monkeypatch, folder):
    content = {"images": images(1), "annotations": [caption(1, "a")]}
    path = write_json(tmp_path / "annotations" / "captions_val2017.json", content)
    assert "--image-root names their folder" in refusal(path)
    write_pictures(tmp_path / folder, ["1.jpg"])
    assert values_of(open_file(coco, path), "picture")[0].is_file()
    monkeypatch.chdir(path.parent)
    assert values_of(open_file(coco, path.name), "picture")[0].is_file()


def test_the_folder_of_pictures_can_be_named(tmp_path):
    path = write(tmp_path, images(1), [caption(1, "a")])
    write_pictures(tmp_path / "here" / "val2017", ["1.jpg"])
    (picture,) = values_of(open_file(coco, path, image_root=str(tmp_path / "here")), "picture")
    assert picture == tmp_path / "here" / "val2017" / "1.jpg"
    assert "missing is not a folder" in refusal(path, image_root="missing")


@pytest.mark.parametrize(
    ("content", "is_coco"),
    [
        ({"info": {}, "images": images(1), "annotations": []}, True),
        ({"annotations": [caption(1, "a")], "images": []}, True),
        ({"categories": CATEGORIES, "annotations": [instance(1, 1)], "images": []}, True),
        ({"images": [{"sentids": [1], "filename": "a", "sentences": []}]}, False),
        ([{"image": "a.jpg", "caption": "a"}], False),
        ({"images": 3}, False),
    ],
)
def test_it_is_told_by_its_start(content, is_coco):
    head = json.dumps(content, indent=1).encode()
    assert coco.detects(Path("x.json"), head) == is_coco
    assert coco.detects(Path("x.json"), b"\xef\xbb\xbf \n" + head[:200]) == is_coco


def test_annotations_of_a_picture_that_is_booked_are_not_booked_again(tmp_path):
    pictures = [*images(1, 2), {"id": 3}, {"id": 4, "file_name": "1.jpg"}]
    annotations = [caption(n, "a dog") for n in (1, 2, 3, 3, 4, 5)]
    records, bad = read_all(open_file(coco, write(tmp_path, pictures, annotations)))
    assert [(b.key, b.reason, b.lost) for b in bad] == [
        ("images[2]", "picture without a file_name", 1),
        ("images[3]", "picture's file_name comes twice", 1),
        ("captions_val2017.json image_id 5", "annotation of an unknown picture", 1),
    ]
    assert len(records) == 2


def test_annotations_that_say_nothing_are_told_with_their_keys(tmp_path):
    silent = [{"image_id": 1, "id": n, "text": "a cat"} for n in range(3)]
    records, bad = read_all(open_file(coco, write(tmp_path, images(1), [caption(1, "a"), *silent])))
    assert records[0].values["captions"] == ["a"]
    (told,) = bad
    assert told.reason == "annotation without caption and category_id" and told.lost == 0
    assert (
        told.detail == "3 of them, the first annotations[1] with the keys 'image_id', 'id', 'text'"
    )
