"""Small folders of pictures, and what a source makes of them."""

from pathlib import Path

from shard_files import picture_bytes

from fastclip.data.bad_records import BadRecord
from fastclip.data.fields.base import Field
from fastclip.data.sources.base import Record
from fastclip.data.sources.spec import DataSpec
from fastclip.data.sources.walk import all_records

EVERYTHING = frozenset(
    ("picture", "caption", "captions", "tags", "label", "labels", "text", "id", "json")
)


class Asked(Field):
    """A field that can be read from any of ``values``."""

    def __init__(self, name, *values):
        self.name = self.column = name
        self.values = values or (name,)
        self.found_in = f"a column {name}"

    def read(self, values, reading):
        raise NotImplementedError

    def collate(self, built, draws, reading):
        raise NotImplementedError


def write_pictures(folder: Path, *names: str) -> Path:
    """Pictures of the formats that their endings say; the same name gives the same picture."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        kind = {"jpg": "JPEG", "jpeg": "JPEG"}.get(path.suffix[1:].lower(), path.suffix[1:].upper())
        path.write_bytes(picture_bytes(sum(map(ord, name)), kind=kind))
    return folder


def open_with(module, path, wanted=EVERYTHING, **settings):
    """The source of a module at ``path``."""
    return module.open_source(DataSpec(str(path), **settings), frozenset(wanted))


def good(source) -> dict[str, dict]:
    """Values of all records by key; fails for a key that comes twice."""
    records = [record for record in all_records(source) if isinstance(record, Record)]
    found = {record.key: dict(record.values) for record in records}
    assert len(found) == len(records)
    return found


def bad(source) -> list[BadRecord]:
    """Bad records and problems, in order."""
    return [record for record in all_records(source) if isinstance(record, BadRecord)]
