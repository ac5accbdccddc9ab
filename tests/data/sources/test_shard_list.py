"""Which urls a list of shards means."""

import pytest
from shard_files import write_shards

from fastclip.data.sources.shard_list import expand, is_local
from fastclip.errors import UserError


def test_braces_double_colons_and_stars_name_the_same_shards(tmp_path):
    braces = write_shards(tmp_path, [1, 1, 1])
    colons = "::".join(f"{tmp_path}/s-{n:02d}.tar" for n in range(3))
    assert expand(braces) == expand(colons) == expand(f"{tmp_path}/s-*.tar")
    assert len(expand(braces)) == 3


def test_urls_are_not_looked_for():
    urls = expand("https://host/{0..1}*.tar::pipe:cat x")
    assert urls == ["https://host/0*.tar", "https://host/1*.tar", "pipe:cat x"]
    assert not any(map(is_local, urls))
    assert is_local("a/b.tar") and is_local("/a:b.tar")


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("missing.tar", "1 of 1 shards of .*missing.tar' do not exist, first .*missing.tar"),
        ("s-{00..03}.tar", "3 of 4 shards .* first .*s-01.tar"),
        ("t-*.tar", "no shard matches .*t-"),
        ("s-{00.tar", "cannot expand"),
        ("${NOWHERE}/s.tar", "cannot expand"),
        ("::", "is empty"),
    ],
)
def test_a_list_that_means_no_shards_is_refused(tmp_path, monkeypatch, pattern, said):
    monkeypatch.chdir(tmp_path)
    write_shards(tmp_path, [1])
    with pytest.raises(UserError, match=said):
        expand(pattern)
