import os

import pytest
from annotation_files import EVERYTHING, open_file, read_all, values_of, write_pictures

from fastclip.data.sources import csv_file
from fastclip.errors import UserError

COMMA = {"csv_separator": ","}


def write(folder, content, name="pairs.tsv"):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(folder, *lines, separator="\t", end="\n"):
    """A csv file of ``N.jpg`` and each line, a caption as it lies in the file."""
    write_pictures(folder, [f"{n}.jpg" for n in range(len(lines))])
    header = separator.join(["filepath", "title"])
    body = [f"{n}.jpg{separator}{line}" for n, line in enumerate(lines)]
    return write(folder, end.join([header, *body, ""]))


def captions(path, **settings):
    return values_of(open_file(csv_file, path, **settings), "caption")


def refusal(path, wanted=EVERYTHING, **settings):
    with pytest.raises(UserError) as error:
        open_file(csv_file, path, wanted, **settings)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_rows_are_records_with_paths_captions_and_ids(tmp_path):
    source = open_file(csv_file, rows(tmp_path, "a dog", "a cat"))
    records, bad = read_all(source)
    assert [r.key for r in records] == ["row 1: 0.jpg", "row 2: 1.jpg"]
    first = {"picture": tmp_path / "0.jpg", "caption": "a dog", "id": "0.jpg"}
    assert records[0].values == first and not bad
    assert source.holds == {"picture", "caption", "id"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("last", [True, False])
def test_line_ends_and_byte_order_marks(tmp_path, end, mark, last):
    path = rows(tmp_path, "a dog", "ein Hündchen", end=end)
    text = path.read_bytes()
    path.write_bytes(mark + (text if last else text.removesuffix(end.encode())))
    assert captions(path) == ["a dog", "ein Hündchen"]


def test_other_columns_separator_and_order(tmp_path):
    write_pictures(tmp_path, ["a.jpg"])
    path = write(tmp_path, "n;cap;img\n0;a dog;a.jpg\n")
    settings = {"csv_img_key": "img", "csv_caption_key": "cap", "csv_separator": ";"}
    (record,), _ = read_all(open_file(csv_file, path, **settings))
    assert record.values["caption"] == "a dog" and record.values["picture"] == tmp_path / "a.jpg"


def test_blank_lines_are_no_rows_wherever_they_are(tmp_path):
    write_pictures(tmp_path, ["a.jpg", "b.jpg"])
    path = write(tmp_path, "\n\nfilepath\ttitle\n\na.jpg\tx\n   \nb.jpg\ty\n\n")
    records, bad = read_all(open_file(csv_file, path))
    assert [r.key for r in records] == ["row 1: a.jpg", "row 2: b.jpg"] and not bad


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("1.jpg,a dog, running", "row 2 has 3 fields, expected 2"),
        ("1.jpg,a, b, c", "row 2 has 4 fields, expected 2"),
        ("1.jpg,a dog,", "row 2 has 3 fields, expected 2"),
        ("1.jpg", "row 2 has 1 field, expected 2"),
        ('"1.jpg,a dog"', "row 2 has 1 field, expected 2"),
    ],
)
def test_a_row_of_another_shape_than_the_header_is_bad(tmp_path, line, found):
    write_pictures(tmp_path, ["0.jpg", "1.jpg", "2.jpg"])
    path = write(tmp_path, f"filepath,title\n0.jpg,a\n{line}\n2.jpg,c\n")
    records, (bad,) = read_all(open_file(csv_file, path, **COMMA))
    assert [r.key for r in records] == ["row 1: 0.jpg", "row 3: 2.jpg"]
    assert (bad.key, bad.reason, bad.detail) == ("row 2", "wrong number of fields", found)


def test_a_file_of_which_all_rows_are_bad_opens_and_books_them(tmp_path):
    path = write(tmp_path, "filepath,title\n" + "x.jpg,a,b\n" * 70)
    records, bad = read_all(open_file(csv_file, path, **COMMA))
    assert not records and len(bad) == 70 and bad[69].key == "row 70"


STRAY = [
    pytest.param(['"best ever', "x", "y"], id="never closed"),
    pytest.param(["x", "y", '"best ever'], id="never closed in the last row"),
    pytest.param(['"best ever', "x", 'this is 5"', "z"], id="closed at a line's end"),
    pytest.param(['"best ever', 'this is 5"', "z"], id="closed in the next row"),
    pytest.param(['"best ever', 'the "big" card', "z"], id="closed in mid-line"),
    pytest.param(['"best ever', '"a" b', "z"], id="closed before a word"),
    pytest.param(['"best, ever', "x, y", 'z, this is 5"', "z"], id="with separators"),
]


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
@pytest.mark.parametrize("captions", STRAY)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_stray_quote_is_refused_with_its_line(tmp_path, separator, captions, end):
    path = rows(tmp_path, "first", *captions, separator=separator, end=end)
    line = 3 + next(n for n, caption in enumerate(captions) if caption.startswith('"b'))
    assert f"the quote that opens in line {line} is not" in refusal(path, csv_separator=separator)


def test_a_stray_quote_at_the_very_end_of_the_file(tmp_path):
    path = rows(tmp_path, "a", '"b')
    path.write_bytes(path.read_bytes().removesuffix(b"\n"))
    assert "opens in line 3" in refusal(path)


def test_a_stray_quote_before_the_pictures_column(tmp_path):
    path = write(tmp_path, 'title,filepath\na,0.jpg\n"best,1.jpg\nthis is 5",2.jpg\nb,3.jpg\n')
    assert "opens in line 3" in refusal(path, **COMMA)


def test_a_stray_quote_where_pictures_have_no_extension(tmp_path):
    write_pictures(tmp_path, ["one", "two", "three"])
    path = write(tmp_path, 'filepath,title\none,"best\ntwo,this is 5"\nthree,x\n')
    assert "opens in line 2" in refusal(path, **COMMA)


def test_a_stray_quote_in_a_file_of_a_million_characters(tmp_path):
    path = rows(tmp_path, "a")
    path.write_text('filepath\ttitle\n0.jpg\t"a\n' + "0.jpg\tsome words of a caption\n" * 40000)
    assert "opens in line 2" in refusal(path)


def test_the_stray_quote_of_several_quoted_fields_is_named(tmp_path):
    path = write(tmp_path, 'note,filepath,title\n"a\nb",0.jpg,"x\nn,1.jpg,y\nn,2.jpg,z\n')
    assert "opens in line 3" in refusal(path, **COMMA)


def test_quoted_captions_may_hold_separators_quotes_and_lines(tmp_path):
    lines = ['"a, b"', '"say ""hi"", dog"', '"one\ntwo, three\n\nfour"', '"one\r\ntwo"']
    path = rows(tmp_path, *lines, separator=",")
    found = ["a, b", 'say "hi", dog', "one\ntwo, three\n\nfour", "one\r\ntwo"]
    assert captions(path, **COMMA) == found


def test_quotes_inside_a_caption_mean_themselves(tmp_path):
    lines = ['a "big" dog', 'this is 5"', "'x", '"big" dog']
    assert captions(rows(tmp_path, *lines)) == ['a "big" dog', 'this is 5"', "'x", "big dog"]


@pytest.mark.parametrize("missing", ["", "nan", "NaN", '""'])
def test_empty_cells_are_values_that_a_record_lacks(tmp_path, missing):
    path = rows(tmp_path, "a dog", missing)
    path.write_text(path.read_text() + "\tno picture\n")
    records, _ = read_all(open_file(csv_file, path))
    assert set(records[1].values) == {"picture", "id"}
    assert records[2].key == "row 3" and records[2].values == {"caption": "no picture"}


def test_a_picture_may_come_with_several_captions(tmp_path):
    path = rows(tmp_path, "a")
    path.write_text(path.read_text() + "0.jpg\tb\n")
    records, _ = read_all(open_file(csv_file, path))
    assert [r.key for r in records] == ["row 1: 0.jpg", "row 2: 0.jpg"]
    assert records[0].values["id"] == records[1].values["id"]


def test_what_is_not_utf_8_or_has_nul_bytes_is_one_bad_row(tmp_path):
    path = rows(tmp_path, "good", "latin", "nul", "good too")
    path.write_bytes(path.read_bytes().replace(b"latin", b"\xe9t\xe9").replace(b"nul", b"n\0l"))
    records, (bad,) = read_all(open_file(csv_file, path))
    assert isinstance(records[1].values["caption"], bytes)
    with pytest.raises(UnicodeDecodeError):
        records[1].values["caption"].decode()
    assert (bad.key, bad.reason) == ("row 3", "row has NUL bytes")
    assert [r.key for r in records] == ["row 1: 0.jpg", "row 2: 1.jpg", "row 4: 3.jpg"]


def test_a_file_name_that_is_not_utf_8_is_found(tmp_path):
    name = os.fsdecode(b"\xe9.jpg")
    write_pictures(tmp_path, [name])
    path = write(tmp_path, b"filepath\ttitle\n\xe9.jpg\tsummer\n")
    (record,), _ = read_all(open_file(csv_file, path))
    assert record.values["picture"] == tmp_path / name
    assert record.key.isprintable() and record.key.encode()


def test_a_field_beyond_what_csv_reads_is_one_bad_row(tmp_path):
    path = rows(tmp_path, "a", "x" * 200_000, "c")
    records, (bad,) = read_all(open_file(csv_file, path))
    assert len(records) == 2 and (bad.key, bad.reason) == ("row 2", "row cannot be read")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty, expected a header and rows"),
        (b"\n\n", "is empty, expected a header and rows"),
        (b"\xa9\x01\x02\xff\n" * 9, "is no text: it begins with b'\\xa9"),
        (b"a.jpg\tone\nb.jpg\ttwo\n", "the first line looks like a row: a header"),
        (b"image,words\na.jpg,one\n", "--csv-separator ',' would make them 'image', 'words'"),
        (b"image;words\na.jpg;one\n", "--csv-separator ';' would make them 'image', 'words'"),
        (b"x" * 99 + b"\ty\n", "are '" + "x" * 40 + "'..., 'y'"),
        (b"\t".join(b"%d" % n for n in range(99)), "'6', '7', ..."),
        (b"a\tb\n1\t2\n", "are 'a', 'b'"),
        (b"filepath,title\nx,y\n", "--csv-separator ',' would find it"),
        (b"filepath\tcaption\nx\ty\n", "no column 'title' (--csv-caption-key)"),
        (b"filepath\ttitle\n", "has a header and no rows"),
        (b"filepath\ttitle\n\n\n", "has a header and no rows"),
        (b"filepath\ttitle\ttitle\nx\ty\tz\n", "has 2 columns 'title' (--csv-caption-key)"),
        ("filepath\ttitle\nx\ty\n".encode("utf-16"), "is UTF-16, expected UTF-8"),
        ("filepath\ttitle\nx\ty\n".encode("utf-16-le"), "NUL bytes in its first line"),
        ("filepath\ttitle\nx\ty\n".encode("utf-32"), "is UTF-32, expected UTF-8"),
        (b"\0" * 3000, "NUL bytes in its first line"),
        (b"x" * 3_000_000, "line 1, is longer than"),
        (b"filepath\ttitle\na\tb\n" + b"x" * 3_000_000, "line 3, is longer than"),
        (b'"filepath\ttitle\nx\ty\n', "the quote that opens in line 1"),
        (b"filepath\ttitle\nx.jpg\ty\n", "not there: none of 1, the first 'x.jpg', lies in"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(tmp_path, content, said):
    path = write(tmp_path, content)
    sentence = refusal(path)
    assert said in sentence and str(path) in sentence


@pytest.mark.parametrize(
    "content",
    [
        "a dog\thttps://host/1.jpg\na cat\thttps://host/2.jpg\n",
        "http://host/1.jpg\ta dog\n",
        "URL,TEXT,WIDTH\nhttp://host/1.jpg,a dog,3\n",
        "url\ttext\nhttp://host/1.jpg\ta dog\n",
        "image_urls,captions\nhttp://host/1.jpg,a dog\n",
        "filepath\ttitle\nhttps://host/1.jpg\ta dog\n",
    ],
)
def test_lists_of_urls_point_at_img2dataset(tmp_path, content):
    assert "urls of pictures, not pictures: download them with img2dataset" in refusal(
        write(tmp_path, content)
    )


@pytest.mark.parametrize("separator", ["", "ab", "\n", '"'])
def test_a_separator_that_csv_does_not_take(tmp_path, separator):
    assert "--csv-separator is" in refusal(rows(tmp_path, "a"), csv_separator=separator)


def test_a_tab_that_the_shell_left_as_two_characters_is_told(tmp_path):
    told = refusal(rows(tmp_path, "a"), csv_separator=r"\t")
    assert told.endswith("line end; a tab is the default, and $'\\t' in bash")


def test_files_that_cannot_be_opened(tmp_path):
    assert "cannot read" in refusal(tmp_path / "missing.csv")
    assert "cannot read" in refusal(tmp_path)


def test_only_wanted_columns_and_pictures_need_to_be_there(tmp_path):
    texts = write(tmp_path, "title\na dog\n")
    assert captions(texts, wanted=frozenset({"caption"})) == ["a dog"]
    path = write(tmp_path, "filepath\nnowhere.jpg\n")
    assert "nowhere.jpg" in refusal(path, frozenset({"picture"}))
    assert "no column 'title'" in refusal(path)


def test_paths_are_relative_to_the_working_directory_or_the_file(tmp_path, monkeypatch):
    (tmp_path / "lists").mkdir()
    write_pictures(tmp_path, ["a.jpg"])
    path = write(tmp_path / "lists", "filepath\ttitle\na.jpg\tx\n")
    assert "a.jpg" in refusal(path)
    monkeypatch.chdir(tmp_path)
    (picture,) = values_of(open_file(csv_file, path), "picture")
    assert picture.exists()
    assert values_of(open_file(csv_file, path, image_root=str(tmp_path)), "picture")[0].exists()


def test_names_tell_csv_files():
    from pathlib import Path

    for name, is_csv in (("a.csv", True), ("a.TSV", True), ("a.json", False), ("csv", False)):
        assert csv_file.detects(Path(name), b"") == is_csv
