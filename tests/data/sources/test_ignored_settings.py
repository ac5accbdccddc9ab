"""Settings that a layout does not read are refused."""

import pytest
from shard_files import write_shards
from source_checks import Asked, write_pictures
from stand_in_layouts import stand_in

from fastclip.data.sources.ignored_settings import settings_of_each
from fastclip.data.sources.opening import open_source
from fastclip.data.sources.spec import DataSpec
from fastclip.errors import UserError

PICTURE = Asked("picture")


@pytest.fixture(autouse=True)
def opened(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, [1])
    write_pictures(tmp_path, "flat/1.png", "flat/train/2.png")
    for name in ("pairs.csv", "karpathy.json", "regions.json"):
        (tmp_path / name).write_text("x")
    return stand_in(monkeypatch)


@pytest.mark.parametrize(
    ("path", "settings", "said"),
    [
        ("flat", {"csv_separator": ","}, "--csv-separator is ',', which .* image-folder"),
        ("s-00.tar", {"csv_img_key": "x"}, "--csv-img-key is 'x', which .* webdataset"),
        ("karpathy.json", {"csv_caption_key": "x"}, "--csv-caption-key is 'x'"),
        ("pairs.csv", {"split": "val"}, "--train-split is 'val', which .* csv"),
        ("s-00.tar", {"split": "val"}, "--train-split is 'val'"),
        ("karpathy.json", {"regions": "whole"}, "--regions is 'whole'"),
        ("flat", {"image_root": "x"}, "--image-root is 'x'"),
        ("flat::pairs.csv", {"regions": "whole"}, "layout image-folder and csv"),
        ("s-00.tar::s-00.tar", {"regions": "whole"}, "layout webdataset do"),
    ],
)
def test_a_setting_that_is_not_read_is_refused(path, settings, said):
    with pytest.raises(UserError, match=said) as error:
        open_source(DataSpec(path, **settings), [PICTURE])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("path", "settings"),
    [
        ("pairs.csv", {"csv_separator": ",", "csv_img_key": "a", "csv_caption_key": "b"}),
        ("pairs.csv", {"image_root": "x"}),
        ("karpathy.json", {"split": "val", "image_root": "x"}),
        ("regions.json", {"regions": "whole"}),
        ("flat", {"split": "train"}),
        ("s-00.tar", {"read_timeout": 3, "max_bad_share": 0.5, "num_samples": 7, "max_pixels": 9}),
        ("pairs.csv", {"csv_separator": "\t"}),
    ],
)
def test_a_setting_that_is_read_reaches_the_layout(opened, path, settings):
    open_source(DataSpec(path, **settings), [PICTURE])
    for _, spec, _ in opened:
        assert {name: getattr(spec, name) for name in settings} == settings


def test_of_a_mixture_each_gets_what_it_reads(opened):
    open_source(DataSpec("s-00.tar::pairs.csv", csv_separator=","), [PICTURE])
    assert [spec.csv_separator for _, spec, _ in opened] == ["\t", ","]


@pytest.mark.parametrize(
    ("role", "flags"),
    [
        ("--train-data", ("--train-split", "--image-root")),
        ("--val-data", ("--val-split", "--val-image-root")),
        ("--val-data name", ("--val-split", "--val-image-root")),
        ("--imagenet-val", ("--val-split", "--val-image-root")),
        ("the data", ("--split", "--image-root")),
    ],
)
def test_flags_are_named_by_the_data_that_they_are_of(role, flags):
    for settings, flag in zip(({"split": "a"}, {"image_root": "a"}), flags, strict=True):
        with pytest.raises(UserError, match=rf"^{flag} is 'a'"):
            open_source(DataSpec("s-00.tar", **settings), [PICTURE], role=role)


def test_data_of_a_run_share_settings_that_one_of_them_reads():
    shared = {"csv_separator": ",", "image_root": "x"}
    specs = {
        "--train-data": DataSpec("s-00.tar", **shared),
        "--val-data": DataSpec("pairs.csv", max_bad_share=0.5, **shared),
        "--other-data": DataSpec("karpathy.json", split="val", **shared),
    }
    assert settings_of_each(specs) == {
        "--train-data": DataSpec("s-00.tar"),
        "--val-data": DataSpec("pairs.csv", max_bad_share=0.5, **shared),
        "--other-data": DataSpec("karpathy.json", split="val", image_root="x"),
    }


def test_a_shared_setting_that_none_reads_is_refused():
    specs = {role: DataSpec("s-00.tar", regions="whole") for role in ("--train-data", "--val-data")}
    with pytest.raises(UserError, match="--regions is 'whole', which .* for --train-data s-00.tar"):
        settings_of_each(specs)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"split": "v"}, "--val-split is 'v'"), ({"image_root": "v"}, "--val-image-root is 'v'")],
)
def test_a_setting_of_validation_data_is_read_by_none_but_those(settings, said):
    specs = {
        "--train-data": DataSpec("karpathy.json"),
        "--val-data a": DataSpec("s-00.tar", **settings),
    }
    with pytest.raises(UserError, match=f"{said}, .* for --val-data a s-00.tar"):
        settings_of_each(specs)
    own = settings_of_each({**specs, "--val-data b": DataSpec("karpathy.json", **settings)})
    assert own["--val-data a"] == DataSpec("s-00.tar")
    assert own["--val-data b"] == DataSpec("karpathy.json", **settings)


def test_validation_data_may_leave_the_image_root_to_the_others():
    specs = {
        "--train-data": DataSpec("pairs.csv", image_root="x"),
        "--val-data": DataSpec("s-00.tar", image_root="x"),
    }
    assert settings_of_each(specs)["--val-data"] == DataSpec("s-00.tar")
