"""Parquet files in Hugging Face's and img2dataset's layouts."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_writing import IMAGE, image, write_parquet
from shard_files import picture_bytes
from source_checks import bad, good, open_with, write_pictures

from fastclip.data.sources import parquet
from fastclip.errors import UserError


def test_hugging_face_layout(tmp_path):
    columns = {"image": [image(0), image(1)], "caption": ["a", "b"], "width": [3, 4]}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}))
    assert good(source) == {
        "a/0": {"picture": picture_bytes(0), "caption": "a"},
        "a/1": {"picture": picture_bytes(1), "caption": "b"},
    }
    assert source.holds == {"picture", "caption"}
    assert bad(source) == []


@pytest.mark.parametrize("name", ["jpg", "png", "webp", "jpeg", "image", "img", "JPG"])
def test_img2dataset_layout(tmp_path, name):
    columns = {
        "key": ["000000001", "000000002"],
        name: [picture_bytes(0), None],
        "txt": ["a", "b"],
        "json": ['{"tags": ["x"]}', None],
        "url": ["http://a", "http://b"],
        "status": ["success", "failed_to_download"],
    }
    source = open_with(parquet, write_parquet(tmp_path / "00000.parquet", columns))
    assert good(source) == {
        "00000/0/000000001": {
            "picture": picture_bytes(0),
            "caption": "a",
            "text": "a",
            "json": '{"tags": ["x"]}',
        }
    }
    [null] = bad(source)
    assert (null.key, null.reason) == ("00000/1/000000002", "picture is null")


@pytest.mark.parametrize(
    ("columns", "types", "expected"),
    [
        ({"caption": [["a", "b"], ["c"]]}, None, [["a", "b"], ["c"]]),
        ({"text": [["a"], ["b", None]]}, {"text": pa.large_list(pa.large_string())}, None),
        ({"captions": [["a"], ["b"]]}, None, [["a"], ["b"]]),
        ({"caption-2": ["b", "d"], "caption-1": ["a", "c"]}, None, [["a", "b"], ["c", "d"]]),
        ({"caption_0": ["a", "b"], "caption_1": ["c", None]}, None, [["a", "c"], ["b"]]),
    ],
)
def test_several_captions(tmp_path, columns, types, expected):
    path = write_parquet(tmp_path / "a.parquet", {"png": [b"x", b"y"], **columns}, types)
    source = open_with(parquet, path, ["captions", "caption"])
    assert source.holds == {"picture", "captions"}
    found = [values["captions"] for values in good(source).values()]
    assert found == (expected or [["a"], ["b", None]])


def test_numbered_captions_follow_the_one_without_a_number(tmp_path):
    columns = {"png": [b"x"], "title": ["t"], "caption2": ["c"], "caption": ["a"]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    found = good(open_with(parquet, path, ["captions", "caption"]))
    assert [values["captions"] for values in found.values()] == [["a", "c"]]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary()),
        pa.dictionary(pa.int32(), pa.string()),
    ],
)
def test_texts_of_every_type(tmp_path, kind):
    cells = [b"a", b"b"] if kind == pa.binary() else ["a", "b"]
    columns = {"png": [b"x", b"y"], "text": cells}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns, {"text": kind}))
    assert [values["caption"] for values in good(source).values()] == cells


def test_texts_that_are_not_utf8_come_undecoded(tmp_path):
    broken = pa.array([b"caf\xe9", b"b"], pa.binary()).view(pa.string())
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), broken)
    table = pa.table({"png": pa.array([b"x", b"y"]), "text": broken, "captions": lists})
    pq.write_table(table, tmp_path / "a.parquet")
    found = good(open_with(parquet, tmp_path / "a.parquet", ["caption", "captions"]))
    assert found["a/0"] == {"caption": b"caf\xe9", "captions": [b"caf\xe9"]}
    assert found["a/1"] == {"caption": "b", "captions": ["b"]}


def test_pictures_by_path_lie_beside_the_file(tmp_path):
    write_pictures(tmp_path / "set" / "images", "1.png")
    cells = [
        {"bytes": None, "path": "images/1.png"},
        {"bytes": None, "path": None},
        {"bytes": None, "path": ""},
        None,
        {"bytes": b"", "path": "images/1.png"},
    ]
    path = write_parquet(tmp_path / "set" / "a.parquet", {"image": cells}, {"image": IMAGE})
    source = open_with(parquet, path)
    assert good(source) == {
        "a/0": {"picture": tmp_path / "set" / "images" / "1.png"},
        "a/4": {"picture": b""},
    }
    assert [(r.key, r.reason) for r in bad(source)] == [
        (f"a/{n}", "picture is null") for n in (1, 2, 3)
    ]


@pytest.mark.parametrize("fields", [[("path", pa.string())], [("bytes", pa.large_binary())]])
def test_a_picture_of_one_of_the_two(tmp_path, fields):
    [(name, _)] = fields
    cell = {"path": "1.png"} if name == "path" else {"bytes": b"x"}
    path = write_parquet(tmp_path / "a.parquet", {"image": [cell]}, {"image": pa.struct(fields)})
    [values] = good(open_with(parquet, path)).values()
    assert values["picture"] == (tmp_path / "1.png" if name == "path" else b"x")


def test_a_column_of_paths(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": ["x/1.png", None]})
    source = open_with(parquet, path)
    assert good(source) == {"a/0": {"picture": tmp_path / "x" / "1.png"}}


@pytest.mark.parametrize("column", ["url", "URL", "image_url", "image_urls"])
def test_urls_without_pictures_point_at_img2dataset(tmp_path, column):
    columns = {column: ["http://x/1.jpg"], "TEXT": ["a"], "key": ["1"]}
    path = write_parquet(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError, match="a.parquet lists urls .* img2dataset"):
        open_with(parquet, path)


@pytest.mark.parametrize("cells", [["http://x/1.jpg"], [None, "https://x/1.jpg", "1.jpg"]])
def test_a_column_of_pictures_that_are_urls_is_refused_too(tmp_path, cells):
    path = write_parquet(tmp_path / "a.parquet", {"image": cells, "text": ["a"] * len(cells)})
    with pytest.raises(UserError, match="a.parquet lists urls .* img2dataset"):
        open_with(parquet, path)


def test_bytes_go_before_paths(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"image": ["http://x/1.jpg"], "jpg": [b"x"]})
    assert good(open_with(parquet, path)) == {"a/0": {"picture": b"x"}}


def test_columns_of_other_types_are_no_pictures(tmp_path):
    columns = {"image": [[1, 2]], "png": [7], "text": ["a"]}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns))
    assert source.holds == {"caption", "text"}


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([b"x"]), pa.array(["a"]), pa.array(["b"])], list("ptt"))
    pq.write_table(table.rename_columns(["png", "text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="cannot read .*a.parquet as parquet.*two columns 'text'"):
        open_with(parquet, tmp_path / "a.parquet")
