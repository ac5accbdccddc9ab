"""Several sources as one: mixtures, their factors, and what does not mix."""

import re

import pytest
from source_checks import Asked, good
from stand_in_layouts import stand_in, write_layouts

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
    ("factors", "number", "factor"),
    [
        *((f"{factor}::1", 1, factor) for factor in ("0", "-1", "nan", "inf", "1e999", "1e9", "a")),
        ("1e-9::1", 1, "1e-9"),
        ("2::", 2, ""),
        ("1::20000", 2, "20000"),
    ],
)
def test_a_factor_out_of_range_is_named_with_its_source(folder, factors, number, factor):
    spec = DataSpec("s-00.tar::s-01.tar", upsampling=factors)
    said = f"is '{factors}', of which factor {number}, that of s-0{number - 1}.tar, is '{factor}'"
    with pytest.raises(UserError, match=re.escape(f"--train-data-upsampling-factors {said}")):
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
