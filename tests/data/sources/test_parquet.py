"""Parquet files in Hugging Face's and img2dataset's layouts."""

import json
import multiprocessing
import random
from collections import Counter
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_files import picture_bytes
from source_checks import bad, good, open_with, write_pictures

from fastclip.data.bad_records import BadRecord
from fastclip.data.sources import parquet
from fastclip.data.sources.walk import all_records
from fastclip.errors import UserError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def image(number):
    return {"bytes": picture_bytes(number), "path": f"{number}.png"}


def write_parquet(path, columns, types=None, rows_a_group=None, features=None):
    arrays = {name: pa.array(cells, (types or {}).get(name)) for name, cells in columns.items()}
    table = pa.table(arrays)
    if features is not None:
        info = {"huggingface": json.dumps({"info": {"features": features}})}
        table = table.replace_schema_metadata(info)
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, row_group_size=rows_a_group)
    return path


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


CLASS_LABEL = {"_type": "ClassLabel", "names": ["zebra", "ant"]}


def test_class_labels_have_names_and_minus_one_is_none(tmp_path):
    columns = {"image": [image(n) for n in range(3)], "label": [1, 0, -1]}
    features = {"label": CLASS_LABEL, "image": {"_type": "Image"}}
    path = write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}, features=features)
    source = open_with(parquet, path, ["label"])
    assert source.class_names == ["zebra", "ant"]
    assert good(source) == {"a/0": {"label": 1}, "a/1": {"label": 0}, "a/2": {}}


@pytest.mark.parametrize(
    "feature",
    [[CLASS_LABEL], *({"_type": t, "feature": CLASS_LABEL} for t in ("Sequence", "List"))],
)
def test_lists_of_class_labels(tmp_path, feature):
    columns = {"png": [b"x", b"y"], "labels": [[1, 0], []]}
    path = write_parquet(tmp_path / "a.parquet", columns, features={"labels": feature})
    source = open_with(parquet, path, ["labels"])
    assert source.class_names == ["zebra", "ant"]
    assert good(source) == {"a/0": {"labels": [1, 0]}, "a/1": {"labels": []}}


@pytest.mark.parametrize("stored", [b"{", b"[]", b'{"info": {"features": []}}', b"{}", b"null"])
def test_other_metadata_names_no_classes(tmp_path, stored):
    table = pa.table({"png": [b"x"], "label": [3]}).replace_schema_metadata({"huggingface": stored})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_with(parquet, tmp_path / "a.parquet", ["label"])
    assert (source.class_names, good(source)) == (None, {"a/0": {"label": 3}})


def test_labels_that_are_names_are_numbered_over_all_files(tmp_path):
    for name, labels in (("a", ["zoo", None, ""]), ("b", ["ant", "zoo", "bee"])):
        write_parquet(tmp_path / f"{name}.parquet", {"png": [b"x"] * 3, "label": labels}, None, 2)
    source = open_with(parquet, tmp_path, ["label"])
    assert source.class_names == ["ant", "bee", "zoo"]
    found = [values.get("label") for values in good(source).values()]
    assert found == [2, None, None, 0, 2, 1]


def test_files_that_number_different_classes_are_refused(tmp_path):
    for name, names in (("a", ["x", "y"]), ("b", ["y", "x"])):
        features = {"label": {"_type": "ClassLabel", "names": names}}
        columns = {"png": [b"x"], "label": [0]}
        write_parquet(tmp_path / f"{name}.parquet", columns, features=features)
    with pytest.raises(UserError, match="a.parquet and .*b.parquet number different classes"):
        open_with(parquet, tmp_path)


def test_row_groups_are_parts(tmp_path):
    columns = {"png": [picture_bytes(n) for n in range(7)], "text": [str(n) for n in range(7)]}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns, rows_a_group=3))
    assert [source.size(part).records for part in range(source.num_parts)] == [3, 3, 1]
    part = source.open(1)
    assert (len(part), part.read(2).values["caption"], part.read(0).key) == (3, "5", "a/3")
    whole, bare = part.nbytes(), open_with(parquet, tmp_path / "a.parquet", ["caption"]).open(1)
    assert whole > sum(len(picture_bytes(n)) for n in range(3, 6)) > bare.nbytes()
    with pytest.raises(IndexError):
        part.read(3)
    part.close()
    assert part.nbytes() == 0


def test_records_of_nothing_wanted_are_there(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"png": [b"x", b"y"]})
    assert good(open_with(parquet, path, [])) == {"a/0": {}, "a/1": {}}


def test_folders_patterns_and_splits(tmp_path):
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test", "deep/train/0"):
        write_parquet(tmp_path / f"data/{name}.parquet", {"png": [b"x"], "text": [name]})
    (tmp_path / "data" / ".hidden.parquet").write_bytes(b"x")
    every = ["deep/train/0", "test", "train-00000-of-00002", "train-00001-of-00002"]

    def captions(path, **settings):
        found = good(open_with(parquet, path, ["caption"], **settings)).values()
        return [values["caption"] for values in found]

    assert captions(tmp_path) == every
    assert captions(tmp_path, split="train") == [every[0], *every[2:]]
    assert captions(tmp_path, split="test") == ["test"]
    assert captions(f"{tmp_path}/data/train-*.parquet") == every[2:]
    assert captions(f"{tmp_path}/data/train-0000{{0,1}}-of-00002.parquet") == every[2:]
    both = f"{tmp_path}/data/test.parquet::{tmp_path}/data/deep"
    assert captions(both) == ["test", "deep/train/0"]
    with pytest.raises(UserError, match="no split 'val': its files begin with 0, test and train"):
        open_with(parquet, tmp_path, split="val")


def test_files_of_one_name_have_distinct_keys(tmp_path):
    for folder in "ab":
        write_parquet(tmp_path / folder / "0.parquet", {"png": [b"x"]})
    assert list(good(open_with(parquet, tmp_path))) == ["a/0/0", "b/0/0"]
    copy = tmp_path / "a" / "0.pq"
    copy.write_bytes((tmp_path / "a" / "0.parquet").read_bytes())
    assert len(good(open_with(parquet, f"{copy}::{tmp_path}/a/0.parquet"))) == 2


def test_empty_row_groups_and_files_are_no_parts(tmp_path):
    schema = pa.schema({"png": pa.binary()})
    pq.write_table(schema.empty_table(), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="has no row"):
        open_with(parquet, tmp_path)
    write_parquet(tmp_path / "b.parquet", {"png": [b"x"]})
    source = open_with(parquet, tmp_path)
    assert (source.num_parts, list(good(source))) == (1, ["b/0"])


@pytest.mark.parametrize(
    "content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1", b"<html>", b"\0" * 64]
)
def test_a_file_that_is_no_parquet_is_lost_among_others(tmp_path, content):
    (tmp_path / "b.parquet").write_bytes(content)
    with pytest.raises(UserError, match="cannot read .*b.parquet as parquet") as error:
        open_with(parquet, tmp_path)
    assert "\n" not in str(error.value)
    for name, count in (("a", 3), ("c", 5)):
        write_parquet(tmp_path / f"{name}.parquet", {"png": [b"x"] * count})
    source = open_with(parquet, tmp_path)
    assert len(good(source)) == 8
    [lost] = bad(source)
    assert (lost.reason, lost.lost) == ("file cannot be read", 4)


def test_broken_data_are_lost_row_group_by_row_group(tmp_path):
    columns = {"png": [bytes([n]) * 2000 for n in range(6)]}
    path = write_parquet(tmp_path / "a.parquet", columns, rows_a_group=2)
    place = pq.read_metadata(path).row_group(1).column(0)
    start = min(o for o in (place.dictionary_page_offset, place.data_page_offset) if o)
    data = bytearray(path.read_bytes())
    data[start : start + 60] = b"\xff" * 60
    path.write_bytes(data)
    source = open_with(parquet, path)
    assert set(good(source)) == {"a/0", "a/1", "a/4", "a/5"}
    [lost] = bad(source)
    assert (lost.reason, lost.lost) == ("row group cannot be read", 2)


def test_flipped_bytes_lose_records_and_nothing_else(tmp_path):
    columns = {"image": [image(n) for n in range(12)], "caption": ["a"] * 12, "label": ["x"] * 12}
    path = write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}, rows_a_group=4)
    data, rng = path.read_bytes(), random.Random(0)
    outcomes = Counter()
    for _ in range(150):
        broken = bytearray(data)
        for place in rng.choices(range(len(data)), k=rng.choice([1, 5, 50])):
            broken[place] = rng.randrange(256)
        path.write_bytes(broken[: rng.choice([len(data), rng.randrange(len(data))])])
        try:
            source = open_with(parquet, path)
        except UserError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
            continue
        expected = sum(source.size(part).records for part in range(source.num_parts))
        found = list(all_records(source))
        booked = sum(r.lost if isinstance(r, BadRecord) else 1 for r in found)
        assert booked == expected
        assert not any("\n" in r.detail for r in found if isinstance(r, BadRecord))
        outcomes["read"] += 1
    assert min(outcomes["refused"], outcomes["read"]) > 10


def test_a_file_that_disappears_or_changes_is_lost(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", {"png": [b"x"] * 4}, rows_a_group=2)
    source = open_with(parquet, path)
    write_parquet(path, {"png": [b"x"] * 3}, rows_a_group=3)
    assert [(r.lost, r.reason) for r in bad(source)] == [(2, "row group cannot be read")] * 2
    path.unlink()
    assert [(r.lost, len(r.detail) > 10) for r in bad(source)] == [(2, True)] * 2


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


def test_files_of_different_columns(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"png": [b"x"], "text": ["a"]})
    write_parquet(tmp_path / "b.parquet", {"jpg": [b"y"], "label": [2]})
    source = open_with(parquet, tmp_path, ["picture", "caption", "label"])
    assert source.holds == {"picture", "caption", "text", "label"}
    assert list(good(source).values()) == [
        {"picture": b"x", "caption": "a"},
        {"picture": b"y", "label": 2},
    ]


def test_columns_that_are_structs_of_more_than_one_array(tmp_path, monkeypatch):
    # As columns of more than 2 GiB are: in several batches.
    monkeypatch.setattr("fastclip.data.sources.parquet_part._ROWS_A_BATCH", 2)
    columns = {"image": [image(n) for n in range(5)]}
    source = open_with(parquet, write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}))
    part = source.open(0)
    assert [part.read(n).values["picture"] for n in (4, 0, 3)] == list(
        map(picture_bytes, (4, 0, 3))
    )


def test_row_groups_are_read_after_a_fork(tmp_path):
    columns = {"image": [image(n) for n in range(6)], "text": ["a"] * 6}
    path = write_parquet(tmp_path / "a.parquet", columns, {"image": IMAGE}, rows_a_group=3)
    source = open_with(parquet, path)
    expected = good(source)
    with multiprocessing.get_context("fork").Pool(2) as pool:
        keys = pool.map_async(partial(keys_of, source), range(2)).get(timeout=60)
    assert keys[0] + keys[1] == list(expected)


def keys_of(source, number):
    part = source.open(number)
    return [part.read(row).key for row in range(len(part))]


def test_two_columns_of_one_name(tmp_path):
    table = pa.Table.from_arrays([pa.array([b"x"]), pa.array(["a"]), pa.array(["b"])], list("ptt"))
    pq.write_table(table.rename_columns(["png", "text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="cannot read .*a.parquet as parquet.*two columns 'text'"):
        open_with(parquet, tmp_path / "a.parquet")


def test_detection(tmp_path):
    path = write_parquet(tmp_path / "data" / "a.parquet", {"png": [b"x"]})
    path.rename(tmp_path / "data" / "nameless")
    head = (tmp_path / "data" / "nameless").read_bytes()[:99]
    assert parquet.detects(tmp_path / "data" / "nameless", head)
    assert not parquet.detects(tmp_path, b"")
    write_parquet(tmp_path / "data" / "a.parquet", {"png": [b"x"]})
    assert parquet.detects(tmp_path, b"") and parquet.detects(tmp_path / "data", b"")


def test_identity_changes_with_the_files(tmp_path):
    write_parquet(tmp_path / "a.parquet", {"png": [b"x"]})
    first = open_with(parquet, tmp_path).identity()
    assert open_with(parquet, tmp_path).identity() == first
    write_parquet(tmp_path / "b.parquet", {"png": [b"x"]})
    assert open_with(parquet, tmp_path).identity() != first
