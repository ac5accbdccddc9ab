"""Folders of pictures with a metadata.csv or metadata.jsonl."""

import json
import os

import pytest
from source_checks import bad, good, open_with, write_pictures

from fastclip.data.sources import image_folder
from fastclip.errors import UserError


def without_pictures(source):
    found = good(source)
    return {
        key: {n: v for n, v in values.items() if n != "picture"} for key, values in found.items()
    }


def write_table(folder, text, name="metadata.csv", pictures=("1.png", "2.png")):
    write_pictures(folder, *pictures)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def write_rows(folder, *rows, pictures=("1.png", "2.png")):
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    return write_table(folder, text, "metadata.jsonl", pictures)


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
    assert len(good(open_with(image_folder, tmp_path))) == 4


def test_rows_that_share_a_picture_have_keys_and_one_id(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n2.png,x\n1.png,two\n1.png,three\n")
    found = good(open_with(image_folder, tmp_path, ["caption", "id"]))
    assert list(found) == ["1.png", "2.png", "1.png#2", "1.png#3"]
    assert {found[key]["id"] for key in found if key != "2.png"} == {"1.png"}


def test_pictures_without_a_row_are_one_problem(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n", pictures=("1.png", "2.png", "c/3.jpg"))
    [problem] = bad(open_with(image_folder, tmp_path))
    assert (problem.reason, problem.lost) == ("picture has no row in a table", 2)


@pytest.mark.parametrize(
    "name", ["3.png", "", "/etc/passwd", "../1.png", "metadata.csv", "c", ".hidden.png", "pipe.png"]
)
def test_a_row_whose_picture_is_not_there_is_bad(tmp_path, name):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "c").mkdir()
    os.mkfifo(tmp_path / "set" / "pipe.png")
    write_pictures(tmp_path, "1.png", "set/.hidden.png")
    write_table(tmp_path / "set", f"file_name,text\n1.png,one\n{name},two\n", pictures=("1.png",))
    source = open_with(image_folder, tmp_path / "set")
    assert list(good(source)) == ["1.png"]
    found = [record for record in bad(source) if record.reason.startswith(("picture f", "no pic"))]
    assert len(found) == 1 and found[0].lost == 1


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1.png,a,b", "row 2 has 3 fields, expected 2"),
        ("1.png", "row 2 has 1 field, expected 2"),
        ("1.png,a,", "row 2 has 3 fields, expected 2"),
    ],
)
def test_a_csv_row_of_another_length_is_bad(tmp_path, line, said):
    write_table(tmp_path, f"file_name,text\n2.png,x\n{line}\n2.png,y\n")
    source = open_with(image_folder, tmp_path, ["caption"])
    assert [values["caption"] for values in good(source).values()] == ["x", "y"]
    assert bad(source)[1].detail == said


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "row is not valid JSON"),
        ('{"file_name": "1.png"', "row is not valid JSON"),
        ("[" * 100_000, "row is not valid JSON"),
        ('["1.png"]', "row is no object"),
        ("null", "row is no object"),
        ("{}", "no picture"),
        ('{"file_name": 3}', "no picture"),
        ('{"file_name": null}', "no picture"),
        ('{"file_name": "\\ud800.png"}', "picture file is missing"),
    ],
)
def test_a_jsonl_row_of_another_form_is_bad(tmp_path, line, reason):
    write_rows(tmp_path, {"file_name": "1.png", "text": "a"}, line, "", {"file_name": "2.png"})
    source = open_with(image_folder, tmp_path)
    assert list(good(source)) == ["1.png", "2.png"]
    assert [record.reason for record in bad(source)] == [reason]


def test_lines_of_windows_and_a_byte_order_mark(tmp_path):
    write_table(tmp_path, b"\xef\xbb\xbffile_name,text\r\n1.png,one\r\n2.png,two\r\n")
    assert len(good(open_with(image_folder, tmp_path, ["caption"]))) == 2
    (tmp_path / "metadata.csv").unlink()
    rows = b'\xef\xbb\xbf{"file_name": "1.png"}\r\n\r\n{"file_name": "2.png"}\r\n'
    write_table(tmp_path, rows, "metadata.jsonl")
    assert len(good(open_with(image_folder, tmp_path))) == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name,text\n1.png,a\n", "has no column 'file_name'.*its columns are 'name', 'text'"),
        ("file_name,text,text\n1.png,a,b\n", "two columns 'text'"),
        ("file_name,text\n", "has no row"),
        ("", "has no row"),
        ('file_name,text\n1.png,"a\n2.png,b\n', "quote that opens in line 2"),
    ],
)
def test_a_table_that_cannot_be_one_is_refused(tmp_path, text, said):
    write_table(tmp_path, text)
    with pytest.raises(UserError, match=said) as error:
        open_with(image_folder, tmp_path)
    assert "\n" not in str(error.value)


def test_two_tables_of_one_folder_are_refused(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,a\n")
    write_rows(tmp_path, {"file_name": "1.png"})
    with pytest.raises(UserError, match="both metadata.csv and metadata.jsonl"):
        open_with(image_folder, tmp_path)


def test_texts_that_are_not_utf8_come_undecoded_to_the_field_that_judges_them(tmp_path):
    write_table(tmp_path, b"file_name,text\n1.png,caf\xe9\n2.png,b\n")
    found = good(open_with(image_folder, tmp_path, ["caption"]))
    assert found["2.png"] == {"caption": "b"}
    with pytest.raises(UnicodeEncodeError):
        found["1.png"]["caption"].encode()


def test_identity_changes_with_a_caption(tmp_path):
    write_table(tmp_path, "file_name,text\n1.png,one\n")
    first = open_with(image_folder, tmp_path).identity()
    write_table(tmp_path, "file_name,text\n1.png,two\n")
    assert open_with(image_folder, tmp_path).identity() != first
