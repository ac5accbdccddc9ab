"""The picture files that a command is given, read one by one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from fastclip.data.bad_records import BadValueError
from fastclip.data.sources.folder_walk import walk_folder
from fastclip.data.transforms import eval_transform
from fastclip.errors import UserError, expand_home
from fastclip.runs.pictures import told

THREADS = 2


class PictureFile(NamedTuple):
    """A picture uint8 ``[3, S, S]``, or in words why there is none."""

    path: Path
    pixels: Tensor | str


def list_files(named: Iterable[str]) -> list[Path]:
    """Files as they are named, and in the place of a folder all pictures below it, sorted.

    Raises :class:`UserError` for what is not there and a folder without pictures.
    """
    found: list[Path] = []
    for name in named:
        path = expand_home(name, "PICTURE")
        if path.is_dir():
            inside = sorted(walk_folder(path).pictures)
            if not inside:
                raise UserError(f"the folder {path} holds no picture")
            found += [path / picture for picture in inside]
        elif path.exists():
            found.append(path)
        else:
            raise UserError(f"there is no {path}, expected a picture or a folder of pictures")
    return found


def read_files(paths: Sequence[Path], size: int, batch: int) -> Iterator[list[PictureFile]]:
    """The files in their order, by the evaluation transform, ``batch`` at a time."""

    def read(path: Path) -> PictureFile:
        try:
            return PictureFile(path, eval_transform(path, size))
        except BadValueError as error:
            return PictureFile(path, told(error))

    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, len(paths), batch):
            yield list(pool.map(read, paths[start : start + batch]))
