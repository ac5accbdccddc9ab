from pathlib import Path

import pytest
from annotation_files import open_file, read_all, values_of, write_pictures

from fastclip.data.sources import flickr
from fastclip.errors import UserError

BARS = """image_name| comment_number| comment
a.jpg| 0| Two dogs run .
a.jpg| 1| Dogs .
b.jpg| 0| "Quoted" words | a bar .
2199200615.jpg| 4   A dog runs across the grass .
a.jpg| 2| Last of a .
"""
TOKEN = """a.jpg#0\tTwo dogs run .
a.jpg#1\tDogs .
b.jpg#0\t"Quoted" words | a bar .
2199200615.jpg#4\tA dog runs across the grass .
a.jpg#2\tLast of a .
"""
COMMAS = """image,caption
a.jpg,Two dogs run .
a.jpg,Dogs .
b.jpg,"Quoted" words | a bar .
2199200615.jpg,A dog runs across the grass .
a.jpg,Last of a .
"""
CAPTIONS = [
    ["Two dogs run .", "Dogs .", "Last of a ."],
    ['"Quoted" words | a bar .'],
    ["A dog runs across the grass ."],
]
LAYOUTS = {"results.csv": BARS, "results.token": TOKEN, "captions.txt": COMMAS}


def write(folder, name, content):
    write_pictures(folder, ["a.jpg", "b.jpg", "2199200615.jpg"])
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("with_mark", [True, False])
def test_captions_are_grouped_by_picture_in_the_files_order(tmp_path, name, end, with_mark):
    content = ("\ufeff" if with_mark else "") + LAYOUTS[name].replace("\n", end) + end
    source = open_file(flickr, write(tmp_path, name, content))
    records, bad = read_all(source)
    assert [r.values["captions"] for r in records] == CAPTIONS and not bad
    assert [r.key for r in records] == ["a.jpg", "b.jpg", "2199200615.jpg"]
    assert records[0].values["picture"] == tmp_path / "a.jpg" and records[0].values["id"] == "a.jpg"
    assert source.holds == {"picture", "captions", "id"}
    assert flickr.detects(Path(name), content.encode())


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_header_may_be_missing(tmp_path, name):
    content = LAYOUTS[name]
    content = content.split("\n", 1)[1] if content.startswith("image") else content
    assert values_of(open_file(flickr, write(tmp_path, name, content)), "captions") == CAPTIONS


@pytest.mark.parametrize(
    ("line", "caption"),
    [
        ("a.jpg,a dog, a cat, and a man", "a dog, a cat, and a man"),
        ("a.jpg,see b.jpg, or a.jpg,the dog", "see b.jpg, or a.jpg,the dog"),
        ('a.jpg,"a dog, a cat"', "a dog, a cat"),
        ('a.jpg,"say ""hi"", dog"', 'say "hi", dog'),
        ('a.jpg,"a" dog and "b"', '"a" dog and "b"'),
        ('a.jpg,"never closed', '"never closed'),
        ("a.jpg,", ""),
        ("a.jpg,two words", "two words"),
    ],
)
def test_commas_and_quotes_of_flickr8k(tmp_path, line, caption):
    path = write(tmp_path, "captions.txt", f"image,caption\n{line}\nb.jpg,next\n")
    assert values_of(open_file(flickr, path), "captions") == [[caption], ["next"]]


@pytest.mark.parametrize("gap", ["4   ", "4 ", " 4\t", "4| ", "4|"])
def test_the_second_bar_may_be_missing(tmp_path, gap):
    path = write(tmp_path, "results.csv", f"image_name| comment_number| comment\na.jpg|{gap}2 dogs")
    assert values_of(open_file(flickr, path), "captions") == [["2 dogs"]]


def test_a_picture_that_the_set_lacks_keeps_its_record(tmp_path):
    path = write(tmp_path, "Flickr8k.token.txt", "a.jpg#0\tx\n2258277193_58.jpg.1#0\ty\n")
    (_, second), bad = read_all(open_file(flickr, path))
    assert second.key == "2258277193_58.jpg.1" and not bad


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("line", ["no picture here", "a.jpg", ",a dog", "a.txt,x", "| 0| x"])
def test_lines_of_no_caption_are_booked(tmp_path, name, line):
    path = write(tmp_path, name, LAYOUTS[name] + line + "\n\n")
    records, (bad,) = read_all(open_file(flickr, path))
    assert [r.values["captions"] for r in records] == CAPTIONS
    assert bad.reason == "line is not a picture and its caption"
    assert bad.key == f"line {LAYOUTS[name].count(chr(10)) + 1}"


def test_captions_that_are_not_utf_8_stay_undecoded(tmp_path):
    path = write(tmp_path, "results.token", b"a.jpg#0\tan \xe9t\xe9\na.jpg#1\tok\n")
    ((first, second),) = values_of(open_file(flickr, path), "captions")
    assert isinstance(first, bytes) and second == "ok"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "has no rows"),
        (b"image,caption\n", "has no rows"),
        (b"filepath\ttitle\na.jpg\tx\n", "starts with 'filepath\\ttitle', expected a row"),
        (b"x" * 2_000_000, "line 1, is longer than"),
        ("image,caption\n".encode("utf-16"), "is UTF-16"),
        (b"image,caption\nnowhere.jpg,x\n", "names pictures that are not there"),
    ],
)
def test_a_file_that_cannot_be_used_gets_one_sentence(tmp_path, content, said):
    with pytest.raises(UserError) as error:
        open_file(flickr, write(tmp_path, "captions.txt", content))
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("folder", ["flickr30k_images", "Images", "Flicker8k_Dataset", "../images"])
def test_pictures_are_found_in_the_usual_folders(tmp_path, folder):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "captions.txt").write_text("image,caption\n7.jpg,x\n")
    write_pictures(tmp_path / "a" / folder, ["7.jpg"])
    source = open_file(flickr, tmp_path / "a" / "captions.txt")
    assert values_of(source, "picture")[0].is_file()


@pytest.mark.parametrize(
    "content",
    [
        b"filepath\ttitle\na.jpg\tx\n",
        b"filepath,title\na.jpg,x\n",
        b"image,caption\nhttp://host/1,x\n",
        b"image,caption,split\na.jpg,x,train\n",
        b"a.jpg,x\n",
        b'{"images": []}',
        b"",
    ],
)
def test_other_files_are_not_taken_for_flickrs(content):
    assert not flickr.detects(Path("x.csv"), content)
