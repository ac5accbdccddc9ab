"""What files beside shards say of the number of their records."""

import json
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastclip.data.index.index_cache import known_count
from fastclip.data.index.tar_header import BLOCK
from fastclip.data.sources.base import Size

logger = logging.getLogger(__name__)
SHARD_ENDING = re.compile(r"\.(tar|tgz|tar\.gz)$")


@dataclass
class _Folder:
    """What a folder says: records by a shard's name, or of all of its shards together."""

    sizes: dict[str, Any]
    total: int | None = None
    places: dict[str, int] = field(default_factory=dict)


class SaidSizes:
    """Sizes by ``sizes.json``, by img2dataset's ``NNNNN_stats.json``, or by ``__len__``.

    ``__len__`` says only how many records a whole folder has: each of its shards counts with an
    equal share, and a file that names the shard goes before it. What cannot be so is passed over.
    No shard is opened, and files of a whole folder are read once.
    """

    def __init__(self) -> None:
        self._folders: dict[Path, _Folder] = {}
        self._told: set[Path] = set()

    def of(self, path: Path, nbytes: int | None = None) -> int | None:
        """Records of a shard, at least 1; None where nothing says it.

        More than ``nbytes`` have room for are not believed.
        """
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = _read_folder(path.parent)
        said = _whole(folder.sizes.get(path.name))
        if said is None:
            stats = path.with_name(f"{path.name.split('.')[0]}_stats.json")
            said = _whole(_object(stats).get("successes"))
        if said is None and folder.total is not None and path.name in folder.places:
            place, count = folder.places[path.name], len(folder.places)
            said = folder.total * (place + 1) // count - folder.total * place // count
        # A shard that was believed to be empty would never be opened.
        if not said:
            return None
        if nbytes is not None and path.suffix == ".tar" and said * BLOCK > nbytes:
            if path not in self._told:
                self._told.add(path)
                logger.warning(
                    "%s is said to hold %d records, for which its %d bytes have no room: "
                    "its records are counted",
                    *(path, said, nbytes),
                )
            return None
        return said


def size_unopened(path: Path, said: SaidSizes) -> Size | None:
    """Records in a shard by its index, where one is kept, else as a file beside it says; None
    where it must be opened. A file that is not there any more has those it should have had."""
    try:
        stat = path.stat()
    except OSError:
        return Size(said.of(path) or 1, believed=True)
    known = known_count(path, (stat.st_size, stat.st_mtime_ns))
    if known is not None:
        return Size(known)
    records = said.of(path, stat.st_size)
    return None if records is None else Size(records, believed=True)


def _read_folder(folder: Path) -> _Folder:
    found = _Folder(_object(folder / "sizes.json"))
    try:
        found.total = _whole((folder / "__len__").read_text().strip())
        if found.total is not None:
            shards = sorted(p.name for p in folder.iterdir() if SHARD_ENDING.search(p.name))
            found.places = {name: place for place, name in enumerate(shards)}
    except (OSError, ValueError):
        pass
    return found


def _object(file: Path) -> dict[str, Any]:
    """The object in a json file; empty where there is none."""
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _whole(value: object) -> int | None:
    """A number of records, also one that is spelled out; None for anything else."""
    if isinstance(value, str) and re.fullmatch("[0-9]{1,15}", value):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**15:
        return value
    return None
