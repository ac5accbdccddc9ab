"""Labels of parquet files: numbers, names, and classes that are stored with the columns."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from parquet_writing import IMAGE, image, write_parquet
from source_checks import good, open_with

from fastclip.data.sources import parquet
from fastclip.errors import UserError

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
