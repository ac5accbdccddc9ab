"""Any path to a source: detection, and what is refused."""

import io
import sys
import tarfile

import pytest
from source_checks import Asked, good
from stand_in_layouts import stand_in, write_layouts

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
    from fastclip.data.generated import shards as generated

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
