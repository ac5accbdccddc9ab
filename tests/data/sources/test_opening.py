"""Any path to a source: detection, what is refused, mixtures."""

import io
import sys
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from shard_files import record, write_shard, write_shards
from source_checks import Asked, good, write_pictures
from stand_in_layouts import stand_in

from fastclip.data.sources.detecting import layouts_of
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

PICTURE, CAPTION = Asked("picture"), Asked("caption", "caption", "captions")
LABEL, TAGS = Asked("label"), Asked("tags")


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    return stand_in(monkeypatch)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A data set of each layout, in the working directory."""
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, [1, 1])
    write_pictures(tmp_path, "classes/ant/1.png", "classes/bee/1.png", "more/ant/1.png")
    write_pictures(tmp_path, "flat/1.png", "table/1.png", "voc/JPEGImages/1.jpg")
    (tmp_path / "table" / "metadata.csv").write_text("file_name,text\n1.png,one\n")
    (tmp_path / "voc" / "Annotations").mkdir()
    (tmp_path / "voc" / "Annotations" / "1.xml").write_text("<annotation/>")
    table = pa.table({"png": [b"x"], "text": ["a"]})
    for name in ("a.parquet", "nameless", "hub/data/a.parquet"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, tmp_path / name)
    for name in ("pairs.csv", "x.token", "karpathy.json", "regions.json", "lavis.json"):
        (tmp_path / name).write_text("x")
    (tmp_path / "coco.json").write_text("x")
    write_shard(tmp_path / "tarball", {"0": record(0)})
    (tmp_path / "shards").mkdir()
    write_shards(tmp_path / "shards", [1])
    return tmp_path


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
        ("::", "is empty"),
        ("missing.parquet", r"'missing.parquet' \(no such file\); accepted are \.tar, .*COCO"),
        ("missing", r"no such file.*or a --dataset-type \(webdataset, .*synthetic\)"),
        ("shards", r"a folder: name its shards, e.g. shards/train-\{0000..0009\}.tar"),
        ("shards/", r"e.g. shards/train-"),
        ("notes.md", "cannot tell the format of 'notes.md'; accepted are"),
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
    said = f"{path.split('::')[-1]} holds .* of each record; CLIP needs .*{field.name}"
    with pytest.raises(UserError, match=said):
        open_source(DataSpec(path), [PICTURE, field], wanted_by="CLIP")
    open_source(DataSpec(path), [PICTURE], also=[field])


def test_the_generated_set_is_shards(tmp_path, monkeypatch, opened):
    from fastclip.data import generated

    small = generated.GeneratedSpec(num_samples=3, num_val=2, picture_size=16)
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


@pytest.mark.parametrize(
    ("path", "layout"), [("s-00.tar::s-01.tar", "webdataset"), ("a.parquet::hub", "parquet")]
)
def test_several_of_one_layout_are_one_source(folder, opened, path, layout):
    source = open_source(DataSpec(path), [PICTURE])
    assert (source.name, source.num_parts, source.weights) == (path, 2, None)
    assert not any(key.startswith("0:") for key in good(source))


def test_several_layouts_are_mixed(folder, opened):
    path = "table::pairs.csv::s-{00,01}.tar::a.parquet"
    source = open_source(DataSpec(path), [PICTURE, CAPTION])
    assert source.num_parts == 5
    assert list(good(source)) == ["0:1.png", "1:pairs.csv", "2:s-00.tar", "2:s-01.tar", "3:a/0"]
    assert source.weights is None
    assert source.name == path


def test_upsampling_factors_are_weights_of_each_source(folder):
    spec = DataSpec("s-{00,01}.tar::s-00.tar", upsampling="2::0.5")
    source = open_source(spec, [PICTURE])
    assert list(source.weights) == [2.0, 2.0, 0.5]
    assert len(good(source)) == 3
    single = open_source(DataSpec("s-{00,01}.tar", upsampling="3"), [PICTURE])
    assert list(single.weights) == [3.0, 3.0]
    streams = open_source(DataSpec("pipe:cat a::pipe:cat b", upsampling="1::4"), [PICTURE])
    assert streams.forward_only and list(streams.weights) == [1.0, 4.0]


@pytest.mark.parametrize(
    "factors", ["0::1", "-1::1", "nan::1", "inf::1", "1e999::1", "a::1", "2::"]
)
def test_factors_that_are_no_positive_numbers_are_refused(folder, factors):
    spec = DataSpec("s-00.tar::s-01.tar", upsampling=factors)
    with pytest.raises(
        UserError, match="--train-data-upsampling-factors is '.*', expected positive"
    ):
        open_source(spec, [PICTURE])


@pytest.mark.parametrize(
    ("path", "factors", "said"),
    [
        ("s-00.tar::s-01.tar", "1", "is '1', 1 in number, expected one for each of the 2 sources"),
        ("s-{00,01}.tar", "1::2", "is '1::2', 2 in number, expected one for each of the 1 sources"),
    ],
)
def test_another_number_of_factors_than_sources_is_refused(folder, path, factors, said):
    with pytest.raises(UserError, match=said):
        open_source(DataSpec(path, upsampling=factors), [PICTURE])


def test_streams_do_not_mix_with_what_is_read_in_any_order(folder):
    with pytest.raises(UserError, match="flat is read in any order and pipe:cat a is a stream"):
        open_source(DataSpec("flat::pipe:cat a"), [PICTURE])


def test_sources_that_number_different_classes_do_not_mix_where_labels_are_wanted(folder):
    spec = DataSpec("classes::more")
    with pytest.raises(UserError, match="classes and more number different classes: ant and bee"):
        open_source(spec, [LABEL])
    assert len(good(open_source(spec, [PICTURE]))) == 3
    same = open_source(DataSpec("classes::classes"), [LABEL])
    assert same.class_names == ["ant", "bee"]
