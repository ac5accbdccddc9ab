"""What a record of a shard has of each value, and the sentences on what it lacks."""

import re
from collections.abc import Collection, Iterable

from fastclip.data.bad_records import BadRecord
from fastclip.data.index.records import extensions_told
from fastclip.data.sources.extensions import PICTURE_EXTENSIONS
from fastclip.data.sources.shard_list import is_local
from fastclip.data.sources.sizes import SHARD_ENDING

_NAMED = re.compile(r"([^/\s;|&<>()'\"=]+?)\.(?:tar|tgz)\b")
MEMBERS: dict[str, tuple[str, ...]] = {
    "picture": PICTURE_EXTENSIONS,
    "caption": ("txt", "text", "caption"),
    "text": ("text", "txt"),
    "label": ("cls",),
    "json": ("json",),
}
"""The extensions of the members that a value is read from, the first that is there."""


def chosen(extensions: Collection[str], wanted: Iterable[str]) -> dict[str, str]:
    """The extension of the member for each of the values ``wanted`` that a record has."""
    found = {
        value: next((e for e in MEMBERS[value] if e in extensions), None)
        for value in wanted
        if value in MEMBERS
    }
    return {value: extension for value, extension in found.items() if extension is not None}


def no_picture(key: str, extensions: Iterable[str]) -> BadRecord:
    """The bad record of one without a picture."""
    detail = f"has {extensions_told(extensions)}, none of {', '.join(PICTURE_EXTENSIONS)}"
    return BadRecord(key, "no picture", detail)


def broken_shard(
    url: str, cause: str, said: int | None, found: int, *, is_whole: bool = False
) -> BadRecord:
    """The bad record that stands for what a shard should have held beyond ``found`` records.

    It stands for at least one, but where the archive ``is_whole`` with as many as were said.
    """
    least = 0 if is_whole and said is not None else 1
    lost = max(least, (said or 0) - found)
    return BadRecord(url, "shard is truncated or unreadable", cause, lost)


def in_shard(bad: BadRecord, url: str, name: str) -> BadRecord:
    """A bad record of the shard's own keys, with the key that it has in the source."""
    key = f"{name}/{bad.key}" if bad.key else url
    return BadRecord(key, bad.reason, bad.detail, bad.lost)


def short_names(urls: list[str]) -> list[str]:
    """File names without folder and ending, or whole urls where those are not unique.

    A command has the name of the last shard that it names.
    """
    names = []
    for url in urls:
        named = [] if is_local(url) else _NAMED.findall(url)
        names.append(named[-1] if named else SHARD_ENDING.sub("", url.rsplit("/", 1)[-1]))
    return names if len(set(names)) == len(names) else urls
