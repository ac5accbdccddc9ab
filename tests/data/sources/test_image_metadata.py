"""Folders of pictures with a metadata.csv or metadata.jsonl."""

import pytest
from metadata_writing import write_rows, write_table
from source_checks import bad, good, open_with, write_pictures

from fastclip.data.sources import image_folder


def without_pictures(source):
    found = good(source)
    return {
        key: {n: v for n, v in values.items() if n != "picture"} for key, values in found.items()
    }


@pytest.mark.parametrize("column", ["caption", "text", "title", "TEXT", "Caption", "txt"])
def test_a_caption_has_one_of_several_names(tmp_path, column):
    write_table(tmp_path, f'file_name,{column}\n1.png,one\n2.png,"two, and three"\n')
    source = open_with(image_folder, tmp_path, ["picture", "caption"])
    assert good(source) == {
        "1.png": {"picture": tmp_path / "1.png", "caption": "one"},
        "2.png": {"picture": tmp_path / "2.png", "caption": "two, and three"},
    }
    assert source.holds >= {"picture", "caption"}


def test_all_values_of_a_csv(tmp_path):
    write_table(
        tmp_path,
        "caption,file_name,tags,label,labels,text,width\n"
        'a,2.png,"red, round ,,big",3,"1, 2",long,10\n',
    )
    source = open_with(image_folder, tmp_path)
    assert without_pictures(source) == {
        "2.png": {
            "caption": "a",
            "tags": ["red", "round", "big"],
            "label": "3",
            "labels": ["1", "2"],
            "text": "long",
            "id": "2.png",
        }
    }
    assert source.class_names is None


def test_all_values_of_jsonl(tmp_path):
    write_rows(
        tmp_path,
        {"file_name": "1.png", "captions": ["a", "b"], "tags": ["x y", "z"], "label": 4},
        {"file_name": "2.png", "captions": None, "labels": [1, 2], "text": "t", "label": None},
    )
    assert without_pictures(open_with(image_folder, tmp_path)) == {
        "1.png": {"captions": ["a", "b"], "tags": ["x y", "z"], "label": 4, "id": "1.png"},
        "2.png": {"labels": [1, 2], "caption": "t", "text": "t", "id": "2.png"},
    }


def test_a_column_of_lists_and_numbered_columns_are_several_captions(tmp_path):
    write_rows(tmp_path / "a", {"file_name": "1.png", "text": ["a", "b"]})
    listed = open_with(image_folder, tmp_path / "a", ["captions"])
    write_table(tmp_path / "b", "file_name,caption-10,caption-2,caption-1\n1.png,j,b,a\n")
    numbered = open_with(image_folder, tmp_path / "b", ["captions"])
    assert good(listed) == {"1.png": {"captions": ["a", "b"]}}
    assert "caption" not in listed.holds
    assert good(numbered) == {"1.png": {"captions": ["a", "b", "j"]}}


def test_labels_that_are_names_are_numbered(tmp_path):
    pictures = [f"{n}.png" for n in range(5)]
    write_table(
        tmp_path,
        "file_name,label\n0.png,zoo\n1.png,ant\n2.png,\n3.png,7\n4.png,zoo\n",
        pictures=pictures,
    )
    source = open_with(image_folder, tmp_path, ["label"])
    assert source.class_names == ["7", "ant", "zoo"]
    found = [values.get("label") for values in good(source).values()]
    assert found == [2, 1, None, 0, 2]


def test_names_and_whole_numbers_in_jsonl_are_one_numbering(tmp_path):
    write_rows(tmp_path, {"file_name": "1.png", "label": "b"}, {"file_name": "2.png", "label": 0})
    source = open_with(image_folder, tmp_path, ["label"])
    assert source.class_names == ["0", "b"]
    assert [values["label"] for values in good(source).values()] == [1, 0]


def test_nested_tables_and_nested_pictures(tmp_path):
    write_table(
        tmp_path, "file_name,text\nx/1.png,one\n./2.png,two\n", pictures=("x/1.png", "2.png")
    )
    write_table(tmp_path / "deep" / "er", "file_name,text\n../1.png,three\n2.png,four\n")
    write_pictures(tmp_path, "deep/1.png")
    source = open_with(image_folder, tmp_path, ["caption"])
    assert {key: values["caption"] for key, values in good(source).items()} == {
        "x/1.png": "one",
        "2.png": "two",
        "deep/1.png": "three",
        "deep/er/2.png": "four",
    }
    problem = bad(source)[-1]
    assert (problem.reason, problem.detail) == ("picture has no row in a table", "deep/er/1.png")


def test_the_table_itself_may_be_named(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n2.png,two\n")
    assert list(good(open_with(image_folder, tmp_path / "metadata.csv"))) == ["1.png", "2.png"]
    assert image_folder.detects(tmp_path / "metadata.csv", b"")
    assert not image_folder.detects(tmp_path / "1.png", b"")


def test_a_table_in_a_split(tmp_path):
    write_table(tmp_path / "train", "file_name,text\n1.png,one\n2.png,two\n")
    write_table(tmp_path / "test", "file_name,text\n1.png,three\n2.png,four\n")
    split = open_with(image_folder, tmp_path, ["caption"], split="train")
    assert good(split) == {"1.png": {"caption": "one"}, "2.png": {"caption": "two"}}
    assert len(good(open_with(image_folder, tmp_path, split="all"))) == 4


def test_rows_that_share_a_picture_have_keys_and_one_id(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n2.png,x\n1.png,two\n1.png,three\n")
    found = good(open_with(image_folder, tmp_path, ["caption", "id"]))
    assert list(found) == ["1.png", "2.png", "1.png#2", "1.png#3"]
    assert {found[key]["id"] for key in found if key != "2.png"} == {"1.png"}


def test_a_picture_outside_the_folder_is_said_to_be_so(tmp_path):
    table = f"file_name,text\n1.png,one\n../2.png,two\n{tmp_path}/1.png,three\n"
    write_table(tmp_path / "set", table, pictures=("1.png",))
    write_pictures(tmp_path, "2.png")
    found = bad(open_with(image_folder, tmp_path / "set"))
    assert [b.reason for b in found] == ["picture lies outside the table's folder"] * 2


def test_pictures_without_a_row_are_one_problem(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n", pictures=("1.png", "2.png", "c/3.jpg"))
    [problem] = bad(open_with(image_folder, tmp_path))
    assert (problem.reason, problem.lost) == ("picture has no row in a table", 2)


def test_identity_changes_with_a_caption(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n")
    first = open_with(image_folder, tmp_path).identity()
    write_table(tmp_path, "file_name,text\n1.png,two\n")
    assert open_with(image_folder, tmp_path).identity() != first
