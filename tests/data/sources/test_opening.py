"""Any path to a source: detection, and what is refused."""

import io
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_checks import Asked, good
from stand_in_layouts import stand_in, write_layouts

from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

JSON = {
    **{text: text for text in ("{}", "[]", "null", "[1]")},
    "nothing": "",
    "keys": '{"a": 1, "b": [2]}',
    "cut": '{"a": [1, ',
    "utf16": "{}".encode("utf-16"),
    "bom": "{}".encode("utf-8-sig"),
    "latin": b'{"\xe9": 1}',
}
PICTURE, CAPTION = Asked("picture"), Asked("caption", "caption", "captions")
LABEL, TAGS = Asked("label"), Asked("tags")


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of each layout, in the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_layouts(tmp_path)


@pytest.mark.parametrize(
    ("path", "layout"),
    [
        *(("s-00.tar", "webdataset"), ("s-{00..01}.tar", "webdataset"), ("s-*.tar", "webdataset")),
        *(("missing.TAR", "webdataset"), ("a.tar.gz", "webdataset"), ("a.tgz", "webdataset")),
        *(("pipe:cat x", "webdataset"), ("https://host/{0..3}.tar", "webdataset")),
        *(("s3://bucket/x", "webdataset"), ("tarball", "webdataset")),
        *(("a.parquet", "parquet"), ("*.parquet", "parquet"), ("nameless", "parquet")),
        *(("hub", "parquet"), ("hub/data", "parquet"), ("{a,hub/data/a}.parquet", "parquet")),
        *(("voc", "voc"), ("classes", "image-folder"), ("flat", "image-folder")),
        *(("table", "image-folder"), ("table/metadata.csv", "image-folder")),
        *(("pairs.csv", "csv"), ("x.token", "flickr"), ("karpathy.json", "karpathy")),
        *(("regions.json", "visual-genome"), ("lavis.json", "lavis"), ("coco.json", "coco")),
    ],
)
def test_the_layout_is_told_from_ending_and_content(folder, path, layout):
    assert [(p, found.name) for p, found in layouts_of(DataSpec(path))] == [(path, layout)]
    as_said = layouts_of(DataSpec(path, dataset_type="csv"))
    assert [(p, found.name) for p, found in as_said] == [(path, "csv")]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "no data given"),
        ("::", "part 1 of 2 is empty"),
        ("s-00.tar::", "--train-data is 's-00.tar::', of which part 2 of 2 is empty"),
        ("::s-00.tar", "part 1 of 2 is empty"),
        ("s-00.tar:: ::s-01.tar", "part 2 of 3 is empty"),
        ("missing.parquet", "there is no file or folder missing.parquet$"),
        ("missing", "there is no file or folder missing$"),
        ("shards", r"is a folder of shards: name the shards, e.g. shards/s-\*.tar$"),
        ("shards/", r"e.g. shards/s-\*.tar$"),
        (
            "notes.md",
            r"layout of notes.md, which begins with 'x': .*--dataset-type \(webd.*coco\)$",
        ),
        ("x.h5", r"which begins with b'\\x89HDF"),
        ("nothing", r"^nothing is empty \(0 bytes\)$"),
        ("nothing.json", r"^nothing.json is empty \(0 bytes\)$"),
        ("flat/1.png", "is one picture: name the folder that it lies in"),
        ("{}.json", "which holds an empty object: name"),
        ("[].json", "which holds an empty list: name"),
        ("null.json", "which holds null: name"),
        ("keys.json", "which holds an object with the keys 'a', 'b': name"),
        ("[1].json", "which holds a list that begins with the number 1: name"),
        ("cut.json", "is not JSON, the file is cut off"),
        ("utf16.json", "is UTF-16, expected UTF-8"),
        ("bom.json", "which holds an empty object: name"),
        ("latin.json", "is not UTF-8"),
        ("empty", "empty holds no picture"),
        ("none-*.csv", "no shard matches none-"),
        ("s-{00.tar", "cannot expand"),
        ("{pairs,other}.csv", "names several files, but the layout csv is read from one"),
        ("pair*.csv", "names several files"),
        ("https://host/pairs.csv", "is no file of this machine: shards alone are read from a url"),
        ("s3://bucket/a.parquet", "is no file of this machine"),
        ("x" * 5000, "cannot read x*: File name too long"),
        (f"{'x' * 5000}.csv", "cannot read x*.csv: File name too long"),
    ],
)
def test_an_unknown_path_gets_one_sentence(folder, path, said):
    (folder / "notes.md").write_text("x")
    (folder / "empty").mkdir()
    (folder / "other.csv").write_text("x")
    (folder / "x.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    for name, text in JSON.items():
        (folder / f"{name}.json").write_bytes(text.encode() if isinstance(text, str) else text)
    (folder / "nothing").write_bytes(b"")
    with pytest.raises(UserError, match=said) as error:
        source = open_source(DataSpec(path), [PICTURE])
        raise AssertionError(source)
    assert "\n" not in str(error.value)


def test_what_the_system_refuses_to_read_gets_one_sentence(folder, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied", "pairs.csv")

    monkeypatch.setattr(sys.modules["fastclip.data.sources.csv_file"], "open_source", refuse)
    with pytest.raises(UserError, match=r"^cannot read pairs.csv: Permission denied$"):
        open_source(DataSpec("pairs.csv"), [PICTURE])
    monkeypatch.setattr(sys.modules["fastclip.data.sources.csv_file"], "detects", refuse)
    with pytest.raises(UserError, match=r"^cannot read pairs.csv: Permission denied$"):
        open_source(DataSpec("pairs.csv"), [PICTURE])


def test_an_archive_beside_class_folders_is_no_hint(folder):
    with tarfile.open(folder / "classes" / "all.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("x"), io.BytesIO())
    assert len(good(open_source(DataSpec("classes"), [LABEL]))) == 2


def test_what_is_asked_for_is_wanted(folder, opened):
    open_source(DataSpec("s-00.tar"), [PICTURE, CAPTION], also=[TAGS])
    assert opened[0][2] == {"picture", "caption", "captions", "tags"}


@pytest.mark.parametrize(
    ("path", "field"),
    [
        *(("classes", CAPTION), ("flat", LABEL), ("table", LABEL), ("voc", CAPTION)),
        *(("a.parquet", TAGS), ("pairs.csv", LABEL), ("s-00.tar::pairs.csv", LABEL)),
    ],
)
def test_a_source_without_a_field_is_refused(folder, path, field):
    said = f"{path.split('::')[-1]} (holds|has the columns) .*; CLIP needs .*{field.name}"
    with pytest.raises(UserError, match=said):
        open_source(DataSpec(path), [PICTURE, field], wanted_by="CLIP")
    open_source(DataSpec(path), [PICTURE], also=[field])


@pytest.mark.parametrize("missing", ["picture", "caption"])
def test_columns_that_are_not_known_are_named_with_those_that_are(tmp_path, missing):
    columns = {"image": pa.array([b"x"]), "caption": pa.array(["a"])}
    columns["other"] = columns.pop({"picture": "image"}.get(missing, missing))
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    needed = PICTURE if missing == "picture" else CAPTION
    with pytest.raises(UserError) as error:
        open_source(DataSpec(str(tmp_path / "a.parquet")), [needed], wanted_by="x")
    found, names = {
        "picture": ("'caption (string)', 'other (binary)'", "image, img, picture, jpg, "),
        "caption": ("'image (binary)', 'other (string)'", "caption, text, txt, title, captions"),
    }[missing]
    said = f"has the columns {found}; x needs a {missing}, for which the accepted names are {names}"
    assert said in str(error.value)


def test_the_generated_set_is_shards(tmp_path, monkeypatch, opened):
    from fastclip.data.generated import shards as generated
    from fastclip.data.generated.samples import GeneratedSpec

    small = GeneratedSpec(num_samples=3, num_val=2, picture_size=16)
    make = generated.ensure_generated
    target = "fastclip.data.sources.generated.ensure_generated"
    monkeypatch.setattr(target, lambda root: make(root, small, progress=False))
    source = open_source(DataSpec(str(tmp_path), dataset_type="synthetic"), [PICTURE])
    assert source.num_parts == 1
    name, spec, _ = opened[0]
    assert (name, spec.dataset_type) == ("webdataset", "webdataset")
    assert spec.path.endswith("/train-{0000..0000}.tar")
    with pytest.raises(UserError, match="needs a folder to be kept in"):
        open_source(DataSpec(dataset_type="synthetic"), [PICTURE])
