"""Which urls and files a list of shards means."""

import glob
import re
from pathlib import Path

from fastclip.errors import UserError


def expand(pattern: str) -> list[str]:
    """All urls of a pattern with braces, ``::`` and, for local files, ``*``; each must be there."""
    from webdataset.shardlists import expand_urls

    try:
        expanded = expand_urls(pattern)
    except (ValueError, AssertionError) as error:
        raise UserError(f"cannot expand the shard list {pattern!r}: {error}") from error
    urls: list[str] = []
    for url in expanded:
        if "*" in url and is_local(url):
            found = sorted(glob.glob(url))
            if not found:
                raise UserError(f"no shard matches {url}")
            urls.extend(found)
        elif url:
            urls.append(url)
    if not urls:
        raise UserError(f"the shard list {pattern!r} is empty")
    missing = [url for url in urls if is_local(url) and not Path(url).is_file()]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(urls)} shards of {pattern!r} do not exist, first {missing[0]}"
        )
    return urls


def is_local(url: str) -> bool:
    """Whether ``url`` is a path of this machine, rather than a pipe or a remote url."""
    return not re.match(r"^[a-z0-9+.-]+:", url, re.IGNORECASE)


def is_pattern(path: str) -> bool:
    """Whether ``path`` stands for several: it has a star or braces and is no file itself."""
    return bool(re.search(r"[*{]", path)) and not Path(path).exists()
