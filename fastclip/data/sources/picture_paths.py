"""Where the pictures lie that an annotation file names."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fastclip.data.bad_records import listed
from fastclip.data.sources.spec import DataSpec, flag_of, is_validation
from fastclip.data.sources.texts import Texts
from fastclip.errors import UserError

LOOKED_AT = 32
"""Pictures, spread over the file, that are looked for when their folder is."""


class PicturePaths:
    """Folders of pictures; each is taken from the first of them that has it."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self.folders = tuple(folders)

    def path(self, name: str) -> Path:
        """The file of that name; where no folder has it, the path at which it was expected."""
        if len(self.folders) > 1:
            for folder in self.folders:
                if os.path.exists(folder / name):
                    return folder / name
        return self.folders[0] / name


def find_pictures(
    spec: DataSpec,
    names: Texts,
    near: Sequence[str] = (),
    from_working_directory: bool = False,
    are_wanted: bool = True,
) -> PicturePaths:
    """Look for some of the pictures ``names`` and keep the folders that have any.

    Looked at are ``spec.image_root``, or without one the annotation file's folder, the folder above
    and the working directory (which comes first with ``from_working_directory``), and in each of
    them the folders ``near``. An empty name is no picture. Raises :class:`UserError` where none of
    the pictures is there, unless they are not wanted.
    """
    beside, flag = Path(spec.path).parent, flag_of("image_root", spec.role)
    if spec.image_root:
        if not Path(spec.image_root).is_dir():
            default = " (by default --image-root)" if is_validation(spec.role) else ""
            raise UserError(f"{flag}{default} {spec.image_root} is not a folder")
        bases = [Path(spec.image_root)]
    elif from_working_directory:
        bases = [Path(), beside]
    else:
        bases = [beside, beside / "..", Path()]
    folders = [base / name for base in bases for name in ("", *near)]
    folders = [folder for folder in dict.fromkeys(folders) if folder.is_dir()]
    numbers = np.linspace(0, len(names) - 1, min(LOOKED_AT, len(names))).astype(int).tolist()
    looked_for = [name for number in numbers if (name := names.name(number))]
    if not are_wanted or not looked_for:
        return PicturePaths(folders or [beside])
    having = [f for f in folders if any(os.path.isfile(f / name) for name in looked_for)]
    if not having:
        raise UserError(
            f"{spec.path} names pictures that are not there: none of {len(looked_for)}, the first "
            f"{looked_for[0]!r}, lies in {listed([str(f) for f in folders])}; {flag} names their "
            "folder"
        )
    return PicturePaths(having)


def bad_name(name: object) -> str:
    """Why ``name`` cannot be a picture's path; "" where it can."""
    if not isinstance(name, str):
        return "it is not a text"
    if not name.strip():
        return "it is empty"
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "it is not UTF-8"
    return "it has a NUL byte" if "\0" in name else ""
