"""Writes records to numbered shards of a folder, with the sizes that readers believe."""

import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path


class ShardWriter:
    """USTAR shards ``NAME-00000.tar``, ... of at most ``shard_records`` records each.

    The same records give the same bytes: members carry no time and no owner.
    """

    def __init__(self, folder: Path, name: str, shard_records: int) -> None:
        self.folder, self.name, self.shard_records = folder, name, shard_records
        self.sizes: dict[str, int] = {}
        self.records = 0
        self._tar: tarfile.TarFile | None = None

    def add(self, members: Mapping[str, bytes]) -> None:
        """Write one record: its members' contents by extension."""
        if self.records % self.shard_records == 0:
            self._next()
        assert self._tar is not None
        for extension, content in members.items():
            member = tarfile.TarInfo(f"{self.records:08d}.{extension}")
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        self.sizes[Path(str(self._tar.name)).name] += 1
        self.records += 1

    def pattern(self) -> str:
        """The shards' names, as a list with braces; empty where there is none."""
        last = len(self.sizes) - 1
        if last < 0:
            return ""
        return f"{self.name}-{{00000..{last:05d}}}.tar" if last else f"{self.name}-00000.tar"

    def close(self) -> None:
        """Close the last shard."""
        if self._tar is not None:
            self._tar.close()
            self._tar = None

    def _next(self) -> None:
        self.close()
        path = self.folder / f"{self.name}-{len(self.sizes):05d}.tar"
        self._tar = tarfile.open(path, "w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115
        self.sizes[path.name] = 0


def write_sizes(folder: Path, sizes: Mapping[str, int]) -> None:
    """``sizes.json``, as webdataset's and open_clip's readers know it."""
    (folder / "sizes.json").write_text(json.dumps(dict(sizes), indent=1) + "\n")
