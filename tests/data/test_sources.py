"""Which files a path means, how many records they hold, and what is said of a wrong path."""

import gzip
import json
import os

import pytest
from shard_files import record, write_csv, write_shard, write_shards

from fastclip.data.old_sources import DataSpec, count_records, detect_type, expand, open_source
from fastclip.data.records import RawRecord
from fastclip.data.splits import read_captions
from fastclip.errors import UserError


def keys(spec):
    source = open_source(spec)
    return [r.key for part in range(source.num_parts) for r in source.read(part)]


def test_braces_double_colons_and_stars_name_the_same_shards(tmp_path):
    braces = write_shards(tmp_path, [2, 3, 1])
    colons = "::".join(f"{tmp_path}/s-{n:02d}.tar" for n in range(3))
    assert expand(braces) == expand(colons) == expand(f"{tmp_path}/s-*.tar")
    expected = ["s-00/00000", "s-00/00001", "s-01/00002", "s-01/00003", "s-01/00004", "s-02/00005"]
    assert keys(DataSpec(braces)) == keys(DataSpec(colons)) == expected


def test_a_pipe_is_read_and_not_counted(tmp_path):
    write_shards(tmp_path, [3])
    source = open_source(DataSpec(f"pipe:cat {tmp_path}/s-00.tar"))
    assert count_records(source) is None
    assert [type(r) for r in source.read(0)] == [RawRecord] * 3


def test_a_gzipped_shard_is_read_and_counted(tmp_path):
    shard = write_shard(tmp_path / "a.tar", {"0": record(0), "1": record(1)})
    packed = tmp_path / "b.tar.gz"
    packed.write_bytes(gzip.compress(shard.read_bytes()))
    source = open_source(DataSpec(str(packed)))
    assert count_records(source) == 2
    assert len(list(source.read(0))) == 2


def test_records_are_counted_by_their_headers_with_and_without_text(tmp_path):
    shard = write_shard(
        tmp_path / "a.tar",
        {"0": record(0), "1": record(1, txt=None), "2": record(2, png=None), "3": record(3)},
    )
    assert count_records(open_source(DataSpec(str(shard)))) == 2
    assert count_records(open_source(DataSpec(str(shard)), ())) == 3


@pytest.mark.parametrize(
    ("name", "content"),
    [("sizes.json", {"s-00.tar": 41}), ("s-00_stats.json", {"count": 50, "successes": 41})],
)
def test_known_sizes_are_taken_from_the_files_beside(tmp_path, name, content):
    data = write_shards(tmp_path, [2])
    (tmp_path / name).write_text(json.dumps(content))
    assert count_records(open_source(DataSpec(data))) == 41


def test_counting_stops_where_it_may(tmp_path):
    source = open_source(DataSpec(write_shards(tmp_path, [2, 3, 1])))
    assert count_records(source, at_most=6) == 6
    (tmp_path / "s-02.tar").unlink()
    assert count_records(source, at_most=4) is None


def test_a_changed_shard_is_counted_again(tmp_path):
    data = write_shards(tmp_path, [2])
    assert count_records(open_source(DataSpec(data))) == 2
    write_shards(tmp_path, [5])
    assert count_records(open_source(DataSpec(data))) == 5


def test_shards_of_one_name_in_two_folders_keep_distinct_keys(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_shards(tmp_path / folder, [2])
    found = keys(DataSpec(f"{tmp_path}/{{a,b}}/s-00.tar"))
    assert len(set(found)) == 4


def test_csv_rows_with_other_column_names_and_separator(tmp_path):
    path = write_csv(tmp_path, 70)
    renamed = tmp_path / "renamed.csv"
    text = path.read_text().replace("filepath\ttitle", "img\tcap").replace("\t", ",")
    renamed.write_text(text)
    spec = DataSpec(str(renamed), csv_img_key="img", csv_caption_key="cap", csv_separator=",")
    assert count_records(open_source(spec)) == 70
    assert keys(spec)[69] == f"row 70: {tmp_path}/69.png"
    assert list(read_captions(spec)) == [f"caption number {n}" for n in range(70)]


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("a/{0000..0003}.tar", "webdataset"),
        ("a.tar::b.tgz", "webdataset"),
        ("a-*.tar.gz", "webdataset"),
        ("pipe:aws s3 cp s3://bucket/a -", "webdataset"),
        ("https://host/{0..3}.tar", "webdataset"),
        ("pairs.csv", "csv"),
        ("pairs.tsv", "csv"),
    ],
)
def test_the_format_is_told_from_the_path(path, kind):
    assert detect_type(DataSpec(path)) == kind
    assert detect_type(DataSpec(path, dataset_type="csv")) == "csv"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("", "no data given"),
        ("missing.tar", "1 of 1 shards of .*missing.tar' do not exist, first .*missing.tar"),
        ("s-{00..03}.tar", "3 of 4 shards .* first .*s-01.tar"),
        ("t-*.tar", "no shard matches .*t-"),
        ("s-{00.tar", "cannot expand"),
        ("${NOWHERE}/s.tar", "cannot expand"),
        ("none.parquet", "cannot tell the format of .*none.parquet.*no such file.*accepted are"),
        (".", "a folder: name its shards"),
        ("missing.csv", "cannot read missing.csv: No such file"),
        ("empty.csv", "has no column 'filepath' .*columns.* are none"),
        ("other.csv", "has no column 'filepath' .--csv-img-key.; .* are 'a', 'b'"),
        ("header.csv", "a header and no rows"),
        ("latin.csv", "latin.csv is not UTF-8"),
    ],
)
def test_a_wrong_path_gets_one_sentence(tmp_path, monkeypatch, path, said):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, [1])
    (tmp_path / "none.parquet").unlink(missing_ok=True)
    (tmp_path / "empty.csv").write_text("")
    (tmp_path / "other.csv").write_text("a\tb\n1\t2\n")
    (tmp_path / "header.csv").write_text("filepath\ttitle\n")
    (tmp_path / "latin.csv").write_bytes(b"filepath\ttitle\nx.png\t\xe9\n")
    with pytest.raises(UserError, match=said) as error:
        open_source(DataSpec(path))
    assert "\n" not in str(error.value)


def test_tags_are_not_looked_for_in_a_csv(tmp_path):
    spec = DataSpec(str(write_csv(tmp_path, 2)))
    with pytest.raises(UserError, match="captions.tags asks for are read from webdataset shards"):
        open_source(spec, with_tags=True)


def test_the_empty_shard_list_is_refused():
    with pytest.raises(UserError, match="shard list '::' is empty"):
        open_source(DataSpec("::", dataset_type="webdataset"))


def test_member_names_are_never_used_as_paths(tmp_path, monkeypatch):
    inside = tmp_path / "work"
    inside.mkdir()
    monkeypatch.chdir(inside)
    outside = tmp_path / "escaped"
    shard = write_shard(
        tmp_path / "a.tar", {"../escaped": record(0), f"{tmp_path}/absolute": record(1)}
    )
    assert len(keys(DataSpec(str(shard)))) == 2
    assert sorted(os.listdir(tmp_path)) == ["a.tar", "work"]
    assert os.listdir(inside) == []
    assert not outside.exists()


def test_the_synthetic_type_is_the_generated_set(tmp_path, monkeypatch):
    from fastclip.data import generated

    small = generated.GeneratedSpec(num_samples=12, num_val=2)
    monkeypatch.setattr(generated, "GeneratedSpec", lambda: small)
    source = open_source(DataSpec(str(tmp_path), dataset_type="synthetic"))
    assert count_records(source) == 12
    with pytest.raises(UserError, match="needs a folder"):
        open_source(DataSpec("", dataset_type="synthetic"))
