"""Rows of a metadata.csv or metadata.jsonl that cannot be used, and tables that cannot."""

import os

import pytest
from metadata_writing import write_rows, write_table
from source_checks import bad, good, open_with, write_pictures

from fastclip.data.sources import image_folder
from fastclip.errors import UserError


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
    found = [
        record
        for record in bad(source)
        if record.reason.startswith(("picture f", "picture lies", "no pic"))
    ]
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
        ("", "is empty, expected a header and rows"),
        ('file_name,text\n1.png,"a\n2.png,b\n', "quote that opens in line 2"),
    ],
)
def test_a_table_that_cannot_be_one_is_refused(tmp_path, text, said):
    write_table(tmp_path, text)
    with pytest.raises(UserError, match=said) as error:
        open_with(image_folder, tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (b'{"file_name": "1.p\nnot json\n', "no line of .*: row is not valid JSON, line 1: Unter"),
        (b"[1]\n", "no line of .* can be used: row is no object, line 1 holds a list"),
        (b"\n", "has no row"),
        (b"\xff\xfe" + '{"file_name": "1.png"}'.encode("utf-16-le"), "is UTF-16, expected UTF-8"),
        (b"\0\1", "has NUL bytes"),
    ],
)
def test_lines_of_which_none_can_be_used_are_refused(tmp_path, lines, said):
    write_table(tmp_path, lines, "metadata.jsonl")
    with pytest.raises(UserError, match=said):
        open_with(image_folder, tmp_path)


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("broken", ['{"file_name": "x', "5", '{"text": "a"}'])
def test_a_broken_row_and_the_picture_without_one_are_one_lost_record(tmp_path, place, broken):
    names = ("1.png", "2.png", "3.png")
    rows = [f'{{"file_name": "{name}"}}' for name in names]
    rows[place] = broken
    write_table(tmp_path, "\n".join(rows), "metadata.jsonl", pictures=names)
    source = open_with(image_folder, tmp_path)
    assert list(good(source)) == [name for name in names if name != names[place]]
    assert sum(record.lost for record in bad(source)) == 1
    assert any(names[place] in record.detail for record in bad(source))


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
